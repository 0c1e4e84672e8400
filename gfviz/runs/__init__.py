"""The run directory and its metrics store: written by one process, read by many."""

from gfviz.runs.coarse import CoarseSeries
from gfviz.runs.directory import RunDirectory, RunRecord, StepGraph, check_run_id, list_runs
from gfviz.runs.foreign import checkpoint_is_whole
from gfviz.runs.glance import Glance, glance
from gfviz.runs.identity import ProcessIdentity, WriterLock
from gfviz.runs.reader import Buckets, Event, RunReader, RunState, RunStatus, Series
from gfviz.runs.writer import RunWriter

__all__ = [
    "Buckets",
    "CoarseSeries",
    "Event",
    "Glance",
    "ProcessIdentity",
    "RunDirectory",
    "RunReader",
    "RunRecord",
    "RunState",
    "RunStatus",
    "RunWriter",
    "Series",
    "StepGraph",
    "WriterLock",
    "check_run_id",
    "checkpoint_is_whole",
    "glance",
    "list_runs",
]
