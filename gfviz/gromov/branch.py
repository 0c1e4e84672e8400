"""Branch and bound on an assignable pair: the exact distance beyond enumeration, on the dual ascent's bound."""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass

import numpy as np

from gfviz.gromov.couplings import swap_match
from gfviz.gromov.dual import QuadraticDual
from gfviz.gromov.problem import Problem


@dataclass(frozen=True)
class Search:
    """Where the search ended: the bound proven on Σ (C_ik − D_jl)², the best permutation, whether nothing is left
    open."""

    bound: float
    match: np.ndarray
    complete: bool
    nodes: int


def _objective(c: np.ndarray, d: np.ndarray, match: np.ndarray) -> float:
    gap = c - d[np.ix_(match, match)]
    return float(np.vdot(gap, gap))


def branch_and_bound(
    problem: Problem, match: np.ndarray, root: QuadraticDual, nodes: int, sweeps: int, deadline: float = np.inf
) -> Search:
    """Best-first search from `root`, whose bound may have been raised already; at most `nodes` subproblems are bounded.

    A subproblem is closed when its bound is within rounding of the best permutation, one of two or fewer nodes is
    solved. Each branches on the row whose reduced linear costs leave the fewest columns (then the largest sum).
    """
    c, d, n = problem.a.dense, problem.b.dense, problem.a.n
    best, best_match = _objective(c, d, match), match
    slack = problem.margin * n * n
    ticket = itertools.count()
    if not root.swept:
        root.sweep()  # only then are the costs non-negative, and what remains of them bounds a branch
    Entry = tuple[float, int, QuadraticDual, np.ndarray, np.ndarray, dict[int, int]]
    heap: list[Entry] = [(root.bound, next(ticket), root, np.arange(n), np.arange(n), {})]
    closed, seen = np.inf, 0  # the least bound of what was closed
    while heap:
        bound, _, dual, rows, cols, fixed = heap[0]
        if bound - dual.error >= best - slack:
            closed = min(closed, bound - dual.error)
            heapq.heappop(heap)
            continue
        if seen >= nodes or time.perf_counter() > deadline:
            break
        heapq.heappop(heap)
        row = _branch_row(dual, best)
        for column in np.argsort(dual.leader[row], kind="stable"):
            low = dual.bound + float(dual.leader[row, column]) - dual.error
            if low >= best - slack:
                closed = min(closed, low)
                continue
            child = dual.fix(row, int(column))
            child_rows, child_cols = np.delete(rows, row), np.delete(cols, column)
            child_fixed = {**fixed, int(rows[row]): int(cols[column])}
            seen += 1
            if len(child_rows):
                child.ascend(sweeps, best - slack, deadline)
            found = _complete(n, child, child_rows, child_cols, child_fixed)
            found = swap_match(c, d, found) if len(child_rows) else found
            value = _objective(c, d, found)
            if value < best:
                best, best_match = value, found
            if len(child_rows) == 0:
                closed = min(closed, value)
            else:
                heapq.heappush(heap, (child.bound, next(ticket), child, child_rows, child_cols, child_fixed))
    open_bound = min((entry[0] - entry[2].error for entry in heap), default=np.inf)
    return Search(min(closed, open_bound, best), best_match, not heap, seen)


def _branch_row(dual: QuadraticDual, best: float) -> int:
    room = best - dual.bound
    alive = (dual.leader < room).sum(axis=1)
    return int(np.lexsort((-np.minimum(dual.leader, room).sum(axis=1), alive))[0])


def _complete(n: int, dual: QuadraticDual, rows: np.ndarray, cols: np.ndarray, fixed: dict[int, int]) -> np.ndarray:
    match = np.empty(n, dtype=np.int64)
    for i, j in fixed.items():
        match[i] = j
    if len(rows):
        inner = dual.match if dual.match is not None else np.arange(len(rows))
        match[rows] = cols[inner]
    return match
