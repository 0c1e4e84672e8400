"""Scalars of TensorBoard event files, read without TensorBoard: frames, checksums and the few fields that matter.

A file is a row of frames: length (uint64), its checksum, the data, its checksum, all little-endian; a checksum is
CRC-32C (RFC 3720, appendix B.4), rotated right by 15 bits and moved by a constant, so that it can lie inside data that
is checked itself. The data is a protocol buffer `Event`, of which `wall_time` (1), `step` (2) and `summary` (5) are
read, and of a summary's values `tag` (1), `simple_value` (2) and a scalar `tensor` (8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gfviz.errors import GfvizError

MAX_FILE = 1 << 30
# A record this large holds pictures, sound or graphs; scalars take some dozen bytes.
MAX_RECORD = 1 << 16
MAX_RECORDS = 10_000_000
_POLYNOMIAL = 0x82F63B78
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64: how one is packed, and the repeated field that may hold it instead.
_NUMBERS = {1: ("<f", 5), 2: ("<d", 6), 3: ("<i", 7), 9: ("<q", 10)}


class Scalar(NamedTuple):
    """One logged number: `time` in seconds since 1970."""

    tag: str
    step: int
    value: float
    time: float


def read_scalars(path: str | Path) -> Iterator[Scalar]:
    """The scalars of an event file in the order they were written; a record cut off at the end is left out.

    Raises `GfvizError` for a file over 1 GB, a damaged one, or one that is no event file. Cost: about 10 µs a record,
    and the file's size in memory.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise GfvizError(f"{path} is larger than 1 GB: import a smaller event file")
        data = path.read_bytes()
    except OSError as error:
        raise GfvizError(f"cannot read {path}: {error.strerror or error}") from error
    for start, stop in _frames(data, path):
        if stop - start <= MAX_RECORD:
            try:
                yield from _event(data[start:stop])
            except (ValueError, struct.error, IndexError) as error:
                raise GfvizError(f"{path} is damaged at byte {start}: {error}") from error


def _frames(data: bytes, path: Path) -> list[tuple[int, int]]:
    """Where each record's data begins and ends, checksums checked."""
    found: list[tuple[int, int]] = []
    at, size = 0, len(data)
    while at + 12 <= size:
        if len(found) == MAX_RECORDS:
            raise GfvizError(f"{path} holds more than {MAX_RECORDS:,} records: import a smaller event file")
        length = int.from_bytes(data[at : at + 8], "little")
        if length > size - at - 16:
            break  # still being written, or cut off: the checksum below tells it from garbage
        found.append((at + 12, at + 12 + length))
        at += 16 + length
        if len(found) == 1:
            _check_heads(data, np.zeros(1, np.int64), path)  # before a foreign file is walked through
    raw = np.frombuffer(data, np.uint8)
    heads = np.array([start - 12 for start, _ in found] + ([at] if at + 12 <= size else []), np.int64)
    _check_heads(data, heads, path)
    if not found and size:
        raise GfvizError(f"{path} is no TensorBoard event file: it holds no whole record")
    ends = np.array(found, np.int64).reshape(-1, 2)
    lengths = ends[:, 1] - ends[:, 0]
    for length in np.unique(lengths[lengths <= MAX_RECORD]):
        wrong = _mismatches(raw, ends[lengths == length, 0], int(length))
        if len(wrong):
            raise GfvizError(f"{path} is damaged at byte {int(wrong[0])}: the checksum of a record does not fit")
    return found


def _check_heads(data: bytes, heads: np.ndarray, path: Path) -> None:
    wrong = _mismatches(np.frombuffer(data, np.uint8), heads, 8)
    if len(wrong):
        first = int(wrong[0])
        what = "is no TensorBoard event file" if first == 0 else f"is damaged at byte {first}"
        raise GfvizError(f"{path} {what}: the checksum of a record's length does not fit")


def _mismatches(raw: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Those of `starts` at which `length` bytes are not followed by their masked checksum."""
    wrong = []
    for part in np.array_split(starts, len(starts) // 100_000 + 1):
        crc = _crc32c(raw, part, length)
        masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
        stored = sum(raw[part + length + k].astype(np.uint32) << np.uint32(8 * k) for k in range(4))
        wrong.append(part[masked != stored])
    return np.concatenate(wrong)


def _crc32c(raw: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """CRC-32C of `length` bytes from each of `starts`: all records at once, byte by byte.

    >>> int(_crc32c(np.frombuffer(b"123456789", np.uint8), np.array([0]), 9)[0]) == 0xE3069283
    True
    """
    crc = np.full(len(starts), 0xFFFFFFFF, np.uint32)
    for k in range(length):
        crc = _TABLE[(crc ^ raw[starts + k]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return ~crc


def _make_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & np.uint32(1), (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


_TABLE = _make_table()


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of a message's fields: integers for varints, raw bytes for the rest."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if length > len(data) - at:
            raise ValueError("a field reaches beyond its record")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number of more than ten bytes")


def _event(data: bytes) -> Iterator[Scalar]:
    time, step, summaries = 0.0, 0, []
    for number, wire, value in _fields(data):
        if number == 1 and wire == _FIXED64:
            time = float(struct.unpack("<d", value)[0])  # type: ignore[arg-type]
        elif number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5 and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, wire, value in _fields(summary):
            if number == 1 and wire == _BYTES:
                found = _value(value)  # type: ignore[arg-type]
                if found is not None:
                    yield Scalar(found[0], step, found[1], time)


def _value(data: bytes) -> tuple[str, float] | None:
    tag, number = None, None
    for field, wire, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            tag = value.decode("utf-8", "replace")
        elif field == 2 and wire == _FIXED32:
            number = float(struct.unpack("<f", value)[0])  # type: ignore[arg-type]
        elif field == 8 and isinstance(value, bytes):
            number = _tensor(value)
    return None if tag is None or number is None else (tag, number)


def _tensor(data: bytes) -> float | None:
    """The number in a tensor of one number; None for any other tensor."""
    kind, packed = 0, b""
    repeated: dict[int, int | bytes] = {}
    for field, _, value in _fields(data):
        if field == 1 and isinstance(value, int):
            kind = value
        elif field == 2 and isinstance(value, bytes) and any(number == 2 for number, _, _ in _fields(value)):
            return None  # it has dimensions
        elif field == 4 and isinstance(value, bytes):
            packed = value
        else:
            repeated[field] = value
    if kind not in _NUMBERS:
        return None
    form, place = _NUMBERS[kind]
    if len(packed) == struct.calcsize(form):
        return float(struct.unpack(form, packed)[0])
    held = repeated.get(place)
    if isinstance(held, bytes) and held:
        if kind in (1, 2):
            return float(struct.unpack(form, held)[0]) if len(held) == struct.calcsize(form) else None
        held, _ = _varint(held, 0)
    if isinstance(held, int):
        return float(held - (1 << 64) if held >> 63 else held)
    return None
