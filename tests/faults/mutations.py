"""Disturbing a good file: bytes anywhere, values inside JSON, headers and numbers inside safetensors."""

import json
import random
import struct
from typing import Any

NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), True, False]
TEXTS = [
    "",
    "../x",
    "/etc/passwd",
    "\ud800",
    "\u2028",
    "A" * 5000,
    "nan",
    "<script>",
    "a\x00b",
    "ж",
    "running",
    "bytes",
]
TOKENS = [
    b"!!python/object/apply:os.system [id]", b"&a [*a]", b"<<: *a", b"2001-99-99", b"0x", b"0b", b"1:60", b"? ",
    b"- - - ",
    b"!!binary x", b"!!timestamp 9999-99-99", b"!!int _", b"!!float .", b"{a: &b {<<: *b}}", b"\xff\xfe", b"\x00",
    b"NaN",
    b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 2000, b"null", b'"\\ud800"', b"\r\n", b"\n", b"\xe2\x80\xa8", b"..",
    b"%s%n", b"---\n", b"!!set {a}", b"!!omap [a]", b"!!merge x", b"0o9", b"0x" + b"f" * 5000, b"=", b"!!bool maybe",
]  # fmt: skip


def mutate(content: bytes, form: str, draw: random.Random) -> bytes:
    """One disturbed copy of `content`."""
    if form in ("json", "jsonl") and draw.random() < 0.7:
        return _disturbed_json(content, form, draw)
    if form == "safetensors" and draw.random() < 0.7:
        return _disturbed_tensors(content, draw)
    if form == "tfevents" and draw.random() < 0.8:
        return _disturbed_frames(content, draw)
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        _disturb(found, form, draw)
    return bytes(found)


def _disturb(found: bytearray, form: str, draw: random.Random) -> None:
    place = draw.randrange(len(found) + 1)
    kind = draw.randrange(7)
    if kind == 0 and found:
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    elif kind == 1 and found:
        found[draw.randrange(len(found))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    elif kind == 2:
        del found[place:]
    elif kind == 3:
        del found[place : place + draw.choice((1, 2, 8, 64))]
    elif kind == 4:
        found[place:place] = found[place : place + draw.choice((1, 8, 64))] * draw.choice((1, 2, 9))
    elif kind == 5:
        found[place:place] = draw.choice(TOKENS)
    else:
        found[place : place + 8] = struct.pack("<q", draw.choice((0, -1, 1, 2**31, 2**40, 2**62, draw.getrandbits(40))))


def _disturbed_json(content: bytes, form: str, draw: random.Random) -> bytes:
    lines = content.split(b"\n") if form == "jsonl" else [content]
    number = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[number])
    except (ValueError, RecursionError):
        lines[number] += draw.choice(TOKENS)
        return b"\n".join(lines)
    for _ in range(draw.choice((1, 1, 2, 3))):
        tree = disturbed_tree(tree, draw)
    try:
        text = json.dumps(tree, ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):
        text = "[" * 50_000
    lines[number] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def disturbed_tree(tree: Any, draw: random.Random) -> Any:
    """A JSON value with one node replaced, dropped, doubled or buried."""
    if isinstance(tree, dict) and tree and draw.random() < 0.8:
        key = draw.choice(list(tree))
        made = dict(tree)
        kind = draw.randrange(8)
        if kind == 0:
            del made[key]
        elif kind == 1:
            made[draw.choice(TEXTS)] = made.pop(key)
        else:
            made[key] = disturbed_tree(made[key], draw)
        return made
    if isinstance(tree, list) and tree and draw.random() < 0.8:
        place = draw.randrange(len(tree))
        kind = draw.randrange(6)
        rest = [*tree[:place], *tree[place + 1 :]]
        if kind == 0:
            return rest
        if kind == 1:
            return [*tree, *tree]
        return [*tree[:place], disturbed_tree(tree[place], draw), *tree[place + 1 :]]
    return _odd_value(tree, draw)


def _odd_value(tree: Any, draw: random.Random) -> Any:
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 5:
        return draw.choice(TEXTS)
    if kind == 5:
        return draw.choice((None, [], {}, [tree], {"a": tree}))
    if kind == 6 and isinstance(tree, int | float):
        return tree + draw.choice((-1, 1, 0.5)) if abs(tree) < 1e300 else 0
    deep: Any = tree
    for _ in range(draw.choice((3, 200, 900))):
        deep = [deep]
    return deep


def _disturbed_tensors(content: bytes, draw: random.Random) -> bytes:
    if len(content) < 8:
        return content + b"\0" * 8
    size = struct.unpack("<Q", content[:8])[0]
    try:
        header = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError):
        return content[: draw.randrange(len(content))]
    body = bytearray(content[8 + size :])
    if draw.random() < 0.5 and body:
        _disturb_numbers(body, draw)
    else:
        inner = header.get("__metadata__", {}) if isinstance(header, dict) else {}
        if isinstance(inner, dict) and "graph" in inner and draw.random() < 0.5:
            fields = disturbed_tree(json.loads(inner["graph"]) if isinstance(inner["graph"], str) else {}, draw)
            header["__metadata__"] = {**inner, "graph": _dumped(fields)}
        else:
            header = disturbed_tree(header, draw)
    text = _dumped(header).encode("utf-8", "surrogatepass")
    length = len(text) if draw.random() < 0.95 else draw.choice((0, 2**40, 2**63, len(text) * 2, 10 * 2**30))
    return struct.pack("<Q", length) + text + bytes(body)


def _dumped(tree: Any) -> str:
    try:
        return json.dumps(tree)
    except (ValueError, RecursionError):
        return "{}"


def _disturb_numbers(body: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 2, 5))):
        width = draw.choice((1, 2, 4, 8))
        place = draw.randrange(max(1, len(body) // width)) * width
        value = draw.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, 1e-30, 65504.0, -0.0))
        whole = draw.choice((0, 1, -1, 127, 10**6, 2**31 - 1))
        packed = {
            1: struct.pack("<b", max(-128, min(127, whole))), 2: struct.pack("<e", min(value, 65504.0)),
            4: draw.choice((struct.pack("<f", value), struct.pack("<i", whole))),
            8: draw.choice((struct.pack("<d", value), struct.pack("<q", whole * draw.choice((1, 2**30))))),
        }[width]  # fmt: skip
        body[place : place + width] = packed


def frame(data: bytes, length: int | None = None) -> bytes:
    """A record of a TensorBoard event file with checksums that fit; `length` may be a lie."""
    head = struct.pack("<Q", len(data) if length is None else length)
    return head + _masked_crc(head) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C bit by bit, from its definition (RFC 3720), masked as TensorFlow masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _disturbed_frames(content: bytes, draw: random.Random) -> bytes:
    """Records doubled, dropped, cut, lying about their length or disturbed inside: what is behind the checksums."""
    records, at = [], 0
    while at + 16 <= len(content) and len(records) < 50:
        length = int.from_bytes(content[at : at + 8], "little")
        if length > len(content) - at - 16:
            break
        records.append(content[at + 12 : at + 12 + length])
        at += 16 + length
    if not records:
        return frame(content[:200]) + content
    found = [frame(record) for record in records]
    place = draw.randrange(len(found))
    kind = draw.randrange(10)
    if kind == 0:
        found[place] = frame(records[place], draw.choice((0, 1, 2**16, 2**31, 2**40, 10 * 2**30, 2**63, 2**64 - 1)))
    elif kind == 1:
        wrong = bytearray(found[place])
        wrong[draw.choice((8, 11, len(wrong) - 1, len(wrong) - 4))] ^= 1 << draw.randrange(8)
        found[place] = bytes(wrong)
    elif kind == 2:
        del found[place]
    elif kind == 3:
        found[place:place] = [found[place]] * draw.choice((1, 2, 30))
    else:
        inner = bytearray(records[place])
        for _ in range(draw.choice((1, 1, 2, 4))):
            _disturb(inner, "bytes", draw)
        if draw.random() < 0.3:
            number = draw.choice((float("nan"), float("inf"), -1.0, 1e300, 0.0))
            inner += b"\x09" + struct.pack("<d", number)
        if draw.random() < 0.2:
            inner += b"\x10" + draw.choice((b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\x80", b"\xff" * 7 + b"\x0f"))
        found[place] = frame(bytes(inner))
    made = b"".join(found)
    return made[: draw.randrange(len(made) + 1)] if draw.random() < 0.1 else made
