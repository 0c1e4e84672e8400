"""The one process that writes a run's metrics."""

import contextlib
import math
import sqlite3
import sys
import time as clock
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from gfviz.errors import GfvizError
from gfviz.runs.schema import open_for_writing

if TYPE_CHECKING:
    from gfviz.runs.directory import RunDirectory

FLUSH_ROWS = 2048
FLUSH_SECONDS = 1.0
KEEP_ROWS = 200_000

FailurePolicy = Literal["continue", "stop"]


class RunWriter:
    """Writes rows, events and the state of one run. Got from `RunDirectory.writer()`; a context manager.

    Rows are buffered and committed every `FLUSH_ROWS` rows or `FLUSH_SECONDS`; a row is acknowledged when `flush` has
    returned. Where only the store fails (full disk, no permission), `on_failure="continue"` says so once on stderr,
    keeps the newest `KEEP_ROWS` rows in memory and tries again at each flush; `"stop"` raises `GfvizError`.
    """

    def __init__(self, run: "RunDirectory", on_failure: FailurePolicy = "continue") -> None:
        self.run = run
        self.on_failure = on_failure
        self.dropped = 0
        self._database = open_for_writing(run.metrics_path)
        self._ids: dict[str, int] = dict(self._database.execute("SELECT name, id FROM series"))
        self._rows: list[tuple[str, int, float | None, float]] = []
        self._state: dict[str, float] = {}
        self._events: list[tuple[float, int | None, str, str]] = []
        self._last_flush = clock.monotonic()
        self._failing = False
        self._open = True

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        if not self._open:
            return
        if error is None:
            self.finish("finished")
        elif isinstance(error, KeyboardInterrupt):
            self.finish("stopped", "interrupted")
        else:
            self.finish("failed", f"{kind.__name__ if kind else 'error'}: {error}")

    def log(self, step: int, values: Mapping[str, float], time: float | None = None) -> None:
        """Note `values` at `step` (>= 0); a later value of the same name and step replaces it. NaN is kept as NaN."""
        if step < 0:
            raise GfvizError(f"step {step} is negative: rows are keyed by steps from 0 on")
        moment = clock.time() if time is None else time
        for name, value in values.items():
            number = float(value)
            # SQLite has no NaN; NULL stands for it in both directions.
            self._rows.append((name, step, None if math.isnan(number) else number, moment))
        self._state["step"] = max(step, self._state.get("step", -1))
        self._flush_if_due()

    def event(self, text: str, kind: str = "info", step: int | None = None) -> None:
        """Note one line of text (a skipped step, a checkpoint, a warning), committed at once."""
        self._events.append((clock.time(), step, kind, text))
        self.flush()

    def beat(self, total_steps: int | None = None) -> None:
        """Say that the process is at work, and of how many steps; written with the next flush."""
        if total_steps is not None:
            self._state["total_steps"] = total_steps
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        if len(self._rows) >= FLUSH_ROWS or clock.monotonic() - self._last_flush >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit all that is buffered. On return it survives the death of this process."""
        self._last_flush = clock.monotonic()
        try:
            self._commit()
        except sqlite3.Error as error:
            self._failed(error)
        else:
            if self._failing:
                self._failing = False
                _say(f"gfviz: the metrics store of run {self.run.id} works again")

    def _commit(self) -> None:
        database = self._database
        names = dict(self._ids)
        database.execute("BEGIN IMMEDIATE")
        try:
            for name in {row[0] for row in self._rows} - names.keys():
                names[name] = int(database.execute("INSERT INTO series (name) VALUES (?)", (name,)).lastrowid or 0)
            database.executemany(
                "INSERT INTO scalars VALUES (?, ?, ?, ?) ON CONFLICT (series, step) "
                "DO UPDATE SET value = excluded.value, time = excluded.time",
                [(names[name], step, value, moment) for name, step, value, moment in self._rows],
            )
            database.executemany("INSERT INTO events (time, step, kind, text) VALUES (?, ?, ?, ?)", self._events)
            state = {**self._state, "heartbeat": clock.time()}
            database.executemany(
                "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                state.items(),
            )
            database.execute("COMMIT")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._ids = names
        self._rows.clear()
        self._events.clear()

    def _failed(self, error: sqlite3.Error) -> None:
        text = f"the metrics store of run {self.run.id} cannot be written ({error}): free the disk or its permission"
        if self.on_failure == "stop":
            raise GfvizError(text) from error
        if not self._failing:
            self._failing = True
            _say(f"gfviz: {text}; training goes on, rows wait in memory")
        if len(self._rows) > KEEP_ROWS:
            self.dropped += len(self._rows) - KEEP_ROWS
            del self._rows[: len(self._rows) - KEEP_ROWS]

    def sync(self) -> None:
        """Flush and bring every row to the disk itself, so that a power cut keeps it. One or two fsyncs."""
        self.flush()
        try:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._failed(error)

    def truncate_after(self, step: int) -> None:
        """Drop every row after `step`: a resumed run computes them again. Readers see the generation go up.

        Raises `GfvizError` where the store cannot be written.
        """
        self._rows = [row for row in self._rows if row[1] <= step]
        self._state["step"] = step
        self.flush()
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "DELETE FROM scalars WHERE series = ? AND step > ?", [(key, step) for key in self._ids.values()]
            )
            self._database.execute(
                "INSERT INTO state VALUES ('generation', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise GfvizError(f"cannot drop rows after step {step} of run {self.run.id}: {error}") from error

    def finish(self, status: Literal["finished", "failed", "stopped"], reason: str = "") -> None:
        """Commit, mark the run as ended, close the store and give the lock back. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        try:
            self.flush()
        finally:
            try:
                self._database.close()
            finally:
                self.run.end_writing(status, reason)

    def close(self) -> None:
        """Commit and give the lock back without a final state: the run counts as killed unless someone resumes it."""
        if self._open:
            self._open = False
            try:
                self.flush()
            finally:
                self._database.close()
                self.run.end_writing(None, "")


def _say(text: str) -> None:
    # Standard error may be a log on the very disk that is full.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
