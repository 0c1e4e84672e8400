"""Bounds that compare row with row: `rows` (Mémoli's third), `gilmore_lawler`, and their ascent over skew multipliers.

For p = 2 the pair costs are Σ p_k C_ik² + Σ q_l D_jl² − 2·(largest correlation of row i of C with row j of D), and that
correlation is a product of sorted rows: all n·m of them are one matrix product.
"""

from __future__ import annotations

import numpy as np

from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan, assignment, cheapest


def quantile_cells(rows: np.ndarray, weights: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row's quantile function over `cells` equal parts of [0, 1]: two [n, cells].

    Exact in the sense that Σ mean·width is the row's weighted mean. O(n·N log N) for rows of length N.
    """
    n, size = rows.shape
    order = np.argsort(rows, axis=1, kind="stable")
    x, w = np.take_along_axis(rows, order, axis=1), weights[order]
    edge = np.cumsum(w, axis=1)
    edge[:, -1] = 1.0
    zero = np.zeros((n, 1))
    edge = np.hstack([zero, edge])
    first = np.hstack([zero, np.cumsum(w * x, axis=1)])
    second = np.hstack([zero, np.cumsum(w * x * x, axis=1)])
    grid = np.arange(1, cells) / cells
    # one search for all rows: row r lives in [2r, 2r + 1]
    shift = 2.0 * np.arange(n)[:, None]
    at = (
        np.searchsorted((edge[:, 1:] + shift).ravel(), (grid[None, :] + shift).ravel()).reshape(n, -1)
        - size * np.arange(n)[:, None]
    )
    at = np.clip(at, 0, size - 1)
    part = grid[None, :] - np.take_along_axis(edge, at, axis=1)
    x_at = np.take_along_axis(x, at, axis=1)
    one = np.take_along_axis(first, at, axis=1) + x_at * part
    two = np.take_along_axis(second, at, axis=1) + x_at * x_at * part
    mean = np.diff(np.hstack([zero, one, first[:, -1:]]), axis=1) * cells
    square = np.diff(np.hstack([zero, two, second[:, -1:]]), axis=1) * cells
    return mean, np.sqrt(np.maximum(square - mean * mean, 0.0))


def cell_count(problem: Problem) -> int:
    """Enough cells that `rows` loses little; exact (one cell a node) where both weightings are uniform and n = m."""
    if problem.square:
        return problem.a.n
    return min(2 * (problem.a.n + problem.b.n), 1024)


def rows_cost(problem: Problem) -> np.ndarray:
    """Lower bounds on W_p^p(row i of C, row j of D), [n, m]; exact on uniform pairs of equal size.

    Elsewhere quantile functions are averaged over cells (Jensen), for p = 2 with the within-cell deviations added
    (Cauchy–Schwarz), so the cost of unequal weights is one matrix product too.
    """
    a, b, p = problem.a, problem.b, problem.p
    cells = cell_count(problem)
    if problem.square:
        mean_a, mean_b = np.sort(a.dense, axis=1), np.sort(b.dense, axis=1)
        dev_a = dev_b = None
    else:
        mean_a, dev_a = quantile_cells(a.dense, a.weights, cells)
        mean_b, dev_b = quantile_cells(b.dense, b.weights, cells)
    if p != 2:
        from scipy.spatial.distance import cdist  # here, because importing it takes a third of a second

        if p == 1:
            return cdist(mean_a, mean_b, "cityblock") / cells
        return cdist(mean_a, mean_b, "minkowski", p=p) ** p / cells
    corr = mean_a @ mean_b.T
    if dev_a is not None and dev_b is not None:
        corr += dev_a @ dev_b.T
    square_a, square_b = (a.dense**2) @ a.weights, (b.dense**2) @ b.weights
    return np.maximum(square_a[:, None] + square_b[None, :] - (2.0 / cells) * corr, 0.0)


def rows_bound(problem: Problem) -> tuple[float, Plan]:
    """`rows`: (bound on GW_p^p, the coupling that solved it)."""
    plan, value = cheapest(rows_cost(problem), problem.a.weights, problem.b.weights, problem.square)
    return value, plan


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """[n, n] -> [n, n-1] without the diagonal, rows kept."""
    n = len(matrix)
    return matrix.ravel()[1:].reshape(n - 1, n + 1)[:, :-1].reshape(n, n - 1) if n > 1 else np.zeros((1, 0))


def gilmore_lawler_bound(problem: Problem) -> tuple[float, Plan]:
    """`gilmore_lawler` on an assignable pair: the diagonal entry of row i held on that of row j."""
    c, d = problem.a.dense, problem.b.dense
    n = len(c)
    corr = np.sort(off_diagonal(c), axis=1) @ np.sort(off_diagonal(d), axis=1).T
    corr += np.outer(problem.a.diagonal, problem.b.diagonal)
    square_c, square_d = np.einsum("ik,ik->i", c, c), np.einsum("ik,ik->i", d, d)
    cost = square_c[:, None] + square_d[None, :] - 2 * corr
    match = assignment(cost)
    return float(cost[np.arange(n), match].sum() / n**2), Plan.permutation(match)
