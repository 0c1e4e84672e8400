"""What may be compared, and how it is refused: graphs, symmetric arrays, node weights."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from gfviz.errors import GfvizError
from gfviz.graph.products import require_range
from gfviz.lazy import sparse as sp

LEAST_WEIGHT = 1e-13
"""Positive weights below this share of the largest are refused: sums of masses absorb them."""


@runtime_checkable
class GraphLike(Protocol):
    """What a distance reads of a graph. `gfviz.graph.CoactivationGraph` satisfies it; so may anything else."""

    n: int
    weights: np.ndarray
    factors: Any
    accumulated: Any
    positions: int

    def row_means(self) -> np.ndarray: ...

    def dense(self) -> np.ndarray: ...


Source = Any
"""A graph, or anything `numpy.asarray` turns into a symmetric matrix."""


def is_graph(source: Source) -> bool:
    """Whether `source` is handled as a graph (its own weights, PSD by construction) rather than as an array."""
    return not isinstance(source, np.ndarray) and isinstance(source, GraphLike)


def checked_weights(weights: Any, n: int, side: str) -> np.ndarray:
    """Weights [n] that sum to one. Raises `GfvizError` for a wrong shape, NaN, negative ones, no mass, or a span that
    float64 cannot couple."""
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise GfvizError(
            f"weights of the {side} graph have shape {w.shape}, but it has {n} nodes: pass one weight a node"
        )
    if not np.isfinite(w).all():
        raise GfvizError(f"weights of the {side} graph hold NaN or infinity: pass finite weights")
    if (w < 0).any():
        raise GfvizError(f"weights of the {side} graph are negative somewhere: pass weights >= 0")
    top = float(w.max())
    if top <= 0:
        raise GfvizError(f"weights of the {side} graph have zero mass: give at least one node a positive weight")
    w = w / top  # first by the largest, so that the sum neither overflows nor vanishes
    if ((w > 0) & (w < LEAST_WEIGHT)).any():
        raise GfvizError(
            f"weights of the {side} graph span more than float64 can couple (some are below {LEAST_WEIGHT:g} of the "
            "largest): set those to 0, or use uniform weights"
        )
    return w / w.sum()


def checked_matrix(source: Source, side: str) -> np.ndarray:
    """A symmetric float64 matrix [n, n]. Raises `GfvizError` for what is none, beyond the input's own rounding."""
    try:
        raw = np.asarray(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GfvizError(f"the {side} matrix cannot be read as an array: {error}") from error
    if raw.dtype.kind not in "fiub":
        raise GfvizError(f"the {side} matrix has dtype {raw.dtype}: pass real numbers")
    if raw.ndim != 2 or raw.shape[0] != raw.shape[1]:
        raise GfvizError(f"the {side} matrix has shape {raw.shape}: pass a square one")
    if raw.shape[0] == 0:
        raise GfvizError(f"the {side} graph is empty: it needs at least one node")
    eps = float(np.finfo(raw.dtype).eps) if raw.dtype.kind == "f" else 0.0
    matrix = raw.astype(np.float64)
    if raw.dtype.kind in "iu" and raw.dtype.itemsize == 8 and (np.abs(matrix) > 2.0**53).any():
        raise GfvizError(f"the {side} matrix holds integers beyond 2**53, which float64 cannot represent: rescale it")
    if not np.isfinite(matrix).all():
        raise GfvizError(f"the {side} matrix holds NaN or infinity: clean it first")
    # Equal to its transpose, as most are, is seen several times faster than by how much.
    if np.array_equal(matrix, matrix.T):
        return matrix
    off = float(np.abs(matrix - matrix.T).max())
    # A product ZᵀZ in the input's own precision may differ from its transpose by rounding, and by no more.
    if off > 64 * eps * float(np.abs(matrix).max()):
        raise GfvizError(
            f"the {side} matrix is not symmetric (it differs from its transpose by up to {off:.3g}): symmetrise it"
        )
    return (matrix + matrix.T) / 2


def columns_dense(graph: GraphLike, keep: np.ndarray) -> np.ndarray:
    """The graph's matrix over the nodes `keep` alone, where all of it would not fit."""
    if graph.factors is not None:
        z = sp.csr_array(graph.factors, dtype=np.float64)[:, keep]
        return (z.T @ z).toarray() / float(graph.positions)
    return sp.csr_array(graph.accumulated, dtype=np.float64)[keep][:, keep].toarray()


def check_range(graph: GraphLike, side: str) -> None:
    """Raises `GfvizError` where factors are so large or small that their products are infinite, or 0 for distinct ones.

    A graph of this library was looked at when it was made; another that satisfies the protocol was not.
    """
    try:
        require_range(sp.csr_array(graph.factors), graph.n, graph.positions)
    except GfvizError as error:
        raise GfvizError(f"{side} graph: {error}") from error


def check_finite(matrix: sp.csr_array, side: str) -> None:
    """Raises `GfvizError` where a sparse matrix holds NaN or infinity."""
    if not np.isfinite(matrix.data).all():
        raise GfvizError(f"the {side} graph holds NaN or infinity: build it again from clean logits")
