"""Single numbers of a pair: the objective at a coupling, who carries it, the a-priori interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.gromov import bounds
from gfviz.gromov.problem import Problem
from gfviz.gromov.sources import Source
from gfviz.gromov.transport import Plan
from gfviz.lazy import sparse as sp


def apriori_interval(a: Source, b: Source, p: float = 2, weights: Any = None) -> tuple[float, float]:
    """(W_p(f_C, f_D), W_p(f_C, f_D) + δ_p(C) + δ_p(D)): a true interval that needs one graph at a time, but wide.

    δ_p(C)^p = Σ p_i p_k |C_ik − f_C(i)|^p (MATH.md section 3: Minkowski at the sorted coupling). Both ends are
    rounded outward.
    """
    problem = Problem(a, b, p, weights)
    low = bounds.sorted_bound(problem)
    excess = [bounds.apriori_excess(side, problem.p) + problem.margin for side in (problem.a, problem.b)]
    high = problem.value(low + problem.margin) + sum(problem.value(x) for x in excess)
    return problem.value(problem.outward_lower(low)), high


def objective(a: Source, b: Source, coupling: Any, p: float = 2, weights: Any = None) -> float:
    """Σ |C_ik − D_jl|^p π_ij π_kl at a coupling [n, m] (array or sparse): GW_p^p's objective, no root taken.

    Raises `GfvizError` where the coupling is not one: negative entries, or marginals off the weights by over 1e-7.
    Cost O(S²) for S non-zero cells (O(n³) for a full p = 2 coupling).

    >>> objective([[2., 1.], [1., 2.]], [[1., 2.], [2., 4.]], [[.25, .25], [.25, .25]], p=1)
    1.0
    """
    return float(sum(_shares(a, b, coupling, p, weights)[0]))


def node_shares(
    a: Source, b: Source, coupling: Any, p: float = 2, weights: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Each node's share of `objective` at a coupling: ([n], [m]), each summing to it.

    Node i's share is Σ_{kjl} |C_ik − D_jl|^p π_ij π_kl: what the entries of its row contribute.
    """
    return _shares(a, b, coupling, p, weights)


def _shares(a: Source, b: Source, coupling: Any, p: float, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    problem = Problem(a, b, p, weights)
    n, m = problem.a.size, problem.b.size
    pi = sp.csr_array(coupling if sp.issparse(coupling) else np.asarray(coupling), dtype=np.float64)
    if pi.shape != (n, m):
        raise GfvizError(f"the coupling has shape {pi.shape}, the pair needs ({n}, {m})")
    left, right = np.zeros(n), np.zeros(m)
    left[problem.a.support], right[problem.b.support] = problem.a.weights, problem.b.weights
    off = max(float(np.abs(pi.sum(axis=1) - left).max()), float(np.abs(pi.sum(axis=0) - right).max()))
    if not np.isfinite(pi.data).all() or (pi.data < 0).any() or off > 1e-7:
        raise GfvizError(f"this is no coupling of the two graphs' weights (marginals off by {off:.3g})")
    pi = pi[problem.a.support][:, problem.b.support].tocoo()
    plan = Plan(pi.row, pi.col, pi.data)
    scale = problem.unit * 2.0**problem.exponent
    cell = plan.mass * cell_costs(problem, plan) * scale**problem.p
    own, other = np.zeros(n), np.zeros(m)
    np.add.at(own, problem.a.support[plan.rows], cell)
    np.add.at(other, problem.b.support[plan.cols], cell)
    return own, other


def cell_costs(problem: Problem, plan: Plan) -> np.ndarray:
    """Σ_kl |C_ik − D_jl|^p π_kl at each cell (i, j) of a plan [S]."""
    if not problem.dense or (problem.p == 2 and len(plan.rows) > 8192):
        return _factor_cell_costs(problem, plan)
    c, d, power = problem.a.dense, problem.b.dense, problem.p
    step = max(1, (1 << 21) // max(1, len(plan.rows)))
    parts = []
    for start in range(0, len(plan.rows), step):
        some = slice(start, start + step)
        gap = np.abs(c[plan.rows[some]][:, plan.rows] - d[plan.cols[some]][:, plan.cols]) ** power
        parts.append(gap @ plan.mass)
    return np.concatenate(parts) if parts else np.zeros(0)


def _factor_cell_costs(problem: Problem, plan: Plan) -> np.ndarray:
    if problem.p != 2:
        raise GfvizError(f"p = {problem.p:g} needs the matrices themselves, and one has too many nodes: use p = 2")
    squares = [wrapped.row_square_means for wrapped in (problem.a, problem.b)]
    return np.maximum(squares[0][plan.rows] + squares[1][plan.cols] - 2 * problem.field(plan), 0.0)
