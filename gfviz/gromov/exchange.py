"""Exchange of mass along cycles of the transport polytope, for any weights and any p >= 1.

The smallest cycle is a 2×2 one: cells (i, j) and (k, l) give θ to (i, l) and (k, j). Its effect on the objective is a
quadratic in θ whose coefficients come in O(1) from the field Lπ, L the tensor |C_ik − D_jl|^p, so all partners of a
cell are judged at once.
"""

from __future__ import annotations

import time

import numpy as np

from gfviz.gromov.couplings import transported
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan

_LEAST_GAIN = 1e-10


class SquareCost:
    """p = 2: up to terms fixed by the marginals the field is −2 C π D, and a cycle changes it by a rank-one matrix."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.c, self.d = problem.a.dense, problem.b.dense
        self.dc, self.dd = np.diagonal(self.c), np.diagonal(self.d)
        self.field = -2.0 * transported(self.c, plan, self.d)

    def curvature(self, i: int, j: int, k: np.ndarray, l: np.ndarray) -> np.ndarray:
        """⟨δ, L δ⟩ of the unit cycle δ = −(i,j) − (k,l) + (i,l) + (k,j)."""
        return -2.0 * (self.dc[i] + self.dc[k] - 2 * self.c[i, k]) * (self.dd[j] + self.dd[l] - 2 * self.d[j, l])

    def move(self, i: int, j: int, k: int, l: int, theta: float) -> None:
        self.field += np.multiply.outer((2 * theta) * (self.c[:, i] - self.c[:, k]), self.d[j] - self.d[l])


class PowerCost:
    """Any p: the field itself, O(nm) a changed cell."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.c, self.d, self.p = problem.a.dense, problem.b.dense, problem.p
        self.field = np.zeros((len(self.c), len(self.d)))
        for i, j, mass in zip(plan.rows, plan.cols, plan.mass):
            self.field += mass * self._slab(i, j)

    def _slab(self, i: int, j: int) -> np.ndarray:
        return np.abs(self.c[:, i, None] - self.d[None, :, j]) ** self.p

    def _pair(self, i: object, j: object, k: object, l: object) -> np.ndarray:
        return np.abs(self.c[i, k] - self.d[j, l]) ** self.p  # type: ignore[index]

    def curvature(self, i: int, j: int, k: np.ndarray, l: np.ndarray) -> np.ndarray:
        pair = self._pair
        alone = pair(i, j, i, j) + pair(k, l, k, l) + pair(i, l, i, l) + pair(k, j, k, j)
        same = pair(i, j, k, l) + pair(i, l, k, j)
        return alone + 2 * (same - pair(i, j, i, l) - pair(i, j, k, j) - pair(k, l, i, l) - pair(k, l, k, j))

    def move(self, i: int, j: int, k: int, l: int, theta: float) -> None:
        self.field += theta * (self._slab(i, l) + self._slab(k, j) - self._slab(i, j) - self._slab(k, l))


class _Cells:
    """The support of a plan, with merging of mass that arrives at a cell already there."""

    def __init__(self, plan: Plan) -> None:
        self.rows, self.cols, self.mass = plan.rows.copy(), plan.cols.copy(), plan.mass.copy()
        self.at = {(int(i), int(j)): s for s, (i, j) in enumerate(zip(plan.rows, plan.cols))}
        self.tiny = 1e-15

    def exchange(self, s: int, t: int, theta: float) -> None:
        i, j, k, l = int(self.rows[s]), int(self.cols[s]), int(self.rows[t]), int(self.cols[t])
        spare = []
        for cell in (s, t):
            left = self.mass[cell] - theta
            self.mass[cell] = left if left > self.tiny else 0.0
            if self.mass[cell] == 0.0:
                del self.at[int(self.rows[cell]), int(self.cols[cell])]
                spare.append(cell)
        for row, col in ((i, l), (k, j)):
            if (row, col) in self.at:
                self.mass[self.at[row, col]] += theta
                continue
            if spare:
                cell = spare.pop(0)
            else:
                cell = len(self.mass)
                self.rows, self.cols = np.append(self.rows, row), np.append(self.cols, col)
                self.mass = np.append(self.mass, 0.0)
            self.rows[cell], self.cols[cell], self.mass[cell] = row, col, theta
            self.at[row, col] = cell

    def plan(self) -> Plan:
        keep = self.mass > 0
        return Plan(self.rows[keep], self.cols[keep], self.mass[keep])


def exchange(problem: Problem, start: Plan, sweeps: int = 40, deadline: float = np.inf) -> Plan:
    """Move mass along 2×2 cycles of the plan's cells until none lowers the objective: a coupling no worse than `start`.

    Cells are taken in turn, each with its best partner, at most S moves a cell and sweep. A sweep over S cells costs
    O(S²) plus O(nm) a move. The field is kept up to date by increments, whose rounding can feign gains: a move counts
    only above a ten-billionth of the field, and the field is computed afresh every sweep.
    """
    cells = _Cells(start)
    for _ in range(sweeps):
        plan = cells.plan()
        cost = SquareCost(problem, plan) if problem.p == 2 else PowerCost(problem, plan)
        floor = _LEAST_GAIN * max(float(np.abs(cost.field).max()), 1e-300)
        moved = False
        for s in range(len(cells.mass)):
            for _ in range(len(cells.mass)):
                if time.perf_counter() > deadline:
                    return cells.plan()
                if cells.mass[s] <= 0 or not _best_cycle(cost, cells, s, floor):
                    break
                moved = True
        if not moved:
            break
    return cells.plan()


def _best_cycle(cost: SquareCost | PowerCost, cells: _Cells, s: int, floor: float) -> bool:
    i, j = int(cells.rows[s]), int(cells.cols[s])
    k, l, field = cells.rows, cells.cols, cost.field
    linear = 2 * (field[i, l] + field[k, j] - field[i, j] - field[k, l])
    curve = cost.curvature(i, j, k, l)
    theta = np.minimum(cells.mass, cells.mass[s])
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(curve > 0, -linear / (2 * curve), np.inf)
    theta = np.clip(turn, 0.0, theta)
    change = theta * (linear + theta * curve)
    t = int(change.argmin())
    if change[t] >= -floor * cells.mass[s] or theta[t] <= cells.tiny:
        return False
    cost.move(i, j, int(k[t]), int(l[t]), float(theta[t]))
    cells.exchange(s, t, float(theta[t]))
    return True
