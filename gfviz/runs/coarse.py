"""A series at the resolution of a plot that grows with its run: asking again reads only what is new."""

import threading

import numpy as np

from gfviz.errors import GfvizError
from gfviz.runs.reader import Buckets, RunReader

# Columns of the table: first and last step, least value, sum, greatest value, rows, rows with a value.
FIRST, LAST, LOW, SUM, HIGH, ROWS, VALUED = range(7)


class CoarseSeries:
    """One metric of a run in at most `count` ranges of 2^k steps; the ranges double when the run outgrows them.

    Doubling merges neighbours that are there already, so a long run is read through once in a session's life and every
    later question reads the last range and what follows it. Any number of threads may ask. Raises `GfvizError` for
    count < 2.

    >>> import tempfile
    >>> from gfviz.runs import RunDirectory
    >>> with tempfile.TemporaryDirectory() as root:
    ...     writer = RunDirectory.create(root, {}).writer()
    ...     for step in range(9):
    ...         writer.log(step, {"loss": step})
    ...     writer.flush()
    ...     with writer.run.reader() as reader:
    ...         CoarseSeries(reader, "loss", count=4).buckets().mean.tolist()
    [1.5, 5.5, 8.0]
    """

    def __init__(self, reader: RunReader, name: str, count: int = 500) -> None:
        if count < 2:
            raise GfvizError(f"count = {count}: ask for at least two ranges")
        self.reader, self.name, self.count = reader, name, count
        self._lock = threading.Lock()
        self._forget(0)

    def _forget(self, generation: int) -> None:
        self._generation, self._width = generation, 1
        self._table = np.empty((0, 7))

    def buckets(self, generation: int = 0) -> Buckets:
        """The series now; another `generation` than before (rows were taken back) reads it from the start."""
        with self._lock:
            ends = self.reader.ends(self.name)
            if ends is None or generation != self._generation or (len(self._table) and ends[1] < self._table[-1, LAST]):
                self._forget(generation)
            if ends is not None:
                self._widen(*ends)
                self._read(*ends)
            table = self._table
        first, last, rows = (table[:, column].astype(np.int64) for column in (FIRST, LAST, ROWS))
        with np.errstate(invalid="ignore"):
            mean = np.where(table[:, VALUED] > 0, table[:, SUM] / table[:, VALUED], np.nan)
        return Buckets(first, last, table[:, LOW], mean, table[:, HIGH], rows)

    def _widen(self, low: int, high: int) -> None:
        width = self._width
        while high // width - low // width >= self.count:
            width *= 2
        if width == self._width or not len(self._table):
            self._width = width
            return
        self._width = width
        table = self._table
        starts = np.flatnonzero(np.diff(table[:, FIRST] // width, prepend=-1))
        self._table = np.stack(
            [
                np.minimum.reduceat(table[:, FIRST], starts),
                np.maximum.reduceat(table[:, LAST], starts),
                np.fmin.reduceat(table[:, LOW], starts),
                np.add.reduceat(table[:, SUM], starts),
                np.fmax.reduceat(table[:, HIGH], starts),
                np.add.reduceat(table[:, ROWS], starts),
                np.add.reduceat(table[:, VALUED], starts),
            ],
            axis=1,
        )

    def _read(self, low: int, high: int) -> None:
        # The last range may have grown, or had a row replaced: it is read again.
        kept = self._table[:-1]
        start = int(self._table[-1, FIRST]) // self._width if len(self._table) else low // self._width
        borders = [key * self._width for key in range(start, high // self._width + 2)]
        rows = self.reader.ranges(self.name, borders)
        self._table = np.concatenate([kept, rows])
