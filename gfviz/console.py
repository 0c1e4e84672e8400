"""What the commands print with: progress and notes go to standard error, so that standard output stays clean."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@lru_cache(maxsize=1)
def messages() -> Console:
    """The console for progress and notes (standard error)."""
    from rich.console import Console

    return Console(stderr=True)


def progress_bar() -> Progress:
    """A bar with counts, remaining and elapsed time; silent where standard error is no terminal."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TimeElapsedColumn(),
    )
    console = messages()
    return progress.Progress(*columns, console=console, disable=not console.is_terminal)
