"""A run as a list shows it: one whose files are damaged is one line among the others, with the reason."""

from typing import NamedTuple

from gfviz.errors import GfvizError
from gfviz.runs.directory import RunDirectory, RunRecord
from gfviz.runs.reader import RunStatus


class Glance(NamedTuple):
    """What is known of a run now: `record` and `status` are None where they cannot be read, and `reason` says why."""

    run: RunDirectory
    record: RunRecord | None
    status: RunStatus | None
    reason: str
    tags: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The run's state, `damaged` where nothing can be told."""
        return "damaged" if self.status is None else self.status.state

    @property
    def step(self) -> int:
        """Steps done; 0 before the first, and where it is not known."""
        return 0 if self.status is None else max(self.status.step, 0)

    @property
    def total_steps(self) -> int:
        """Steps in all; 0 where it is not known."""
        return (self.status.total_steps if self.status else None) or 0

    @property
    def created(self) -> float | None:
        """When it was made."""
        return None if self.record is None else self.record.created


def glance(run: RunDirectory) -> Glance:
    """Look at a run for a list; a fault of its files is in the result, never raised."""
    record = None
    try:
        record = run.record()
        status, tags = run.status(), run.tags
    except GfvizError as error:
        return Glance(run, record, None, str(error))
    return Glance(run, record, status, status.reason, tags)
