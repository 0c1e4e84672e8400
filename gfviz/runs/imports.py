"""Runs that TensorBoard or Trackio logged, brought into the runs folder: their scalars, steps, times and configuration.

Nothing of either program is needed or run. Files are taken for hostile: sizes, checksums, names and numbers are checked
before anything is written, and what does not fit is refused in one line.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import time as clock
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gfviz.errors import GfvizError
from gfviz.files import is_text
from gfviz.runs.directory import RunDirectory
from gfviz.runs.foreign import text_of
from gfviz.runs.schema import SQLITE_FAULTS, WorkLimit, bytes_held, one_line
from gfviz.runs.tfevents import Scalar, read_scalars
from gfviz.runs.yamlfile import dump_mapping

MAX_FILES, MAX_RUNS, MAX_METRICS, MAX_NAME = 2000, 500, 2000, 300
MAX_ROWS = 20_000_000
MAX_DATABASE = 1 << 30
MAX_TEXT = 1 << 20
_SQLITE_MAGIC = b"SQLite format 3\x00"
# Trackio writes what JSON has no number for as these words.
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass
class _Foreign:
    """One run as another program logged it."""

    name: str
    kind: str
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[Scalar] = field(default_factory=list)


def import_runs(path: str | Path, root: str | Path) -> list[RunDirectory]:
    """Bring the runs in `path` into the runs folder `root`; returns them, all or none of them made.

    `path` is a TensorBoard event file, a folder with such files (each folder below it that holds some is a run), a
    Trackio database, or a folder of those. Raises `GfvizError` for anything else, for a damaged file, and for more than
    500 runs, 2 000 metrics a run or 20 million rows. A configuration that is too long or too deep to be read again is
    left out, which `import_note` and the run's events say. Importing twice makes two runs.
    """
    path = Path(path)
    found = [run for run in _foreign_runs(path) if run.rows]
    if not found:
        raise GfvizError(
            f"{path} holds no scalars of TensorBoard or Trackio: give an event file, its folder or a .db file"
        )
    made: list[RunDirectory] = []
    try:
        for foreign in found:
            made.append(_write(foreign, Path(root)))
    except BaseException:
        for run in made:
            with contextlib.suppress(GfvizError):
                run.remove()
        raise
    return made


def is_foreign(name: str) -> bool:
    """Whether a file of that name may be an event file or a Trackio database.

    >>> is_foreign("events.out.tfevents.1700000000.host"), is_foreign("project.db"), is_foreign("a.safetensors")
    (True, True, False)
    """
    return "tfevents" in name or name.endswith(".db")


def _foreign_runs(path: Path) -> list[_Foreign]:
    if path.is_file():
        return _trackio(path) if _is_sqlite(path) else [_tensorboard(path.parent.name or path.stem, [path])]
    if not path.is_dir():
        raise GfvizError(f"no file or folder at {path}: give an event file, its folder or a Trackio database")
    folders: dict[Path, list[Path]] = {}
    databases: list[Path] = []
    for count, file in enumerate(_files(path)):
        if count >= MAX_FILES:
            raise GfvizError(
                f"{path} holds more than {MAX_FILES} event files and databases: import its folders one by one"
            )
        if "tfevents" in file.name:
            folders.setdefault(file.parent, []).append(file)
        elif _is_sqlite(file) and _has_metrics(file):
            databases.append(file)
    if len(folders) > MAX_RUNS:
        raise GfvizError(f"{path} holds more than {MAX_RUNS} runs: import its folders one by one")
    runs = [_tensorboard(_relative(folder, path), sorted(files)) for folder, files in sorted(folders.items())]
    return runs + [run for database in sorted(databases) for run in _trackio(database)]


def _files(folder: Path) -> Iterable[Path]:
    # Links are not followed: a log folder from elsewhere must not lead out of itself.
    for file in folder.rglob("*"):
        if is_foreign(file.name) and file.is_file() and not file.is_symlink():
            yield file


def _relative(folder: Path, base: Path) -> str:
    inner = folder.relative_to(base).as_posix()
    return base.resolve().name if inner == "." else inner


def _tensorboard(name: str, files: list[Path]) -> _Foreign:
    run = _Foreign(name, "tensorboard", str(files[0].parent))
    for file in files:
        for row in read_scalars(file):
            run.rows.append(row)
            if len(run.rows) > MAX_ROWS:
                raise GfvizError(f"{file.parent} holds more than {MAX_ROWS:,} rows: import a shorter run")
    return run


def _is_sqlite(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise GfvizError(f"cannot read {path}: {error.strerror or error}") from error


def _has_metrics(path: Path) -> bool:
    with contextlib.closing(_open(path)) as database:
        return bool(_columns(database, "metrics", path))


def _open(path: Path) -> sqlite3.Connection:
    if path.stat().st_size > MAX_DATABASE:
        raise GfvizError(f"{path} is larger than 1 GB: import a smaller database")
    try:
        database = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=5.0)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_TEXT)
        # A schema from elsewhere may name functions: none of them runs, and nothing is written.
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA query_only = ON")
    except SQLITE_FAULTS as error:
        raise GfvizError(f"cannot read {path}: {one_line(error)}") from error
    return database


def _columns(database: sqlite3.Connection, table: str, path: Path) -> set[str]:
    """Names of the columns of an ordinary table; empty where there is none of that name (a view is none)."""
    try:
        plain = database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
        return {row[1] for row in database.execute(f"PRAGMA table_info({table})")} if plain else set()
    except SQLITE_FAULTS as error:
        raise GfvizError(f"{path} is not a readable SQLite database: {one_line(error)}") from error


def _trackio(path: Path) -> list[_Foreign]:
    with contextlib.closing(_open(path)) as database:
        columns = _columns(database, "metrics", path)
        if not {"run_name", "step", "timestamp", "metrics"} <= columns:
            raise GfvizError(f"{path} is no Trackio database: it has no table of metrics")
        key = "run_id" if "run_id" in columns else "run_name"
        runs: dict[Any, _Foreign] = {}
        count = 0
        for run_key, name, step, moment, text in _answers(
            database, f"SELECT {key}, run_name, step, timestamp, metrics FROM metrics ORDER BY id", path
        ):
            run = runs.setdefault(run_key, _Foreign(str(name), "trackio", str(path)))
            if not isinstance(step, int):
                raise GfvizError(f"{path}: run {str(name)[:60]!r} has a step that is no whole number")
            numbers = _numbers(_mapping(text, path), step, _moment(moment, path))
            run.rows += numbers
            count += len(numbers)
            if len(runs) > MAX_RUNS or count > MAX_ROWS:
                raise GfvizError(f"{path} holds more than {MAX_RUNS} runs or {MAX_ROWS:,} rows: import less at once")
        if _columns(database, "configs", path) >= {key, "config"}:
            for run_key, text in _answers(database, f"SELECT {key}, config FROM configs", path):
                if run_key in runs:
                    mine = {name: value for name, value in _mapping(text, path).items() if name[:1] != "_"}
                    runs[run_key].config = mine
    return list(runs.values())


def _answers(database: sqlite3.Connection, question: str, path: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of a question, as long as they are no more than the file can hold: its pages may share each other."""
    limit = WorkLimit(database, path)
    room = 2 * bytes_held(path)  # a name may be asked for twice
    try:
        for row in database.execute(question):
            room -= sum(len(value) for value in row if isinstance(value, str | bytes))
            if room < 0:
                raise GfvizError(f"{path} is damaged: its rows hold more than the file")
            yield row
    except SQLITE_FAULTS as error:
        raise GfvizError(f"{path} is damaged: {'its rows have no end' if limit.spent else one_line(error)}") from error


def _mapping(text: Any, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise GfvizError(f"{path} holds a row that is not readable JSON: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise GfvizError(f"{path} holds a row that is no JSON object")
    return found


def _numbers(row: dict[str, Any], step: int, moment: float) -> list[Scalar]:
    found = []
    for name, value in row.items():
        number = _WORDS.get(value) if isinstance(value, str) else value
        if isinstance(number, int | float) and not isinstance(number, bool):
            try:
                found.append(Scalar(name, step, float(number), moment))
            except OverflowError:
                found.append(Scalar(name, step, math.inf, moment))
    return found


def _moment(text: Any, path: Path) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise GfvizError(f"{path} holds a time that is none: {str(text)[:60]!r}") from error


def _write(foreign: _Foreign, root: Path) -> RunDirectory:
    """Make the run; its rows are checked first."""
    names = {row.tag for row in foreign.rows}
    if len(names) > MAX_METRICS or any(len(name) > MAX_NAME or not name for name in names):
        raise GfvizError(
            f"{foreign.source}: more than {MAX_METRICS} metrics, or a name without or with more than {MAX_NAME} letters"
        )
    unwritable = next((name for name in names if not is_text(name)), None)
    if unwritable is not None:
        raise GfvizError(f"{foreign.source}: the metric {unwritable[:60]!a} holds half a character: rename it there")
    if any(not 0 <= row.step < 1 << 53 for row in foreign.rows):
        raise GfvizError(f"{foreign.source}: a step is negative or beyond 2^53: rows are keyed by steps from 0 on")
    times = [row.time for row in foreign.rows if _plausible(row.time)]
    started, ended = (min(times), max(times)) if times else (clock.time(), clock.time())
    config, left_out = _kept_config(foreign)
    run = RunDirectory.create(root, config, kind=foreign.kind, name=text_of(foreign.name)[:100])
    try:
        with run.writer() as writer:
            for row in foreign.rows:
                writer.log(row.step, {row.tag: row.value}, time=row.time if _plausible(row.time) else started)
            writer.beat(total_steps=max(row.step for row in foreign.rows))
            if left_out:
                writer.event(left_out, kind="warning")
        run.backdate(started, ended)
    except BaseException:
        with contextlib.suppress(GfvizError):
            run.remove()
        raise
    return run


def _kept_config(foreign: _Foreign) -> tuple[dict[str, Any], str]:
    """What the run's `config.yaml` holds, and why the configuration is not in it (empty where it is)."""
    origin = {"from": foreign.kind, "path": text_of(foreign.source)}
    config = {"imported": origin} | foreign.config | {"imported": origin}
    try:
        dump_mapping(config)
    except GfvizError as error:
        left_out = f"the configuration was left out: {error}"
        return {"imported": {**origin, "note": left_out}}, left_out
    return config, ""


def import_note(run: RunDirectory) -> str:
    """What an import had to leave out of the run; empty where it brought all."""
    origin = run.config.get("imported")
    return str(origin.get("note", "")) if isinstance(origin, dict) else ""


def _plausible(moment: float) -> bool:
    """Whether a number can be a time in seconds since 1970: not before, and within some thousand years."""
    return 0 < moment < 1e11
