"""Exchange of mass along cycles of the transport polytope, for any weights and any p >= 1.

The smallest cycle is a 2×2 one: cells (i, j) and (k, l) give θ to (i, l) and (k, j). Its effect on the objective is a
quadratic in θ whose coefficients come in O(1) from the field Lπ, L the tensor |C_ik − D_jl|^p, so all partners of a
cell are judged at once.
"""

from __future__ import annotations

import ctypes
import time

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.gromov.couplings import transported
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan

_LEAST_GAIN = 1e-10
_STAYS = 16  # moves of a cell in a sweep: two cells may hand mass to and fro with ever smaller gains
_TINY = 1e-15  # of the whole mass: less than this is not moved, and a cell left with less is empty


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

    def exchange(self, s: int, t: int, theta: float) -> None:
        i, j, k, l = int(self.rows[s]), int(self.cols[s]), int(self.rows[t]), int(self.cols[t])
        spare = []
        for cell in (s, t):
            left = self.mass[cell] - theta
            self.mass[cell] = left if left > _TINY else 0.0
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


def exchange(problem: Problem, start: Plan, sweeps: int = 40, deadline: float = np.inf, moves: float = np.inf) -> Plan:
    """Move mass along 2×2 cycles of the plan's cells until none lowers the objective: a coupling no worse than `start`.

    Cells are taken in turn, those of the heaviest nodes first, each with its best partner, some moves a cell and sweep;
    `moves` in all, or some hundred more. A sweep over S cells costs O(S²) plus O(nm) a move. The field is kept up to
    date by increments, whose rounding can feign gains: a move counts only above a ten-billionth of the field, and the
    field is computed afresh every sweep.
    """
    compiled = native.library() is not None and problem.p == 2
    heaviest = np.argsort(-problem.a.diagonal[start.rows], kind="stable")
    plan = Plan(start.rows[heaviest], start.cols[heaviest], start.mass[heaviest])
    left = moves
    for _ in range(sweeps):
        cost = SquareCost(problem, plan) if problem.p == 2 else PowerCost(problem, plan)
        floor = _LEAST_GAIN * max(float(np.abs(cost.field).max()), 1e-300)
        if compiled and isinstance(cost, SquareCost):
            plan, made = _compiled_sweep(cost, plan, floor, deadline, left)
        else:
            plan, made = _sweep(cost, plan, floor, deadline, left)
        left -= made
        if not made or left <= 0 or time.perf_counter() > deadline:
            break
    return plan


def _sweep(cost: SquareCost | PowerCost, plan: Plan, floor: float, deadline: float, moves: float) -> tuple[Plan, int]:
    cells, made = _Cells(plan), 0
    for s in range(len(cells.mass)):
        for _ in range(_STAYS):
            if made >= moves or time.perf_counter() > deadline:
                return cells.plan(), made
            if cells.mass[s] <= 0 or not _best_cycle(cost, cells, s, floor):
                break
            made += 1
    return cells.plan(), made


def _compiled_sweep(cost: SquareCost, plan: Plan, floor: float, deadline: float, moves: float) -> tuple[Plan, int]:
    """`_sweep` by the compiled kernel, some moves at a time, so that a deadline and Ctrl-C are heard."""
    library = native.library()
    assert library is not None
    n, m = cost.field.shape
    size = len(plan.rows)
    rows, cols = np.empty(n * m, dtype=np.int32), np.empty(n * m, dtype=np.int32)
    mass, at = np.zeros(n * m), np.full((n, m), -1, dtype=np.int32)
    rows[:size], cols[:size], mass[:size] = plan.rows, plan.cols, plan.mass
    at[plan.rows, plan.cols] = np.arange(size)
    c, d = np.ascontiguousarray(cost.c), np.ascontiguousarray(cost.d)
    field = np.ascontiguousarray(cost.field)
    arrays = pointers(c, d, field, rows, cols, mass, at)
    step, places = np.empty(m), np.empty(m, dtype=np.int32)
    work = pointers(step, places)
    count, made, slot = ctypes.c_int(size), ctypes.c_int(0), 0
    limits = ctypes.c_double(floor), ctypes.c_double(_TINY), max(16, min(4096, 100_000_000 // (n * m)))
    while slot < count.value and made.value < moves and time.perf_counter() <= deadline:
        slot = library.gfviz_cycles(
            n, m, *arrays, ctypes.byref(count), slot, _STAYS, *limits, ctypes.byref(made), *work
        )
    keep = np.flatnonzero(mass[: count.value] > 0)
    return Plan(rows[keep].astype(np.int64), cols[keep].astype(np.int64), mass[keep]), made.value


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
    if change[t] >= -floor * cells.mass[s] or theta[t] <= _TINY:
        return False
    cost.move(i, j, int(k[t]), int(l[t]), float(theta[t]))
    cells.exchange(s, t, float(theta[t]))
    return True
