"""One-dimensional and discrete optimal transport: the inner problems of every bound."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.lazy import sparse as sp

_MANY = 1 << 16  # points


@dataclass(frozen=True)
class Plan:
    """A sparse coupling: `mass[s]` goes from node `rows[s]` to node `cols[s]`."""

    rows: np.ndarray
    cols: np.ndarray
    mass: np.ndarray

    @classmethod
    def permutation(cls, match: np.ndarray) -> Plan:
        """Node i of the first graph to node `match[i]` of the second, all with mass 1/n."""
        n = len(match)
        return cls(np.arange(n), np.asarray(match), np.full(n, 1.0 / n))

    def match(self) -> np.ndarray | None:
        """The permutation that this plan is, or None."""
        n = len(self.rows)
        if not (np.array_equal(np.sort(self.rows), np.arange(n)) and np.array_equal(np.sort(self.cols), np.arange(n))):
            return None
        match = np.empty(n, dtype=np.int64)
        match[self.rows] = self.cols
        return match

    def matrix(self, n: int, m: int) -> sp.csr_array:
        return sp.csr_array((self.mass, (self.rows, self.cols)), shape=(n, m))


def monotone_plan(x: np.ndarray, p: np.ndarray, y: np.ndarray, q: np.ndarray, descending: bool = False) -> Plan:
    """The monotone coupling of weighted points on the line (antitone where `descending`). O(n log n).

    >>> monotone_plan(np.array([3., 1.]), np.array([.5, .5]), np.array([1.]), np.array([1.])).mass.tolist()
    [0.5, 0.5]
    """
    ix = np.argsort(x, kind="stable")
    iy = np.argsort(-y if descending else y, kind="stable")
    if len(x) == len(y) and np.array_equal(p[ix], q[iy]):
        return Plan(ix, iy, p[ix])
    # In double precision the sums of tens of thousands of weights drift, and the last node would pay for all of it.
    left, right = (np.cumsum(w, dtype=np.longdouble).astype(np.float64) for w in (p[ix], q[iy]))
    left[-1] = right[-1] = 1.0
    cuts = np.union1d(left, right)
    mass = np.diff(cuts, prepend=0.0)
    rows = np.minimum(np.searchsorted(left, cuts), len(x) - 1)
    cols = np.minimum(np.searchsorted(right, cuts), len(y) - 1)
    keep = mass > 0
    return Plan(ix[rows[keep]], iy[cols[keep]], mass[keep])


def wasserstein_power(x: np.ndarray, p: np.ndarray, y: np.ndarray, q: np.ndarray, power: float) -> float:
    """W_p^p of two weighted point sets on the line. O(n log n).

    For p = 2 and many points through their correlation, which cancels: exact to some ε of the second moments.
    """
    if power == 2 and len(x) + len(y) > _MANY:
        return _square_by_correlation(x, p, y, q)
    if len(x) == len(y) and (p == p[0]).all() and (q == p[0]).all():
        # Which point goes where is not asked, and values alone sort faster than places.
        gap, mass = np.abs(np.sort(x) - np.sort(y)), p
    else:
        plan = monotone_plan(x, p, y, q)
        gap, mass = np.abs(x[plan.rows] - y[plan.cols]), plan.mass
    return float(mass @ (gap * gap if power == 2 else gap**power))


def _square_by_correlation(x: np.ndarray, p: np.ndarray, y: np.ndarray, q: np.ndarray) -> float:
    """∫ (F⁻¹ − G⁻¹)²: the product is Σ x_i (H(u_i) − H(u_i₋₁)), H the integral of G⁻¹, linear between its steps."""
    (x, left), (y, right) = _steps(x, p), _steps(y, q)
    masses = np.diff(left, prepend=0.0), np.diff(right, prepend=0.0)
    integral = np.concatenate([[0.0], np.cumsum(masses[1] * y, dtype=np.longdouble).astype(np.float64)])
    reached = np.interp(left, np.concatenate([[0.0], right]), integral)
    moments = float(masses[0] @ (x * x)) + float(masses[1] @ (y * y))
    return max(0.0, moments - 2.0 * float(x @ np.diff(reached, prepend=0.0)))


def _steps(x: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values ascending, where the step of each ends in [0, 1])."""
    order = np.argsort(x)
    ends = np.cumsum(p[order], dtype=np.longdouble).astype(np.float64)
    ends[-1] = 1.0
    return x[order], ends


def assignment(cost: np.ndarray, prices: np.ndarray | None = None) -> np.ndarray:
    """Column of each row in a cheapest perfect matching of a square cost matrix (Jonker–Volgenant). O(n³).

    `prices` as in `solve_compiled`: each of a sequence of like problems then takes half the time. Compiled where there
    is a compiler (`gfviz bench gw` has it beside scipy, lapx and POT), else scipy's.
    """
    solved = solve_compiled(cost, prices)
    if solved is not None:
        return solved[2]
    from scipy.optimize import linear_sum_assignment  # here, because importing it takes a third of a second

    return linear_sum_assignment(cost)[1]


def monotone_assignment(cost: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray | None:
    """The assignment of `rows` to `cols` in their order, if potentials show that none is cheaper, else None. O(n²).

    Costs of sorted rows are nearly Monge, as those of rank graphs are; there neighbours decide, and the potentials come
    from differences along the diagonal.
    """
    ordered = cost[np.ix_(rows, cols)]
    diagonal = np.diagonal(ordered)
    rise = (np.diagonal(ordered, 1) - diagonal[:-1] + diagonal[1:] - np.diagonal(ordered, -1)) / 2
    v = np.concatenate([[0.0], np.cumsum(rise)])
    u, least = diagonal - v, -1e-14 * float(np.abs(diagonal).max() + np.ptp(v))
    # Most costs that are not nearly Monge fail here already.
    if len(u) > 2 and (np.diagonal(ordered, 2) - v[2:] - u[:-2]).min() < least:
        return None
    ordered -= v[None, :]
    ordered -= u[:, None]
    if ordered.min() < least:
        return None
    match = np.empty(len(cost), dtype=np.int64)
    match[rows] = cols
    return match


def solve_compiled(
    cost: np.ndarray, prices: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(u, v, match) of a square assignment problem: cost >= u_i + v_j, equal on the matching; None if not compiled.

    `prices` [n]: v of a problem like this one, to start from; changed in place to this one's.
    """
    library = native.library()
    if library is None:
        return None
    n = len(cost)
    cost = np.ascontiguousarray(cost, dtype=np.float64)
    u, v, match = np.empty(n), np.zeros(n) if prices is None else prices, np.empty(n, dtype=np.int32)
    work, links = np.empty(10 * n), np.empty(3 * n, dtype=np.int32)
    library.gfviz_assign_from(n, *pointers(cost, u, v, match, work, links))
    return u, v, match.astype(np.int64)


def load_solver() -> float:
    """Import POT, which takes seconds the first time: the seconds taken, so that no rung and no budget pays for it."""
    begun = time.perf_counter()
    import ot  # noqa: F401

    return time.perf_counter() - begun


class Basis:
    """Where a transport ended, for the next one with other costs and the same weights to start from.

    A spanning tree over rows 0..n-1 and columns n..n+m-1, `parent` int32 [n + m] (-1 at its root), and `mass` [n + m]
    on the edge from each node to its parent; None before the first.
    """

    def __init__(self) -> None:
        self.parent: np.ndarray | None = None
        self.mass: np.ndarray | None = None


def transport_duals(
    cost: np.ndarray, p: np.ndarray, q: np.ndarray, basis: Basis | None = None
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """(a cheapest plan, u, v) by the network simplex: cost >= u_i + v_j, whatever the solver's tolerance was.

    The second potential is lowered to min_i cost_ij − u_i, the first then to min_j cost_ij − v_j. Compiled where there
    is a compiler, from `basis` (changed in place) where one is given; else POT's. Weights must be positive.
    """
    if 1 in cost.shape:
        rows, cols = np.indices(cost.shape).reshape(2, -1)
        u, v = (cost[:, 0], np.zeros(1)) if cost.shape[1] == 1 else (np.zeros(1), cost[0])
        return Plan(rows, cols, np.multiply.outer(p, q).ravel()), u, v
    plan, u = _simplex(cost, p, q, basis) or _asked_of_pot(cost, p, q)
    v = (cost - u[:, None]).min(axis=0)
    u = (cost - v[None, :]).min(axis=1)
    return plan, u, v


def _simplex(cost: np.ndarray, p: np.ndarray, q: np.ndarray, basis: Basis | None) -> tuple[Plan, np.ndarray] | None:
    library = native.library()
    if library is None:
        return None
    n, m = cost.shape
    basis = Basis() if basis is None else basis
    known = basis.parent is not None
    if basis.parent is None or basis.mass is None:
        basis.parent, basis.mass = np.empty(n + m, dtype=np.int32), np.empty(n + m)
    cost, p, q = (np.ascontiguousarray(x, dtype=np.float64) for x in (cost, p, q))
    u, v, work, links = np.empty(n), np.empty(m), np.empty(3 * (n + m)), np.empty(5 * (n + m), dtype=np.int32)
    parent, mass = basis.parent, basis.mass
    room = pointers(parent, mass, u, v, work, links)
    if library.gfviz_transport(n, m, *pointers(cost, p, q), int(known), *room) < 0:
        return None
    used = np.flatnonzero((parent >= 0) & (mass > 0))
    ends = np.sort(np.stack([used, parent[used]]), axis=0)
    return Plan(ends[0], ends[1] - n, mass[used]), u


def _asked_of_pot(cost: np.ndarray, p: np.ndarray, q: np.ndarray) -> tuple[Plan, np.ndarray]:
    import ot  # here, because importing it takes seconds

    # every node has mass, and the potentials are lowered afterwards: there is nothing to centre
    plan, log = ot.emd(p, q, cost, log=True, numItermax=1_000_000, center_dual=False)
    plan = np.asarray(plan)
    rows, cols = np.nonzero(plan)
    return Plan(rows, cols, plan[rows, cols]), np.asarray(log["u"])


def transport(cost: np.ndarray, p: np.ndarray, q: np.ndarray, basis: Basis | None = None) -> tuple[Plan, float]:
    """A cheapest transport plan and a lower bound on its cost, the value of feasible duals."""
    plan, u, v = transport_duals(cost, p, q, basis)
    return plan, float(p @ u + q @ v)


class Cheapest:
    """Cheapest plans for one pair of weights and a sequence of costs, each solved from where the last one ended.

    An assignment where weights are uniform and the matrix square, a transport elsewhere.
    """

    def __init__(self, p: np.ndarray, q: np.ndarray, uniform_square: bool) -> None:
        self.p, self.q, self.uniform_square = p, q, uniform_square
        self._prices, self._basis = np.zeros(len(q)), Basis()

    def solve(self, cost: np.ndarray) -> tuple[Plan, float]:
        """(plan, lower bound on its cost) for costs [n, m]."""
        if self.uniform_square:
            match = assignment(cost, self._prices)
            return Plan.permutation(match), float(cost[np.arange(len(match)), match].mean())
        return transport(cost, self.p, self.q, self._basis)
