"""Runs of other programs as hostile input: TensorBoard's event files and Trackio's databases, given to the importer."""

import json
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.runs import list_runs
from gfviz.runs.imports import import_runs
from tests.faults.mutations import frame

MOMENT = "2026-01-02T03:04:05+00:00"
# One run with two rows, as Trackio logs them, and its configuration; the tables are made of it.
ROWS = [["1", "one", MOMENT, 0, '{"loss": 1.5, "x": "NaN"}'], ["1", "one", MOMENT, 3, '{"loss": 0.5, "n": 3}']]
CONFIGS = [["1", '{"lr": 0.1, "_Username": "someone"}']]
TABLES = """
    CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, run_name TEXT, timestamp TEXT, step,
        metrics TEXT);
    CREATE TABLE configs (id INTEGER PRIMARY KEY, run_id TEXT, config TEXT);
"""


def _value(tag: bytes, number: bytes) -> bytes:
    inner = b"\x0a" + bytes([len(tag)]) + tag + number
    summary = b"\x0a" + bytes([len(inner)]) + inner
    return b"\x2a" + bytes([len(summary)]) + summary


def event_seeds() -> list[bytes]:
    """Event files: numbers as plain values, as tensors packed and not, and one of no scalars."""
    time = b"\x09" + struct.pack("<d", 1.7e9)
    version = frame(time + b"\x1a\x0dbrain.Event:2")
    plain = [frame(time + b"\x10" + bytes([step]) + _value(b"loss", b"\x15" + struct.pack("<f", 1 / (1 + step))))
             for step in range(3)]  # fmt: skip
    tensors = [
        b"\x08\x01\x12\x00\x22\x04" + struct.pack("<f", 0.5), b"\x08\x02\x32\x08" + struct.pack("<d", 2.5),
        b"\x08\x09\x52\x01\x07", b"\x08\x03\x12\x04\x12\x02\x08\x02\x22\x08" + bytes(8),
    ]  # fmt: skip
    framed = [frame(time + b"\x10\x05" + _value(b"t", b"\x42" + bytes([len(each)]) + each)) for each in tensors]
    odd = [frame(time + _value(b"nan", b"\x15\x00\x00\xc0\x7f")), frame(b"\x10" + b"\xff" * 9 + b"\x01")]
    return [version + b"".join(plain), version + b"".join(framed), version + b"".join(odd), version]


def read_events(content: bytes, folder: Path) -> None:
    """An event file among a log folder's, to a run and its rows."""
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "events.out.tfevents.1700000000.host").write_bytes(content)
    _import(folder / "logs", folder / "imported")


def database(rows: Any, configs: Any, before: str = "", after: str = "") -> bytes:
    """A Trackio database of these rows, with statements before and after they are put in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        made = sqlite3.connect(path)
        made.executescript("PRAGMA page_size = 512;" + (before or TABLES))
        if rows:
            marks = "(run_id, run_name, timestamp, step, metrics) VALUES (?, ?, ?, ?, ?)"
            made.executemany(f"INSERT INTO metrics {marks}", rows)
        if configs:
            made.executemany("INSERT INTO configs (run_id, config) VALUES (?, ?)", configs)
        made.commit()
        made.executescript(after)
        made.close()
        return path.read_bytes()


def endless(content: bytes, table: str, levels: int = 8) -> bytes:
    """A database in which `table` has rows without end: every branch of its tree is the same page."""
    size, cells = struct.unpack_from(">H", content, 16)[0], 60
    pages = [bytearray(content[start : start + size]) for start in range(0, len(content), size)]
    opened = sqlite3.connect(":memory:")
    # In WAL mode, which bytes 18 and 19 say, nothing can be read from memory.
    opened.deserialize(content[:18] + b"\x01\x01" + content[20:])
    root = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    opened.close()
    leaf = bytearray(pages[root - 1])
    pages.append(leaf)
    # Inner pages of a table name pages and row numbers; those of an index hold rows too, here the leaf's first.
    own = leaf[struct.unpack_from(">H", leaf, 8)[0] :]
    cell = b"" if leaf[0] == 13 else bytes(own[: own[0] + 1])
    for level in range(levels):
        page = bytearray(size)
        width = 5 if leaf[0] == 13 else 4 + len(cell)
        count = min(cells, (size - 12) // (width + 2))
        struct.pack_into(">BHHHBI", page, 0, 5 if leaf[0] == 13 else 2, 0, count, size - width * count, 0, len(pages))
        for number in range(count):
            at = size - width * (number + 1)
            page[at : at + width] = struct.pack(">I", len(pages)) + (cell or bytes([number + 1]))
            struct.pack_into(">H", page, 12 + 2 * number, at)
        if level < levels - 1:
            pages.append(page)
        else:
            pages[root - 1] = page
    made = bytearray(b"".join(pages))
    struct.pack_into(">I", made, 28, len(pages))
    return bytes(made)


def database_seeds() -> list[bytes]:
    """Good databases, and some whose schema tries to run, to grow or to mislead."""
    generated = TABLES.replace("metrics TEXT", "metrics TEXT AS (printf('%.*c', 900000000, 'x'))").replace(
        "step,", "step AS (1),"
    )
    unending = (
        "DROP TABLE metrics; CREATE VIEW metrics AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, 'r' AS run_name, i AS step, '' AS timestamp, '{}' AS metrics FROM n"
    )
    hostile = [
        unending, "UPDATE metrics SET metrics = zeroblob(1000000)", "UPDATE metrics SET step = x'00', run_name = NULL",
        "UPDATE metrics SET timestamp = 1e300", "UPDATE metrics SET run_id = x'ff', run_name = x'ff'",
        "CREATE INDEX i ON metrics (abs(id)); UPDATE configs SET config = '[' || config",
        "CREATE TRIGGER t AFTER INSERT ON metrics BEGIN DELETE FROM configs; END",
    ]  # fmt: skip
    made = [database(ROWS, CONFIGS), *(database(ROWS, CONFIGS, after=script) for script in hostile)]
    made += [endless(database([[*row[:4], text] for row in ROWS], []), "metrics") for text in ("{}", ROWS[0][4])]
    return [*made, _schema(generated), _schema(TABLES.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "TEXT"))]


def _schema(tables: str) -> bytes:
    return database([], [], before=tables)


def read_database(content: bytes, folder: Path) -> None:
    """A database file, to its runs."""
    (folder / "project.db").write_bytes(content)
    _import(folder / "project.db", folder / "imported")


def row_seeds() -> list[bytes]:
    """What Trackio's tables hold, as JSON, so that rows are disturbed and the database stays whole."""
    return [json.dumps({"rows": ROWS, "configs": CONFIGS}).encode()]


def read_rows(content: bytes, folder: Path) -> None:
    """A whole database of disturbed rows; what SQLite itself does not take is no input."""
    try:
        given = json.loads(content)
        file = database(given["rows"], given["configs"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, sqlite3.Error):
        return
    read_database(file, folder)


def _import(path: Path, root: Path) -> None:
    """Import, and look that what was made can be read and is what a runs folder may hold; then clear it away."""
    before = {run.id for run in list_runs(root)}
    try:
        made = import_runs(path, root)
    except GfvizError:
        assert {run.id for run in list_runs(root)} == before, "a refused import left a run behind"
        raise
    try:
        for run in made:
            assert run.path.parent.resolve() == root.resolve(), "a name led out of the folder"
            assert run.status().state == "finished"
            with run.reader() as reader:
                names = reader.names()
                assert names, "a run without a row"
                for name in names[:5]:
                    series = reader.series(name)
                    assert np.all(np.diff(series.steps) > 0), "a step twice"
                    assert series.steps[0] >= 0
    finally:
        for run in made:
            run.remove()


READERS: dict[str, tuple[str, Callable[[], list[bytes]], Callable[[bytes, Path], None], float]] = {
    "tensorboard": ("tfevents", event_seeds, read_events, 1.0),
    "trackio.db": ("bytes", database_seeds, read_database, 1.0),
    "trackio rows": ("json", row_seeds, read_rows, 1.0),
}
