"""What the pages need is imported before anybody asks for it, and never while somebody waits for a page.

Two imports at once share one interpreter: torch, which only measuring and training want, would take the processor for
seconds from the page that is being drawn. So it comes once nobody has asked for a page for a while, and where somebody
does meanwhile it waits with its next module.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Every page and its first table and graph; then charts, measuring, training.
SOON = ("pandas", "pyarrow", "gfviz.figures.compare", "gfviz.graph", "gfviz.runs.imports")
LATER = ("plotly.graph_objects", "gfviz.gromov", "gfviz.fusion.launch")
QUIET_SECONDS = 8.0
# So long a page goes first, on the server and then in the browser. No longer: it may want just what is imported.
FIRST_SECONDS = 5.0
# The pages that want all of it at once.
HURRIED = ("compare", "distance", "train")

ready = threading.Event()
"""Set once `SOON` is imported."""
_wanted = threading.Event()
_lock = threading.Lock()
_pages = 0
_first = _last = time.monotonic()


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """While somebody waits for a page, however long that takes."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def hurry() -> None:
    """Wait no more: what is drawn now wants what is imported."""
    _wanted.set()


def _count(more: int) -> None:
    global _pages, _first, _last
    with _lock:
        _last = time.monotonic()
        _first = _first if _pages else _last
        _pages += more


def _quiet_in() -> float:
    """Seconds until nobody has waited for a while, as far as can be told now."""
    return QUIET_SECONDS if _pages else _last + QUIET_SECONDS - time.monotonic()


def warm() -> None:
    """Import ahead of need; what cannot be imported is left for the page that needs it, which says so."""
    for name in SOON:
        _import(name)
    ready.set()
    _compile()
    _count(0)
    with _giving_way():
        for name in LATER:
            while (left := _quiet_in()) > 0 and not _wanted.wait(left):
                pass
            _import(name)


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """Within it this thread's imports wait, module by module, for `FIRST_SECONDS` after a page was asked for."""
    finder = _GivingWay(threading.get_ident())
    sys.meta_path.insert(sys.meta_path.index(PathFinder), finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _GivingWay(MetaPathFinder):
    """What `PathFinder` finds, put off: only the execution waits, or all of the process would."""

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if threading.get_ident() != self.thread:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, Loader):
            spec.loader = _PutOff(spec.loader)
        return spec


class _PutOff(Loader):
    """Stands for a loader until the module is executed."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        while (left := _first + FIRST_SECONDS - time.monotonic()) > 0 and not _wanted.wait(left):
            pass
        self.loader.exec_module(module)


def _compile() -> None:
    """What a large graph is laid out with, once on a machine, while nobody waits."""
    with contextlib.suppress(Exception):
        native = importlib.import_module("gfviz.graph.native")
        native.library(native.MIN_EDGES)


def _import(name: str) -> None:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
