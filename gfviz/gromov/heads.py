"""An upper bound for graphs too large for a matrix: the heaviest nodes matched as a problem of their own.

The weights of a token graph fall like Zipf's law, so a few hundred nodes carry nearly all of ‖C‖. Their h×h matrices
are dense and small; they are matched by `gilmore_lawler` and exchange, each pair takes what mass both have, and the
rest of the mass goes by the monotone coupling of the row means.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from gfviz.gromov.couplings import swap_match
from gfviz.gromov.network import MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.rows import off_diagonal
from gfviz.gromov.transport import Plan, assignment, monotone_plan


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
