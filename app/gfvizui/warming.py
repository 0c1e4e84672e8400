"""What the pages need is imported before anybody asks for it, and never while somebody waits for a page.

Two imports at once share one interpreter: torch, which only measuring and training want, would take the processor for
seconds from the page that is being drawn. So it comes once nobody has asked for a page for a while.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator

# Every page and its first table and graph; then charts, measuring, training.
SOON = ("pandas", "pyarrow", "gfviz.figures.compare", "gfviz.graph", "gfviz.runs.imports")
LATER = ("plotly.graph_objects", "gfviz.gromov", "gfviz.fusion.launch")
QUIET_SECONDS = 4.0

ready = threading.Event()
"""Set once `SOON` is imported."""
_lock = threading.Lock()
_pages = 0
_last = time.monotonic()


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """While somebody waits for a page, however long that takes."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(more: int) -> None:
    global _pages, _last
    with _lock:
        _pages += more
        _last = time.monotonic()


def _quiet_in() -> float:
    """Seconds until nobody has waited for a while, as far as can be told now."""
    return QUIET_SECONDS if _pages else _last + QUIET_SECONDS - time.monotonic()


def warm() -> None:
    """Import ahead of need; what cannot be imported is left for the page that needs it, which says so."""
    for name in SOON:
        _import(name)
    ready.set()
    _count(0)
    for name in LATER:
        while (left := _quiet_in()) > 0:
            time.sleep(left)
        _import(name)


def _import(name: str) -> None:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
