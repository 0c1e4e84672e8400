"""Entries of C = ZᵀZ/T without all of it: some rows at a time, so that memory is bounded whatever a file holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gfviz.errors import GfvizError
from gfviz.lazy import sparse

MATRIX_LIMIT = 1 << 28
"""Above this many entries a sparse C is refused: 3.2 GB, as much as the largest dense one."""
EDGE_LIMIT = 1 << 24
"""Above this many edges a list of them is refused: as a table they are a gigabyte."""
PRODUCT_LIMIT = 1 << 33
"""Above this many products no more rows are looked through: about a minute."""
_BLOCK = 1 << 22
# Weights that agree to nine digits are ties: the bound that ends a search is itself rounded.
_TIE = 1e-9


def require_range(held: sparse.csr_array, n: int, positions: int = 0) -> None:
    """Raise `GfvizError` unless C and its sums over all nodes are finite and its largest entry keeps all its digits.

    `held` is Z where `positions` are given, C itself otherwise.
    """
    data = held.data
    largest = max(float(data.max()), -float(data.min())) if len(data) else 0.0
    if not math.isfinite(largest):
        raise GfvizError("the graph's values hold NaN or infinity: build it again from finite logits")
    sums = largest * largest * n * positions if positions else largest * n
    # Some diagonal entry is at least this; what vanishes beside a normal number was below its last digit.
    least = largest * largest / positions if positions else math.inf
    if not math.isfinite(sums) or (largest > 0 and least < np.finfo(np.float64).tiny):
        raise GfvizError(
            f"the graph's values reach {largest:.3g}, and their products leave the range of float64: "
            "rescale the logits, or use normalize = 'prob' or 'zscore'"
        )


def gram(z: sparse.csr_array, most: int = MATRIX_LIMIT) -> sparse.csr_array:
    """ZᵀZ of Z [T, n] as a canonical csr [n, n] without stored zeros, symmetric to the last digit.

    Raises `GfvizError` above `most` entries, before they are held. O(Σ_t nnz_t²) time.
    """
    parts, count = [], 0
    for _, block in row_blocks(z):
        count += block.nnz
        if count > most:
            raise GfvizError(
                f"the matrix over {z.shape[1]} nodes would hold more than {most} entries: take fewer nodes or a smaller"
                " k, or ask for the heaviest edges only"
            )
        parts.append(block)
    return parts[0] if len(parts) == 1 else sparse.csr_array(sparse.vstack(parts, format="csr"))


def row_blocks(z: sparse.csr_array, products: float = math.inf) -> Iterator[tuple[int, sparse.csr_array]]:
    """(first row, canonical csr [rows, n]) of ZᵀZ, consecutive rows of about 2^22 products together.

    Each sum runs over ascending positions, so an entry and its mirror are the same number. Raises `GfvizError` before
    more than `products` products are made.
    """
    by_node = sparse.csr_array(z.T)
    by_node.sort_indices()
    lengths = np.diff(z.indptr).astype(np.float64)
    work = np.bincount(z.indices, np.repeat(lengths, np.diff(z.indptr)), z.shape[1])
    done = 0.0
    for start, stop in _cuts(work):
        done += float(work[start:stop].sum())
        if done > products:
            raise GfvizError(
                f"more than {products:.2g} products would have to be looked through: the graph's rows are too long; "
                "capture it with a smaller k, or ask for fewer edges or a larger least weight"
            )
        block = sparse.csr_array(by_node[start:stop] @ z)
        block.eliminate_zeros()
        block.sort_indices()
        yield start, block


def _cuts(work: np.ndarray) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose work adds up to at most 2^22, or of one item."""
    ends = np.cumsum(work)
    start = 0
    while start < len(work):
        before = ends[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        yield start, stop
        start = stop


def dense_gram(z: sparse.csr_array) -> np.ndarray:
    """ZᵀZ as a dense float64 [n, n] array; nothing else of that size is made."""
    found = np.empty((z.shape[1], z.shape[1]))
    for start, block in row_blocks(z):
        found[start : start + block.shape[0]] = block.toarray()
    return found


def entries(z: sparse.csr_array, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(ZᵀZ)_ij at the pairs (i[s], j[s]), float64 [S]. O(nnz) and the columns that the pairs name."""
    by_node = sparse.csr_array(z.T)
    lengths = np.diff(by_node.indptr)
    found = np.zeros(len(i))
    for start, stop in _cuts((lengths[i] + lengths[j]).astype(np.float64)):
        some = slice(start, stop)
        found[some] = np.asarray(by_node[i[some]].multiply(by_node[j[some]]).sum(axis=1)).ravel()
    return found


def absolute_strength(z: sparse.csr_array) -> np.ndarray:
    """Σ_{j≠i} |(ZᵀZ)_ij|, float64 [n]. Raises `GfvizError` above `PRODUCT_LIMIT` products."""
    found = np.zeros(z.shape[1])
    for start, block in row_blocks(z, PRODUCT_LIMIT):
        rows = np.arange(block.shape[0])
        found[start : start + len(rows)] = abs(block).sum(axis=1)
        found[start + rows] -= np.abs(block.diagonal(start))
    return found


def heaviest_edges(
    z: sparse.csr_array, positions: int, limit: int | None, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, C_ij) of the pairs i < j with |C_ij| > `least`, the `limit` heaviest of them, in no order.

    The nodes are gone through by falling C_ii. No pair of those that are left weighs more than √(C_ii C_jj)
    (Cauchy–Schwarz), so the search ends where that is no more than the lightest that is kept; of weights that agree
    to nine digits any may be taken. Raises `GfvizError` above `EDGE_LIMIT` edges or `PRODUCT_LIMIT` products.
    """
    root = np.sqrt(np.bincount(z.indices, z.data**2, z.shape[1]) / positions)
    order = np.argsort(-root, kind="stable")
    root = root[order]
    ranked = sparse.csr_array(z[:, order])
    ranked.sort_indices()
    kept = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if limit == 0:
        return kept
    floor = least
    for start, block in row_blocks(ranked, math.inf if limit is None else PRODUCT_LIMIT):
        rows = np.repeat(np.arange(start, start + block.shape[0]), np.diff(block.indptr))
        weight = block.data / positions
        chosen = (block.indices > rows) & (np.abs(weight) > floor)
        found = (order[rows[chosen]], order[block.indices[chosen]], weight[chosen])
        kept = tuple(np.concatenate(pair) for pair in zip(kept, found))  # type: ignore[assignment]
        if limit is not None and len(kept[2]) >= limit:
            best = np.argpartition(-np.abs(kept[2]), limit - 1)[:limit]
            kept = (kept[0][best], kept[1][best], kept[2][best])
            floor = max(floor, float(np.abs(kept[2]).min()))
        if len(kept[2]) > EDGE_LIMIT:
            raise GfvizError(f"the graph has more than {EDGE_LIMIT} edges: ask for the heaviest, or a larger weight")
        stop = start + block.shape[0]
        reached = root[stop] * root[stop + 1] if stop + 1 < len(root) else 0.0
        if floor > 0 and reached <= floor * (1 + _TIE if floor > least else 1 - _TIE):
            break
    return np.minimum(kept[0], kept[1]), np.maximum(kept[0], kept[1]), kept[2]
