"""The C files of this package, compiled once for this machine; None where that cannot be (`gfviz.compiled`).

Each function has its twin in Python, which gives the same answer to the last bit: sums are added in one order in both.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from gfviz.compiled import EXACT_FLAGS, load_compiled

# Graphs with fewer edges cost milliseconds either way and should not wait for a compiler.
MIN_EDGES = 2000
_SOURCES = tuple(Path(__file__).with_name(f"{name}.c") for name in ("forces", "moves"))


def library(edges: int) -> ctypes.CDLL | None:
    """The compiled loops for a graph of so many edges; None for a small one, and where they cannot be had."""
    return _library() if edges >= MIN_EDGES else None


@functools.cache
def _library() -> ctypes.CDLL | None:
    loaded = load_compiled(_SOURCES, EXACT_FLAGS)
    if loaded is None:
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    loaded.gfviz_local_moves.argtypes = [size, *[pointer] * 4, number, number, pointer, pointer]
    loaded.gfviz_local_moves.restype = ctypes.c_int
    loaded.gfviz_forces.argtypes = [size, size, *[pointer] * 4, size, size, *[pointer] * 3]
    loaded.gfviz_forces.restype = ctypes.c_int
    return loaded
