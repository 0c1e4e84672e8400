"""Reading a run while it is written: read-only, and only what is newer."""

import contextlib
import itertools
import sqlite3
import threading
import time as clock
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gfviz.errors import GfvizError
from gfviz.runs.foreign import time_of
from gfviz.runs.schema import SQLITE_FAULTS, WorkLimit, one_line, open_for_reading

if TYPE_CHECKING:
    from gfviz.runs.directory import RunDirectory

RunState = Literal["queued", "running", "finished", "failed", "stopped", "killed"]
# A writer on another host cannot be asked; a heartbeat this old counts as its death.
SILENT_SECONDS = 300.0
# Up to here every whole number has a float of its own, which is how the store keeps counts.
_MOST_STEPS = 1 << 53


class RunStatus(NamedTuple):
    """State of a run now. Times are seconds since 1970; `step` is -1 before the first row."""

    state: RunState
    step: int
    total_steps: int | None
    heartbeat: float | None
    reason: str
    started: float | None
    ended: float | None
    pid: int | None
    host: str
    generation: int

    @property
    def alive(self) -> bool:
        """Whether a process works on the run or is about to."""
        return self.state in ("queued", "running")


class Series(NamedTuple):
    """Rows of one metric in step order: `steps` int64 [n], `values` float64 [n] (NaN kept), `times` float64 [n]."""

    steps: np.ndarray
    values: np.ndarray
    times: np.ndarray


class Buckets(NamedTuple):
    """A series at the resolution of a plot: per bucket first and last step, min, mean, max and number of rows."""

    first: np.ndarray
    last: np.ndarray
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray
    rows: np.ndarray


class Event(NamedTuple):
    """One noted line: `id` grows with time, so that a reader asks for what follows the last it has."""

    id: int
    time: float
    step: int | None
    kind: str
    text: str


def _count(number: float) -> int:
    if not -1 <= number < _MOST_STEPS:
        raise ValueError(f"{number:g} steps")
    return int(number)


class RunReader:
    """Read-only view of one run's metrics; any number of them beside the writer, from any thread."""

    def __init__(self, run: "RunDirectory") -> None:
        self.run = run
        self._database: sqlite3.Connection | None = None
        self._limit: WorkLimit | None = None
        self._inode = -1
        self._lock = threading.Lock()

    def __enter__(self) -> "RunReader":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _ask(self, question: str, values: tuple[object, ...] = ()) -> list[tuple]:
        path = self.run.metrics_path
        with self._lock:
            try:
                inode = path.stat().st_ino
            except OSError as error:
                raise GfvizError(f"run {self.run.id} has no metrics store: it has not begun, or was removed") from error
            if self._database is None or self._limit is None or inode != self._inode:
                if self._database is not None:
                    self._database.close()
                self._database, self._inode = open_for_reading(path), inode
                self._limit = WorkLimit(self._database, path)
            self._limit.begin()
            try:
                return self._database.execute(question, values).fetchall()
            except (*SQLITE_FAULTS, OverflowError) as error:
                reason = "its rows have no end" if self._limit.spent else one_line(error)
                raise GfvizError(f"cannot read the metrics store {path}: {reason}") from error

    @contextlib.contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, GfvizError):
                raise
            raise GfvizError(
                f"the metrics store {self.run.metrics_path} holds values of the wrong type ({error}): restore the "
                "file, or remove the run"
            ) from error

    def _ask_if_begun(self, question: str, values: tuple[object, ...] = ()) -> list[tuple]:
        # A queued run has no store yet; that is an empty answer, not a fault.
        return self._ask(question, values) if self.run.metrics_path.is_file() else []

    def names(self) -> list[str]:
        """Names of all metrics, sorted."""
        return [row[0] for row in self._ask_if_begun("SELECT name FROM series ORDER BY name")]

    def series(self, name: str, after_step: int = -1) -> Series:
        """Rows of `name` with step > `after_step`; empty where there are none."""
        rows = self._ask_if_begun(
            "SELECT step, value, time FROM scalars WHERE series = (SELECT id FROM series WHERE name = ?) AND step > ? "
            "ORDER BY step",
            (name, after_step),
        )
        steps, values, times = zip(*rows) if rows else ((), (), ())
        with self._typed():
            return Series(np.array(steps, np.int64), np.array(values, np.float64), np.array(times, np.float64))

    def latest(self) -> dict[str, tuple[int, float, float]]:
        """Newest (step, value, time) of each metric. Cost: one descent of the tree per metric."""
        rows = self._ask_if_begun(
            "SELECT s.name, r.step, r.value, r.time FROM series s JOIN scalars r ON r.series = s.id "
            "AND r.step = (SELECT max(step) FROM scalars WHERE series = s.id) ORDER BY s.name"
        )
        with self._typed():
            return {
                str(name): (int(step), float("nan") if value is None else float(value), float(time))
                for name, step, value, time in rows
            }

    def buckets(self, name: str, count: int = 500) -> Buckets:
        """`name` in at most `count` ranges of equal width in steps; empty ranges are left out, NaN rows not averaged.

        Cost: one range scan per bucket, no sorting. Raises `GfvizError` for count < 1.
        """
        if count < 1:
            raise GfvizError(f"count = {count}: ask for at least one bucket")
        ends = self.ends(name)
        if ends is None:
            empty = np.empty(0)
            return Buckets(empty.astype(np.int64), empty.astype(np.int64), empty, empty, empty, empty.astype(np.int64))
        low, high = ends
        count = min(count, high - low + 1)
        table = self.ranges(name, [low + (high - low + 1) * index // count for index in range(count + 1)])
        first, last, rows, valued = (table[:, column].astype(np.int64) for column in (0, 1, 5, 6))
        mean = np.where(valued > 0, table[:, 3] / np.maximum(valued, 1), np.nan)
        return Buckets(first, last, table[:, 2], mean, table[:, 4], rows)

    def ends(self, name: str) -> tuple[int, int] | None:
        """First and last step of `name`; None where it has no row. Cost: two descents of the tree."""
        rows = self._ask_if_begun(
            "SELECT (SELECT min(step) FROM scalars WHERE series = s.id), (SELECT max(step) FROM scalars "
            "WHERE series = s.id) FROM series s WHERE s.name = ?",
            (name,),
        )
        with self._typed():
            return (int(rows[0][0]), int(rows[0][1])) if rows and rows[0][0] is not None else None

    def ranges(self, name: str, borders: list[int]) -> np.ndarray:
        """float64 [r, 7] for the ranges of steps between successive `borders` that hold rows, in step order.

        Columns: first and last step, least value, sum, greatest value, rows, rows with a value (NaN has none; where no
        row has one, least and greatest are NaN). Cost: one range scan each.
        """
        question = (
            "SELECT min(step), max(step), min(value), total(value), max(value), count(*), count(value) FROM scalars "
            "WHERE series = (SELECT id FROM series WHERE name = ?) AND step >= ? AND step < ?"
        )
        rows: list[tuple] = []
        for start, stop in itertools.pairwise(borders):
            rows += self._ask_if_begun(question, (name, start, stop))
        with self._typed():
            return np.array([row for row in rows if row[5]], np.float64).reshape(-1, 7)

    def events(self, after_id: int = 0, limit: int = 1000) -> list[Event]:
        """Events with id > `after_id`, oldest first, at most `limit`."""
        question = "SELECT id, time, step, kind, text FROM events WHERE id > ? ORDER BY id LIMIT ?"
        return self._events(question, (after_id, limit))

    def newest_events(self, limit: int = 200) -> list[Event]:
        """The last `limit` events, newest first."""
        question = "SELECT id, time, step, kind, text FROM events ORDER BY id DESC LIMIT ?"
        return self._events(question, (limit,))

    def _events(self, question: str, values: tuple[object, ...]) -> list[Event]:
        rows = self._ask_if_begun(question, values)
        with self._typed():
            return [
                Event(int(key), float(time), None if step is None else int(step), str(kind), str(text))
                for key, time, step, kind, text in rows
            ]

    def status(self) -> RunStatus:
        """What the run does now; a writer that is gone without a word makes it `killed`."""
        record = self.run.record()
        with self._typed():
            # A column holds whatever was put in it: SQLite checks no types.
            kept = {str(key): float(value) for key, value in self._ask_if_begun("SELECT key, value FROM state")}
            step, generation = _count(kept.get("step", -1)), _count(kept.get("generation", 0))
            total = _count(kept["total_steps"]) if "total_steps" in kept else None
        heartbeat = time_of(kept.get("heartbeat"))
        writer = record.process
        phase, reason = record.state, record.reason
        if phase in ("queued", "running"):
            # A queued run without a process: its launcher is about to start one, or died before it could.
            alive = writer.alive() if writer is not None else None
            if alive is None:
                newest = max(heartbeat or 0.0, record.started or record.created)
                alive = clock.time() - newest < SILENT_SECONDS
            if not alive:
                if self.run.record() != record:
                    # Between the two looks it said how it ended, or another process went on with it.
                    return self.status()
                began = "while it ran" if phase == "running" else "before it began"
                phase, reason = "killed", f"the process ended {began} without a word: see stdout.log, resume the run"
        return RunStatus(
            state=phase,
            step=step,
            total_steps=total,
            heartbeat=heartbeat,
            reason=reason,
            started=record.started,
            ended=record.ended,
            pid=writer.pid if writer else None,
            host=writer.host if writer else "",
            generation=generation,
        )
