"""The dual ascent of Hahn and Grant (Operations Research 46, 1998), with momentum: the strongest bound here.

Σ_ik C_ik D_π(i)π(k) is a quadratic assignment problem. Its cost for the pair (i → j, k → l) may be paid in the
subproblem of (i, j) or of (k, l); sweeps share it evenly, solve the n² subproblems, move their duals into linear costs,
and solve those. Memory n⁴ doubles, twice that with momentum; n² assignments a sweep.

On assignable pairs a subproblem leaves out the node that it is about (`held`). For any symmetric pair of equal size and
uniform weights the same sweeps over whole rows bound every coupling: X = nπ is doubly stochastic, and
Σ_l X_kl = 1 is all that spreading, sharing and solving use. With other weights the subproblems are transports.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.gromov.network import EPS
from gfviz.gromov.transport import Plan, assignment, solve_compiled, transport_duals

MOMENTUM = 0.8
"""How far a sweep starts beyond the last one, in steps: reaches in 10 sweeps what takes 20 without (n = 40)."""
WEIGHTED_MOMENTUM = 0.5
"""The same where weights differ: with more of it the first ten sweeps of model token graphs lose what they had."""
_STALL = 5  # sweeps without a thousandth of the open gap won


@dataclass
class QuadraticDual:
    """A reformulated quadratic assignment problem: bound + Σ leader + Σ quadratic equals the objective at any
    permutation (at any coupling, where not `held`).

    `quadratic` [i, k, j, l] (where `held`, entries with k = i or l = j are not read) and `leader` [i, j] are
    non-negative after a sweep, so `bound` is a lower bound, off by at most `error` through rounding. `best` is the
    largest bound less its error so far: momentum may lose what a sweep had.
    """

    bound: float
    leader: np.ndarray
    quadratic: np.ndarray
    error: float = 0.0
    held: bool = True
    sweeps: int = 0
    match: np.ndarray | None = None
    best: float = -np.inf
    weights: tuple[np.ndarray, np.ndarray] | None = None
    plan: Plan | None = None
    _bases: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, c: np.ndarray, d: np.ndarray, held: bool = True) -> QuadraticDual:
        """Σ_ik (C_ik − D_π(i)π(k))² as it stands."""
        constant = float((c * c).sum() + (d * d).sum())
        quadratic = np.multiply.outer(-2.0 * c, d)
        leader = -2.0 * np.multiply.outer(np.diagonal(c), np.diagonal(d)) if held else np.zeros_like(c)
        return cls(constant, leader, quadratic, 64 * EPS * constant, held)

    @classmethod
    def weighted(cls, c: np.ndarray, p: np.ndarray, d: np.ndarray, q: np.ndarray) -> QuadraticDual:
        """Σ (C_ik − D_jl)² π_ij π_kl as it stands, for any weights and sizes: bounds are on this sum itself."""
        constant = float(p @ (c * c) @ p + q @ (d * d) @ q)
        quadratic = np.multiply.outer(-2.0 * c, d)
        return cls(constant, np.zeros((len(c), len(d))), quadratic, 64 * EPS * constant, held=False, weights=(p, q))

    @property
    def swept(self) -> bool:
        return self.sweeps > 0

    def sweep(self, share: float = 0.5) -> float:
        """One sweep: spread, share, solve all subproblems, solve the linear costs. Returns what rounding may have done.

        `share` of each sum of complementary costs goes to the later subproblem.
        """
        part = share if self.swept else -1.0  # a first sweep has only the symmetric costs, and nothing to share
        if self.weights is not None:
            p, q = self.weights
            lost = self._solve_transports(part, p, q)
            self.plan, u, v = transport_duals(self.leader, p, q)
            gained = float(p @ u + q @ v)
        else:
            n, lost = len(self.leader), 0.0
            if n > 1 or not self.held:
                lost = 10 * EPS * n * n * _sweep(self.quadratic, self.leader, part, self.held)
            u, v, self.match = solve(self.leader)
            gained = float(u.sum() + v.sum())
        self.sweeps += 1
        self.bound += gained
        self.leader -= u[:, None] + v[None, :]
        self.error += lost
        self.best = max(self.best, self.bound - self.error)
        return lost

    def _solve_transports(self, share: float, p: np.ndarray, q: np.ndarray) -> float:
        """The subproblems where mass is split: n·m transports. The mass is one in all, so rounding loses little."""
        largest = self._transports_compiled(share, p, q)
        if largest is None:
            largest = self._transports_twin(share, p, q)
        return (16 + len(p) + len(q)) * EPS * largest

    def _transports_compiled(self, share: float, p: np.ndarray, q: np.ndarray) -> float | None:
        library, n, m = native.library(), len(p), len(q)
        if library is None:
            return None
        known, part = self._bases is not None, ctypes.c_double(share)
        if self._bases is None:
            self._bases = np.empty((n * m, n + m), dtype=np.int32), np.empty((n * m, n + m))
        work, links = np.empty(n * m + 4 * (n + m)), np.empty(5 * (n + m), dtype=np.int32)
        costs, weights = pointers(self.quadratic, self.leader), pointers(p, q)
        room = pointers(*self._bases, work, links)
        return float(library.gfviz_weighted_sweep(n, m, *costs, part, *weights, int(known), *room))

    def _transports_twin(self, share: float, p: np.ndarray, q: np.ndarray) -> float:
        quadratic, largest = self.quadratic, 0.0
        quadratic += self.leader[:, None, :, None]
        for i in range(len(p)):
            if share >= 0:
                _share(quadratic, i, share, held=False)
            largest = max(largest, float(np.abs(quadratic[i]).max()))
            for j in range(len(q)):
                _, u, v = transport_duals(quadratic[i, :, j], p, q)
                self.leader[i, j] = p @ u + q @ v
                quadratic[i, :, j] -= u[:, None] + v[None, :]
        return largest

    def ascend(self, sweeps: int, target: float, deadline: float = np.inf, momentum: float = 0.0) -> None:
        """Up to `sweeps` sweeps, fewer where `best` reaches `target`, stalls, or time is over.

        With momentum a sweep starts from s + momentum·(s − s'), s and s' the last two states: an affine combination of
        reformulations is one. What rounding did to s − s' is carried along with it, hence `drift`.
        """
        before: tuple[np.ndarray, np.ndarray, float] | None = None
        drift, marks = 0.0, [self.best]
        for _ in range(sweeps):
            if momentum and self.swept:
                if before is None:
                    before = self.quadratic.copy(), self.leader.copy(), self.bound
                else:
                    before = self._extrapolate(before, momentum)
                    drift *= momentum
                    self.error += drift
            drift += self.sweep(0.25 if self.sweeps < 3 else 0.5)  # the early ones gain most from the earlier share
            marks.append(self.best)
            if self.best >= target or time.perf_counter() > deadline:
                break
            if len(marks) > _STALL and self.best - marks[-1 - _STALL] <= 1e-3 * (target - self.best):
                break

    def _extrapolate(
        self, before: tuple[np.ndarray, np.ndarray, float], pace: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        quadratic, leader, bound = before
        _extrapolate(self.quadratic, quadratic, pace)
        _extrapolate(self.leader, leader, pace)
        now = self.bound
        self.bound = now + pace * (now - bound)
        return quadratic, leader, now

    def fix(self, i: int, j: int) -> QuadraticDual:
        """The problem that remains once i → j is decided, where `held`: one node less on each side."""
        n = len(self.leader)
        rows, cols = np.delete(np.arange(n), i), np.delete(np.arange(n), j)
        leader = self.leader[np.ix_(rows, cols)] + self.quadratic[i][:, j][np.ix_(rows, cols)]
        leader += self.quadratic[:, i][:, :, j][np.ix_(rows, cols)]
        quadratic = self.quadratic[np.ix_(rows, rows, cols, cols)]
        return QuadraticDual(self.bound + float(self.leader[i, j]), leader, quadratic, self.error, True, self.sweeps)


def solve(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(u, v, match) of a square assignment problem: cost >= u_i + v_j, equal on the matching. O(n³)."""
    solved = solve_compiled(cost)
    if solved is not None:
        return solved
    match = assignment(cost)
    u, v = _potentials(cost[None], match[None])
    return u[0], v[0], match


def _sweep(quadratic: np.ndarray, leader: np.ndarray, share: float, held: bool) -> float:
    library = native.library()
    if library is None:
        return sweep_twin(quadratic, leader, share, held)
    n = len(leader)
    work, links = np.empty(n**2 + 6 * n), np.empty(4 * n, dtype=np.int32)
    part = ctypes.c_double(share)
    at, linear, *room = pointers(quadratic, leader, work, links)
    return float(library.gfviz_dual_sweep(n, at, linear, part, int(held), *room))


def _extrapolate(now: np.ndarray, before: np.ndarray, pace: float) -> None:
    """now + pace·(now − before) in place, with the old `now` left in `before`."""
    library = native.library()
    if library is None:
        old = now.copy()
        now += pace * (now - before)
        before[...] = old
        return
    library.gfviz_extrapolate(ctypes.c_size_t(now.size), *pointers(now, before), ctypes.c_double(pace))


def sweep_twin(quadratic: np.ndarray, leader: np.ndarray, share: float, held: bool = True) -> float:
    """`gfviz_dual_sweep` in numpy and scipy: the same steps, possibly other (equally optimal) duals, in place."""
    n = len(leader)
    quadratic += (leader / (n - 1 if held else n))[:, None, :, None]
    largest = 0.0
    for i in range(n):
        rows = np.delete(np.arange(n), i) if held else np.arange(n)
        if share >= 0:
            _share(quadratic, i, share, held)
        costs = np.stack(
            [np.delete(quadratic[i, rows, j], j, axis=1) if held else quadratic[i, :, j] for j in range(n)]
        )
        largest = max(largest, float(np.abs(costs).max()))
        matches = np.stack([assignment(cost) for cost in costs])
        u, v = _potentials(costs, matches)
        leader[i] = u.sum(axis=1) + v.sum(axis=1)
        for j in range(n):
            cols = np.delete(np.arange(n), j) if held else np.arange(n)
            quadratic[i, rows[:, None], j, cols[None, :]] = costs[j] - u[j][:, None] - v[j][None, :]
    return largest


def _share(quadratic: np.ndarray, i: int, share: float, held: bool) -> None:
    others = np.delete(np.arange(len(quadratic)), i)
    both = quadratic[i, others] + quadratic[others, i].transpose(0, 2, 1)
    left = share * np.maximum(both, 0.0)  # a block that was solved before must keep its costs non-negative
    quadratic[i, others] = both - left
    quadratic[others, i] = left.transpose(0, 2, 1)
    if not held:
        quadratic[i, i] = (quadratic[i, i] + quadratic[i, i].T) / 2


def _potentials(costs: np.ndarray, matches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Feasible duals of a batch [B, s, s] of solved assignment problems, by shortest paths from the matching."""
    size = costs.shape[1]
    matched = np.take_along_axis(costs, matches[:, :, None], axis=2)[:, :, 0]
    v = np.zeros((len(costs), size))
    for _ in range(size):
        reach = np.take_along_axis(v, matches, axis=1)[:, :, None] + costs - matched[:, :, None]
        lower = np.minimum(v, reach.min(axis=1))
        if np.array_equal(lower, v):
            break
        v = lower
    return (costs - v[:, None, :]).min(axis=2), v  # feasible whether or not the paths have settled
