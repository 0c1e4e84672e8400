"""Groups of nodes that act together more than chance would have it."""

from __future__ import annotations

from collections import deque

import numpy as np

from gfviz.compiled import pointers
from gfviz.errors import GfvizError
from gfviz.graph import native
from gfviz.lazy import sparse


def communities(
    n: int, i: np.ndarray, j: np.ndarray, weight: np.ndarray, seed: int = 0, resolution: float = 1.0
) -> np.ndarray:
    """Community of each node, int64 [n], numbered by size (0 is the largest; ties by smallest node).

    Louvain on weighted modularity (Blondel et al. 2008) with the queue of Traag, Waltman and van Eck 2019 (section
    "fast local move"): only nodes beside a change are looked at again. Nodes without edges stay alone. Deterministic by
    seed. Negative weights (z-scored graphs) count by size, as they are drawn. Raises `GfvizError` for edges outside
    0..n-1 or weights that are not finite. Cost: O(edges) a pass over the nodes, a few passes; compiled from
    `gfviz.graph.native.MIN_EDGES` edges on, far slower where nothing can be compiled.

    >>> import numpy as np
    >>> communities(5, np.array([0, 1, 0, 3]), np.array([1, 2, 2, 4]), np.ones(4)).tolist()
    [0, 0, 0, 1, 1]
    """
    i, j = np.asarray(i, np.int64), np.asarray(j, np.int64)
    weight = np.abs(np.asarray(weight, np.float64))
    if len(i) and (min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= n):
        raise GfvizError(f"an edge names a node outside 0..{n - 1}")
    if not np.isfinite(weight).all():
        raise GfvizError("edge weights must be finite numbers")
    random = np.random.default_rng(seed)
    label = np.arange(n, dtype=np.int64)
    half = sparse.coo_array((weight, (i, j)), shape=(n, n)).tocsr()
    level = half + half.T
    while True:
        moved = _local_moves(level, random, resolution)
        count = int(moved.max()) + 1 if n else 0
        if count == level.shape[0]:
            return _by_size(label)
        label = moved[label]
        # Nodes of one community become one node; what lies inside it becomes its loop.
        gather = sparse.csr_array((np.ones(len(moved)), (moved, np.arange(len(moved)))), shape=(count, len(moved)))
        level = gather @ level @ gather.T


def _local_moves(level: sparse.csr_array, random: np.random.Generator, resolution: float) -> np.ndarray:
    """One level: move single nodes while modularity grows; communities numbered 0.. without gaps."""
    n = level.shape[0]
    degree = np.asarray(level.sum(axis=1)).ravel()
    total = float(degree.sum())
    if total == 0:
        return np.arange(n, dtype=np.int64)
    order = random.permutation(n)
    # A margin: rounding must not send a node back and forth for ever.
    scale, margin = resolution / total, 1e-12 * total
    code = native.library(level.nnz)
    if code is None:
        home = _moves_in_python(level, degree, scale, margin, order)
    else:
        home = np.arange(n, dtype=np.int64)
        start, neighbours = level.indptr.astype(np.int64), level.indices.astype(np.int64)
        weights, order = np.ascontiguousarray(level.data, np.float64), np.ascontiguousarray(order, np.int64)
        held = pointers(start, neighbours, weights, degree)
        if code.gfviz_local_moves(n, *held, scale, margin, *pointers(order, home)):
            raise MemoryError(f"no memory for the communities of {n} nodes")
    return np.unique(home, return_inverse=True)[1].astype(np.int64)


def _moves_in_python(
    level: sparse.csr_array, degree: np.ndarray, scale: float, margin: float, order: np.ndarray
) -> np.ndarray:
    """The twin of `gfviz_local_moves` in moves.c: the same steps, and the same sums in the same order."""
    start, neighbours, weights = level.indptr.tolist(), level.indices.tolist(), level.data.tolist()
    own, filled = degree.tolist(), degree.tolist()
    home = list(range(len(own)))
    queue = deque(order.tolist())
    waiting = [True] * len(own)
    while queue:
        node = queue.popleft()
        waiting[node] = False
        links: dict[int, float] = {}
        for k in range(start[node], start[node + 1]):
            other = neighbours[k]
            if other != node:
                links[home[other]] = links.get(home[other], 0.0) + weights[k]
        here = home[node]
        filled[here] -= own[node]
        best, gain = here, links.get(here, 0.0) - own[node] * filled[here] * scale
        for group, link in links.items():
            value = link - own[node] * filled[group] * scale
            if value > gain + margin:
                best, gain = group, value
        filled[best] += own[node]
        if best != here:
            home[node] = best
            for k in range(start[node], start[node + 1]):
                other = neighbours[k]
                if home[other] != best and not waiting[other]:
                    waiting[other] = True
                    queue.append(other)
    return np.array(home, np.int64)


def _by_size(label: np.ndarray) -> np.ndarray:
    found, first, inverse, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(found), np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(found))
    return rank[inverse]


def modularity(n: int, i: np.ndarray, j: np.ndarray, weight: np.ndarray, label: np.ndarray) -> float:
    """Weighted modularity Q of a labelling (Newman 2006, equation 1): 0 for one community, at most 1.

    >>> import numpy as np
    >>> modularity(4, np.array([0, 2]), np.array([1, 3]), np.ones(2), np.array([0, 0, 1, 1]))
    0.5
    """
    total = float(np.sum(weight))
    if total == 0:
        return 0.0
    degree = np.bincount(i, weight, n) + np.bincount(j, weight, n)
    inside = float(weight[label[i] == label[j]].sum()) / total
    return inside - float((np.bincount(label, degree) ** 2).sum()) / (2 * total) ** 2
