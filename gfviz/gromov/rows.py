"""Bounds that compare row with row: `rows` (Mémoli's third), `gilmore_lawler`, and their ascent over skew multipliers.

For p = 2 the pair costs are Σ p_k C_ik² + Σ q_l D_jl² − 2·(largest correlation of row i of C with row j of D), and that
correlation is a product of sorted rows: all n·m of them are one matrix product.
"""

from __future__ import annotations

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan, assignment, monotone_assignment

EXACT_STEPS = 2_000_000_000
"""Up to this many steps n·m·(n + m) the compiled merge compares rows of unequal weights exactly: some seconds."""
QUICK_STEPS = 10_000_000
"""Up to this many it does so unasked: beyond, averages take half the time and lose a millionth or so."""
CELLS = 1024
"""Parts of [0, 1] over which quantile functions are averaged beyond that."""


def cell_edges(cells: int) -> np.ndarray:
    """[cells + 1] from 0 to 1: half of the parts equal, a quarter each ever finer towards both ends.

    Rows of token graphs carry nearly all of their norm in a few largest entries, which equal parts would blur.
    """
    tail = 0.5 ** np.linspace(1.0, 24.0, max(1, cells // 4))
    inner = np.linspace(0.0, 1.0, max(2, cells // 2 + 1))
    return np.unique(np.concatenate([inner, tail, 1.0 - tail]))


def quantile_cells(rows: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row's quantile function between consecutive `edges`: two [n, cells].

    Exact in the sense that Σ mean·width is the row's weighted mean. O(n·N log N) for rows of length N.
    """
    n, size = rows.shape
    x, edge = sorted_rows(rows, weights)
    mass = np.diff(edge, axis=1)
    zero = np.zeros((n, 1))
    first = np.hstack([zero, np.cumsum(mass * x, axis=1)])
    second = np.hstack([zero, np.cumsum(mass * x * x, axis=1)])
    grid, width = edges[1:-1], np.diff(edges)
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
    mean = np.diff(np.hstack([zero, one, first[:, -1:]]), axis=1) / width
    square = np.diff(np.hstack([zero, two, second[:, -1:]]), axis=1) / width
    return mean, np.sqrt(np.maximum(square - mean * mean, 0.0))


def sorted_rows(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(each row ascending [n, N], where its steps begin and end in [0, 1]: [n, N + 1])."""
    order = np.argsort(rows, axis=1, kind="stable")
    edge = np.zeros((len(rows), rows.shape[1] + 1))
    edge[:, 1:] = np.cumsum(weights[order], axis=1, dtype=np.longdouble)  # in double the sums of thousands drift
    edge[:, -1] = 1.0
    return np.ascontiguousarray(np.take_along_axis(rows, order, axis=1)), edge


def _followed(values: np.ndarray, edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows and the ends of their steps, each followed by where the compiled merge idles: both [n, N + 1]."""
    return (np.pad(values, ((0, 0), (0, 1))), np.pad(edge[:, 1:], ((0, 0), (0, 1)), constant_values=1e300))


def _refined(sorted_values: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Values of uniformly weighted sorted rows at `middles` of [0, 1]."""
    size = sorted_values.shape[1]
    return sorted_values[:, np.minimum((middles * size).astype(np.int64), size - 1)]


def averaged(problem: Problem) -> bool:
    """Whether `rows` averages over cells on this pair where `exact_rows` would not."""
    merges = float(problem.a.n) * problem.b.n * (problem.a.n + problem.b.n)
    uneven = not (problem.a.uniform and problem.b.uniform)
    return uneven and QUICK_STEPS < merges <= EXACT_STEPS and native.library() is not None


def row_correlations(problem: Problem, exact: bool = False) -> np.ndarray:
    """Upper bounds [n, m] on E(C_ik D_jl) over the couplings of row i of C with row j of D (p = 2).

    Sorted against sorted is the largest: one matrix product where both weightings are uniform, on the common
    refinement of their steps, a merge for each pair of rows where they are not (both exact). Where the merges are too
    many, or there is no compiler: quantile functions averaged over cells, with the deviations inside them paired fully
    (Cauchy–Schwarz).
    """
    a, b = problem.a, problem.b
    if problem.square:
        return np.sort(a.dense, axis=1) @ np.sort(b.dense, axis=1).T / a.n
    if a.uniform and b.uniform:
        edges = np.union1d(np.arange(a.n + 1) / a.n, np.arange(b.n + 1) / b.n)
        width, middles = np.diff(edges), (edges[1:] + edges[:-1]) / 2
        return (_refined(np.sort(a.dense, axis=1), middles) * width) @ _refined(np.sort(b.dense, axis=1), middles).T
    library = native.library()
    if library is not None and float(a.n) * b.n * (a.n + b.n) <= (EXACT_STEPS if exact else QUICK_STEPS):
        found = np.empty((a.n, b.n))
        arrays = [*_followed(*sorted_rows(a.dense, a.weights)), *_followed(*sorted_rows(b.dense, b.weights)), found]
        library.gfviz_row_correlations(a.n, b.n, *pointers(*arrays))
        return found
    edges = cell_edges(CELLS)
    (mean_a, dev_a), (mean_b, dev_b) = (quantile_cells(x.dense, x.weights, edges) for x in (a, b))
    width = np.diff(edges)
    return (mean_a * width) @ mean_b.T + (dev_a * width) @ dev_b.T


def rows_cost(problem: Problem, exact: bool = False) -> np.ndarray:
    """Lower bounds on W_p^p(row i of C, row j of D), [n, m]; exact except as `row_correlations` says, and for p ≠ 2
    where sizes or weights differ: there quantile functions are averaged over cells (Jensen).
    """
    a, b, p = problem.a, problem.b, problem.p
    if p == 2:
        square_a, square_b = a.row_square_means, b.row_square_means
        return np.maximum(square_a[:, None] + square_b[None, :] - 2.0 * row_correlations(problem, exact), 0.0)
    from scipy.spatial.distance import cdist  # here, because it takes long to import

    if problem.square:
        mean_a, mean_b, cells = np.sort(a.dense, axis=1), np.sort(b.dense, axis=1), a.n
    else:
        cells = min(2 * (a.n + b.n), CELLS)
        edges = np.arange(cells + 1) / cells
        mean_a, mean_b = (quantile_cells(x.dense, x.weights, edges)[0] for x in (a, b))
    if p == 1:
        return cdist(mean_a, mean_b, "cityblock") / cells
    return cdist(mean_a, mean_b, "minkowski", p=p) ** p / cells


def rows_bound(problem: Problem, exact: bool = False) -> tuple[float, Plan]:
    """`rows`: (bound on GW_p^p, the coupling that solved it); `exact` merges rows even where that takes seconds."""
    plan, value = problem.cheapest().solve(rows_cost(problem, exact))
    return value, plan


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """[n, n] -> [n, n-1] without the diagonal, rows kept."""
    n = len(matrix)
    return matrix.ravel()[1:].reshape(n - 1, n + 1)[:, :-1].reshape(n, n - 1) if n > 1 else np.zeros((1, 0))


def gilmore_lawler_bound(problem: Problem) -> tuple[float, Plan]:
    """`gilmore_lawler` on an assignable pair: the diagonal entry of row i held on that of row j."""
    c, d = problem.a.dense, problem.b.dense
    n = len(c)
    cost = np.sort(off_diagonal(c), axis=1) @ np.sort(off_diagonal(d), axis=1).T
    cost += np.outer(problem.a.diagonal, problem.b.diagonal)
    cost *= -2.0
    cost += np.einsum("ik,ik->i", c, c)[:, None]
    cost += np.einsum("ik,ik->i", d, d)[None, :]
    orders = [np.argsort(side.row_means, kind="stable") for side in (problem.a, problem.b)]
    match = monotone_assignment(cost, *orders)
    if match is None:
        match = assignment(cost)
    return float(cost[np.arange(n), match].sum() / n**2), Plan.permutation(match)
