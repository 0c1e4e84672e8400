"""Bounds for graphs too large for a matrix, from their heaviest nodes.

The weights of a token graph fall like Zipf's law, so a few hundred nodes carry nearly all of ‖C‖. Upper: their h×h
matrices are dense and small; they are matched by `gilmore_lawler` and exchange, each pair takes what mass both have,
and the rest of the mass goes by the monotone coupling of the row means. Lower: `rows` with their rows as they are,
and all other rows known by their norms alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gfviz.gromov.couplings import swap_match
from gfviz.gromov.network import MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.rows import CELLS, cell_edges, off_diagonal, quantile_cells
from gfviz.gromov.transport import Plan, assignment, monotone_plan, transport
from gfviz.lazy import sparse as sp

_BUCKETS = 256
_ROWS_AT_ONCE = 64


def _head(network: MeasureNetwork, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(the `size` nodes of largest p_i C_ii, heaviest first; their √p C √p)."""
    nodes = np.argsort(-network.weights * network.diagonal, kind="stable")[:size]
    if network.z is not None:
        some = network.z[:, nodes]
        block = (some.T @ some).toarray()
    elif network.matrix is not None:
        block = network.matrix[np.ix_(nodes, nodes)]
    else:
        block = sp.csr_array(network.sparse_matrix)[nodes][:, nodes].toarray()
    root = np.sqrt(network.weights[nodes])
    return nodes, np.ascontiguousarray(block * root[:, None] * root[None, :])


def head_plan(problem: Problem, size: int, deadline: float = np.inf) -> Plan:
    """A coupling that matches the `size` heaviest nodes well. O(size³) plus a sort of all nodes."""
    a, b = problem.a, problem.b
    size = min(size, a.n, b.n)
    (left, c), (right, d) = _head(a, size), _head(b, size)
    corr = np.sort(off_diagonal(c), axis=1) @ np.sort(off_diagonal(d), axis=1).T
    corr += np.multiply.outer(np.diagonal(c), np.diagonal(d))
    starts = (np.arange(size), assignment(-corr))
    found = [swap_match(c, d, start, deadline) for start in starts]
    match = max(found, key=lambda m: float(np.vdot(c, d[np.ix_(m, m)])))
    return joined(problem, left, right[match])


def joined(problem: Problem, left: np.ndarray, right: np.ndarray) -> Plan:
    """Each pair (left[s], right[s]) takes the mass both have; what is left goes by the monotone coupling of row
    means."""
    a, b = problem.a, problem.b
    taken = np.minimum(a.weights[left], b.weights[right])
    p, q = a.weights.copy(), b.weights.copy()
    p[left] -= taken
    q[right] -= taken
    rest = 1.0 - float(taken.sum())
    open_p, open_q = np.flatnonzero(p > 0), np.flatnonzero(q > 0)
    if rest <= 1e-14 or not len(open_p) or not len(open_q):
        return Plan(left, right, taken / taken.sum())
    tail = monotone_plan(
        a.row_means[open_p], p[open_p] / p[open_p].sum(), b.row_means[open_q], q[open_q] / q[open_q].sum()
    )
    return Plan(
        np.concatenate([left, open_p[tail.rows]]),
        np.concatenate([right, open_q[tail.cols]]),
        np.concatenate([taken, tail.mass * rest]),
    )


@dataclass(frozen=True)
class _Side:
    """`size` heads, then buckets of the other nodes by norm: weights, least and largest norm of a row, head rows."""

    weights: np.ndarray
    least: np.ndarray
    largest: np.ndarray
    squares: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, network: MeasureNetwork, size: int, edges: np.ndarray) -> _Side:
        squares = np.maximum(network.row_square_means, 0.0)
        order = np.argsort(-network.weights * squares, kind="stable")
        heads, others = order[:size], order[size:]
        norms = np.sqrt(squares)
        others = others[np.argsort(norms[others], kind="stable")]
        parts = [part for part in np.array_split(others, _BUCKETS) if len(part)]
        cells = [
            quantile_cells(_rows_of(network, heads[start : start + _ROWS_AT_ONCE]), network.weights, edges)
            for start in range(0, len(heads), _ROWS_AT_ONCE)
        ]
        return cls(
            np.concatenate([network.weights[heads], [network.weights[part].sum() for part in parts]]),
            np.concatenate([norms[heads], [norms[part[0]] for part in parts]]),
            np.concatenate([norms[heads], [norms[part[-1]] for part in parts]]),
            squares[heads],
            np.vstack([mean for mean, _ in cells]),
            np.vstack([deviation for _, deviation in cells]),
        )


def _rows_of(network: MeasureNetwork, nodes: np.ndarray) -> np.ndarray:
    if network.z is not None:
        return (network.z[:, nodes].T @ network.z).toarray()
    if network.matrix is not None:
        return network.matrix[nodes]
    return sp.csr_array(network.sparse_matrix)[nodes].toarray()


def head_rows_bound(problem: Problem, size: int) -> float:
    """`rows` on GW_2², weakened: heads compared by their rows, whatever is not a head by norms.

    W_2(row i, row j) >= |‖row i‖ − ‖row j‖|; nodes of like norm are put into buckets, whose cost is the square of the
    distance between their norms' ranges. O(size·(n + m) log) and one transport problem of size + 256 nodes a side.
    """
    size = min(size, problem.a.n, problem.b.n)
    edges = cell_edges(CELLS)
    a, b = (_Side.of(side, size, edges) for side in (problem.a, problem.b))
    width = np.diff(edges)
    apart = np.maximum(a.least[:, None] - b.largest[None, :], b.least[None, :] - a.largest[:, None])
    cost = np.maximum(apart, 0.0) ** 2
    product = (a.mean * width) @ b.mean.T + (a.deviation * width) @ b.deviation.T
    heads = a.squares[:, None] + b.squares[None, :] - 2.0 * product
    cost[:size, :size] = np.maximum(cost[:size, :size], heads)
    return transport(cost, a.weights / a.weights.sum(), b.weights / b.weights.sum())[1]
