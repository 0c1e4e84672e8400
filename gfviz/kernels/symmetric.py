"""Row means of a symmetric matrix, and whether it is one, in one pass."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import numpy as np

from gfviz.compiled import load_compiled

# Below this numpy's two passes over what lies in the cache cost no more than the call.
_MIN_SIZE = 96
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math")


def symmetric_means(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """C p [n] of float64 C [n, n] that equals its transpose bit for bit, and p float64 [n]; None where it does not.

    NaN and infinities come through to the means wherever their weight is not 0. Cost: one read of the matrix where the
    C form could be compiled (n = 512, one core: 0.2 ms; comparing with the transpose in numpy alone takes 0.7), three
    elsewhere.

    >>> symmetric_means(np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [1.5, 0.5]
    >>> symmetric_means(np.array([[2.0, 1.0], [0.0, 0.0]]), np.array([0.5, 0.5])) is None
    True
    """
    n = len(matrix)
    held = np.require(matrix.T if matrix.flags.f_contiguous else matrix, requirements=["C", "A"])
    code = library() if n >= _MIN_SIZE else None
    if code is None:
        if not np.array_equal(held.view(np.int64), held.view(np.int64).T):
            return None
        with np.errstate(all="ignore"):  # what is not finite is the caller's to see
            return held @ weights
    given, means = np.ascontiguousarray(weights), np.empty(n)
    same = code.gfviz_symmetric_means(held.ctypes.data, n, given.ctypes.data, means.ctypes.data)
    return means if same else None


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled form; None where it is forbidden, cannot be had, or gets a small case wrong."""
    code = load_compiled((_SOURCE,), _FLAGS)
    if code is None:
        return None
    function = code.gfviz_symmetric_means
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = ctypes.c_int
    matrix, means = np.add.outer(np.arange(9.0), np.arange(9.0)), np.empty(9)
    weights = np.arange(9.0)
    if not function(matrix.ctypes.data, 9, weights.ctypes.data, means.ctypes.data):
        return None
    return code if np.array_equal(means, matrix @ weights) else None
