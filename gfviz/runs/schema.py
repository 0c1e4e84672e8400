"""The metrics database: its tables, its version, how it is opened.

One narrow table keyed (series, step) and `WITHOUT ROWID`: a series lies together on disk in step order, so the newest
row, everything after a step and a range for a bucket are each one descent of one tree.

`synchronous = NORMAL` in WAL mode: a commit is a write without fsync, so a killed process loses nothing (the kernel has
the pages) and only a power cut may take the newest commits, never the file. What must survive a power cut is what a
checkpoint acknowledges; `RunWriter.sync` copies the log into the database with fsync there. `FULL` would put one fsync
into every flush of a training loop for rows that a resume computes again anyway.
"""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import quote

from gfviz.errors import GfvizError
from gfviz.files import atomic_path

SCHEMA_VERSION = 1
BUSY_SECONDS = 10.0

_TABLES = """\
CREATE TABLE series (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE scalars (
    series INTEGER NOT NULL, step INTEGER NOT NULL, value REAL, time REAL NOT NULL,
    PRIMARY KEY (series, step)
) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, step INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE state (key TEXT PRIMARY KEY, value REAL) WITHOUT ROWID;
"""

# What reading a hostile database raises: SQLite quotes the file's own bytes, which may be no text, in what it says, and
# calls some damage a lack of memory.
SQLITE_FAULTS = (sqlite3.Error, UnicodeDecodeError, MemoryError)
# Steps of SQLite's machine that any question of ours takes at most for a byte of the file, and for none at all: a row
# takes some ten bytes, and to read, sort or count it some tens of steps.
_STEPS_A_BYTE, _STEPS_AT_LEAST, _STEPS_A_LOOK = 16, 500_000, 20_000


class WorkLimit:
    """Ends questions that take more steps than an honest file of that size can need.

    Pages of a hostile file may lead back to themselves: 6 KB are then rows without end. `begin` before each question;
    one that goes on too long raises `sqlite3.OperationalError`, and `spent` says that it was for this.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._path = path
        self._left = 0
        self.begin()
        connection.set_progress_handler(self._look, _STEPS_A_LOOK)

    @property
    def spent(self) -> bool:
        """Whether the last question was ended here."""
        return self._left < 0

    def begin(self) -> None:
        """Give the next question its steps."""
        self._left = (_STEPS_AT_LEAST + _STEPS_A_BYTE * bytes_held(self._path)) // _STEPS_A_LOOK

    def _look(self) -> int:
        self._left -= 1
        return int(self._left < 0)


def bytes_held(path: Path) -> int:
    """Size of a database with its log: no honest text in it is longer, nor all of them together."""
    total = 0
    for part in (path, path.with_name(path.name + "-wal")):
        with contextlib.suppress(OSError):
            total += part.stat().st_size
    return total


def one_line(error: Exception) -> str:
    """What SQLite says, short and in one line: it quotes a file's own text.

    >>> one_line(ValueError("malformed (a\\nb)"))
    'malformed (a b)'
    """
    return " ".join(str(error).split())[:200]


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open or make the database at `path`. Raises `GfvizError` for another version, no permission or a broken file."""
    try:
        if not path.exists():
            # Made beside and renamed: a reader finds a whole store or none.
            with atomic_path(path) as scratch:
                _make(scratch)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except SQLITE_FAULTS as error:
        raise GfvizError(f"cannot write the metrics store {path}: {one_line(error)}") from error
    _check_version(connection, path, version)
    _check_tables(connection, path)
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open the database at `path` read-only. Raises `GfvizError` for another version, a missing or a broken file.

    A WAL database needs its `-shm` file even for reading; on a read-only disk it cannot be made, and a database that
    was closed in order can be read as immutable.
    """
    if not path.is_file():
        raise GfvizError(f"no metrics store at {path}: the run has not begun, or was removed")
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        try:
            connection = _connect_readonly(address)
        except sqlite3.OperationalError:
            if path.with_name(path.name + "-wal").exists():
                raise
            connection = _connect_readonly(address + "&immutable=1")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except SQLITE_FAULTS as error:
        raise GfvizError(f"cannot read the metrics store {path}: {one_line(error)}") from error
    _check_version(connection, path, version)
    _check_tables(connection, path)
    return connection


def _connect_readonly(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _make(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    finally:
        connection.close()


def _check_version(connection: sqlite3.Connection, path: Path, version: int) -> None:
    if version == SCHEMA_VERSION:
        return
    connection.close()
    if version > SCHEMA_VERSION:
        raise GfvizError(
            f"{path} has schema {version}, this gfviz reads up to {SCHEMA_VERSION}: upgrade gfviz to open the run"
        )
    raise GfvizError(f"{path} is not a metrics store of gfviz (schema {version}): remove the run or restore the file")


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    # A foreign file may hold views without end, triggers or computed columns under the names of our tables.
    try:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    except SQLITE_FAULTS as error:
        connection.close()
        raise GfvizError(f"cannot read the metrics store {path}: {one_line(error)}") from error
    wanted = {" ".join(statement.split()) for statement in _TABLES.split(";") if statement.strip()}
    if {" ".join(str(statement).split()) for (statement,) in found} != wanted:
        connection.close()
        raise GfvizError(f"{path} is not a metrics store of gfviz (its tables differ): remove the run or restore it")
