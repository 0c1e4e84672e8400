"""Points in time, for reading."""

from datetime import datetime


def when(moment: float | None, seconds: bool = False) -> str:
    """A point in time (seconds since 1970), local, to the minute or the second; "–" for one that no calendar shows.

    >>> when(None), when(1e300), when(float("nan"))
    ('–', '–', '–')
    """
    if moment is None:
        return "–"
    try:
        return f"{datetime.fromtimestamp(moment):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}}"
    except (OverflowError, ValueError, OSError):
        # Which times there are depends on the zone and the system's C library.
        return "–"
