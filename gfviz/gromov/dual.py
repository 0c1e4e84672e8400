"""The dual ascent of Hahn and Grant (Operations Research 46, 1998) for assignable pairs: the strongest bound here.

Σ_ik C_ik D_π(i)π(k) is a quadratic assignment problem. Its cost for the pair (i → j, k → l) may be paid in the
subproblem of (i, j) or of (k, l); sweeps share it evenly, solve the n² subproblems, move their duals into linear costs,
and solve those. Each sweep raises the bound. Memory n⁴ doubles; n² assignments a sweep.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass

import numpy as np

from gfviz.gromov import native
from gfviz.gromov.network import EPS
from gfviz.gromov.transport import assignment


@dataclass
class QuadraticDual:
    """A reformulated quadratic assignment problem: bound + Σ leader + Σ quadratic equals the objective at any
    permutation.

    `quadratic` [i, k, j, l] (k ≠ i, l ≠ j; other entries are not read) and `leader` [i, j] are non-negative after a
    sweep, so `bound` is a lower bound, off by at most `error` through rounding.
    """

    bound: float
    leader: np.ndarray
    quadratic: np.ndarray
    error: float = 0.0
    swept: bool = False
    match: np.ndarray | None = None

    @classmethod
    def of(cls, c: np.ndarray, d: np.ndarray) -> QuadraticDual:
        """Σ_ik (C_ik − D_π(i)π(k))² as it stands."""
        constant = float((c * c).sum() + (d * d).sum())
        quadratic = np.multiply.outer(-2.0 * c, d)
        leader = -2.0 * np.multiply.outer(np.diagonal(c), np.diagonal(d))
        return cls(constant, leader, quadratic, 64 * EPS * constant)

    def sweep(self) -> None:
        """One sweep: spread, share, solve all subproblems, solve the linear costs."""
        n = len(self.leader)
        if n == 1:
            self.swept = True
        else:
            self.error += 6 * EPS * n * n * _sweep(self.quadratic, self.leader, self.swept)
            self.swept = True
        u, v, self.match = solve(self.leader)
        self.bound += float(u.sum() + v.sum())
        self.leader -= u[:, None] + v[None, :]

    def ascend(self, sweeps: int, target: float, deadline: float = np.inf) -> None:
        """Up to `sweeps` sweeps, fewer where the bound reaches `target` or time is over."""
        for _ in range(sweeps):
            self.sweep()
            if self.bound - self.error >= target or time.perf_counter() > deadline:
                break

    def fix(self, i: int, j: int) -> QuadraticDual:
        """The problem that remains once i → j is decided: one node less on each side."""
        n = len(self.leader)
        rows, cols = np.delete(np.arange(n), i), np.delete(np.arange(n), j)
        leader = self.leader[np.ix_(rows, cols)] + self.quadratic[i][:, j][np.ix_(rows, cols)]
        leader += self.quadratic[:, i][:, :, j][np.ix_(rows, cols)]
        quadratic = self.quadratic[np.ix_(rows, rows, cols, cols)]
        return QuadraticDual(self.bound + float(self.leader[i, j]), leader, quadratic, self.error, self.swept)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def solve(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(u, v, match) of a square assignment problem: cost >= u_i + v_j, equal on the matching. O(n³)."""
    library = native.library()
    n = len(cost)
    if library is None:
        match = assignment(cost)
        u, v = _potentials(cost[None], match[None])
        return u[0], v[0], match
    cost = np.ascontiguousarray(cost)
    u, v, match = np.empty(n), np.empty(n), np.empty(n, dtype=np.int32)
    work, links = np.empty(4 * n), np.empty(3 * n, dtype=np.int32)
    library.gfviz_assign(n, *map(_pointer, (cost, u, v, match, work, links)))
    return u, v, match.astype(np.int64)


def _sweep(quadratic: np.ndarray, leader: np.ndarray, share: bool) -> float:
    library = native.library()
    if library is None:
        return sweep_twin(quadratic, leader, share)
    n = len(leader)
    work, links = np.empty((n - 1) ** 2 + 6 * n), np.empty(4 * n, dtype=np.int32)
    part = ctypes.c_double(0.5 if share else -1.0)
    return float(
        library.gfviz_dual_sweep(n, _pointer(quadratic), _pointer(leader), part, _pointer(work), _pointer(links))
    )


def sweep_twin(quadratic: np.ndarray, leader: np.ndarray, share: bool) -> float:
    """`gfviz_dual_sweep` in numpy and scipy: the same steps, possibly other (equally optimal) duals, in place."""
    n = len(leader)
    quadratic += (leader / (n - 1))[:, None, :, None]
    largest = 0.0
    for i in range(n):
        rows = np.delete(np.arange(n), i)
        if share:
            half = (quadratic[i, rows] + quadratic[rows, i].transpose(0, 2, 1)) / 2
            quadratic[i, rows] = half
            quadratic[rows, i] = half.transpose(0, 2, 1)
        costs = np.stack([np.delete(quadratic[i, rows, j], j, axis=1) for j in range(n)])
        largest = max(largest, float(np.abs(costs).max()))
        matches = np.stack([assignment(cost) for cost in costs])
        u, v = _potentials(costs, matches)
        leader[i] = u.sum(axis=1) + v.sum(axis=1)
        for j in range(n):
            cols = np.delete(np.arange(n), j)
            quadratic[i, rows[:, None], j, cols[None, :]] = costs[j] - u[j][:, None] - v[j][None, :]
    return largest


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
