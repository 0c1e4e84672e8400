"""The paper's closed form, straight from factors or matrices: nothing of a `Problem` is built for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gfviz.graph import CoactivationGraph
from gfviz.gromov import bounds
from gfviz.gromov.problem import LARGEST_P, Problem
from gfviz.gromov.sources import Source, checked_weights, is_graph
from gfviz.gromov.transport import wasserstein_power
from gfviz.kernels.symmetric import symmetric_means
from gfviz.lazy import sparse as sp

# Row means below this may have lost digits: float64 runs out of exponents.
_LEAST = 1e-290


def sorted_gw(a: Source, b: Source, p: float = 1, weights: Any = None) -> float:
    """W_p(f_C, f_D) of the weighted row means: the closed form of InfiGFusion (arXiv 2505.13893), for any weights and n
    ≠ m.

    The paper's number for uniform weights and n = m is Σ_i |f_C↓(i) − f_D↓(i)| = n times this one at p = 1. Always a
    lower bound on GW_p (Jensen). Raises `GfvizError` for what is no symmetric matrix, no weights or no power.
    Cost O(n log n) once the row means are known; they take O(T·k) from factors, one read of a matrix (which sees that
    it is finite and symmetric too).

    >>> sorted_gw([[2., 0.], [0., 2.]], [[4., 0.], [0., 4.]])
    1.0
    """
    if isinstance(p, (int, float)) and 1 <= p <= LARGEST_P and (weights is None or _is_pair(weights)):
        first, second = (None, None) if weights is None else weights
        left = _row_means(a, first, "first")
        right = None if left is None else _row_means(b, second, "second")
        if left is not None and right is not None:
            top = max(float(np.abs(means).max()) for means, _ in (left, right))
            if top > _LEAST:
                return _distance(left, right, float(p), math.frexp(top)[1])
    # What is unusual is judged where everything is: it is refused there in the same words, or symmetrised, or scaled.
    problem = Problem(a, b, p, weights)
    return problem.value(bounds.sorted_bound(problem))


def _is_pair(weights: Any) -> bool:
    return isinstance(weights, (tuple, list)) and len(weights) == 2


def _row_means(source: Source, weights: Any, side: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(row means, weights) over the nodes of positive weight, or None where a `Problem` has to look closer."""
    # A protocol looks up seven names at every question, which costs more than sorting does.
    if isinstance(source, CoactivationGraph) or (not isinstance(source, np.ndarray) and is_graph(source)):
        n = int(source.n)
        if n == 0:
            return None
        own = isinstance(source, CoactivationGraph) and source.weighting == "uniform" and weights is None
        w = source.weights if own else checked_weights(source.weights if weights is None else weights, n, side)
        means = _graph_means(source, None if weights is None else w)
        entries: Any = source.factors if source.factors is not None else source.accumulated
    else:
        matrix = _as_matrix(source)
        if matrix is None:
            return None
        n = len(matrix)
        w = np.full(n, 1.0 / n) if weights is None else checked_weights(weights, n, side)
        means, entries = symmetric_means(matrix, w), matrix
    if means is None or not np.isfinite(means).all():
        return None
    keep = w > 0
    if keep.all():
        return means, w
    # A product with weight 0 may have hidden what is not finite.
    held = entries if isinstance(entries, np.ndarray) else entries.data
    return (means[keep], w[keep]) if np.isfinite(held).all() else None


def _as_matrix(source: Source) -> np.ndarray | None:
    try:
        matrix = np.asarray(source)
    except (TypeError, ValueError, RuntimeError):
        return None
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0
    return matrix if square and matrix.dtype == np.float64 else None


def _graph_means(graph: Any, weights: np.ndarray | None) -> np.ndarray | None:
    """C p of a graph's factors or of its accumulated matrix; its own row means where the weights are its own."""
    z, c = graph.factors, graph.accumulated
    if not sp.issparse(c if z is None else z):
        return None
    if z is None:
        if c.shape != (graph.n, graph.n) or (c - c.T).count_nonzero():
            return None
        return np.asarray(graph.row_means()) if weights is None else c.astype(np.float64) @ weights
    if z.shape[1] != graph.n or not graph.positions > 0:
        return None
    if weights is None:
        return np.asarray(graph.row_means())
    wide = z.astype(np.float64)
    return wide.T @ (wide @ weights) / float(graph.positions)


def _distance(left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray], p: float, scale: int) -> float:
    """W_p of weighted points on the line, computed at 2^-scale, where no power over- or underflows."""
    (f, own), (g, other) = left, right
    power = wasserstein_power(np.ldexp(f, -scale), own, np.ldexp(g, -scale), other, p)
    return math.ldexp(math.sqrt(power) if p == 2 else power ** (1.0 / p), scale)
