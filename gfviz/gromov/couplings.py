"""Upper bounds: couplings to start from, conditional gradient, and exchange of mass."""

from __future__ import annotations

import ctypes
import time

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.gromov.network import MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan, monotone_plan


def sort_keys(network: MeasureNetwork) -> dict[str, np.ndarray]:
    """Numbers by which nodes may be sorted against each other: row means, diagonal, row norms."""
    keys = {"row means": network.row_means, "diagonal": network.diagonal}
    if network.is_dense:
        keys["row norms"] = (network.dense**2) @ network.weights
    return keys


def sorted_coupling(problem: Problem) -> Plan:
    """The monotone coupling of the row means."""
    return monotone_plan(problem.a.row_means, problem.a.weights, problem.b.row_means, problem.b.weights)


def key_couplings(problem: Problem) -> list[Plan]:
    """Monotone couplings by each key that both sides have (row means apart), and by leading eigenvectors."""
    left, right = sort_keys(problem.a), sort_keys(problem.b)
    p, q = problem.a.weights, problem.b.weights
    plans = [monotone_plan(left[k], p, right[k], q) for k in left if k in right and k != "row means"]
    if problem.dense and problem.p == 2:
        u, v = _leading_vector(problem.a), _leading_vector(problem.b)
        plans += [monotone_plan(u, p, v, q), monotone_plan(u, p, v, q, descending=True)]
    return plans


def _leading_vector(network: MeasureNetwork) -> np.ndarray:
    values, vectors = np.linalg.eigh(network.rest)
    return vectors[:, np.argmax(np.abs(values))] / np.sqrt(network.weights)


def conditional_gradient(problem: Problem, start: Plan, limit: int = 50, deadline: float = np.inf) -> Plan:
    """Frank–Wolfe on the p = 2 objective of a dense pair from `start`; on PSD pairs every step has length 1.

    The objective is concave there, so each step is the whole way to the plan that the gradient prefers, which is a
    vertex. On other pairs a step is taken only if it improves. One product and one transport problem a step.
    """
    c, d = problem.a.dense, problem.b.dense
    cheapest = problem.cheapest()
    plan, best = start, overlap(problem, start)
    for _ in range(limit):
        moved = transported(c, plan, d)
        step = cheapest.solve(moved.max() - moved)[0]
        reached = overlap(problem, step)
        if reached <= best * (1 + 1e-14) or time.perf_counter() > deadline:
            break
        plan, best = step, reached
    return plan


def interior_gradient(problem: Problem, lean: Plan | None = None, limit: int = 40, deadline: float = np.inf) -> Plan:
    """Frank–Wolfe with exact line search, p = 2, from the product coupling or halfway from it to `lean`: for indefinite
    pairs, whose best coupling may split mass anywhere. The steps are POT's (Vayer et al. 2019), on the scaled problem.
    Two products a step. Nearly all that converge do in 30 steps; on ties some zigzag on for hundreds and gain nothing.
    """
    c, d, p, q = problem.a.dense, problem.b.dense, problem.a.weights, problem.b.weights
    plan = np.multiply.outer(p, q)
    if lean is not None:
        plan = (plan + lean.matrix(len(p), len(q)).toarray()) / 2
    field = c @ plan @ d
    value = float(np.vdot(field, plan))
    cheapest = problem.cheapest()
    for _ in range(limit):
        step = cheapest.solve(field.max() - field)[0]
        towards = transported(c, step, d)
        # overlap(π + τ(s − π)) = value + 2τ·slope + τ²·bend
        own = float(step.mass @ towards[step.rows, step.cols])
        cross = float(step.mass @ field[step.rows, step.cols])
        slope, bend = cross - value, own - 2 * cross + value
        tau = min(1.0, -slope / bend) if bend < 0 else 1.0
        gained = tau * (2 * slope + tau * bend)
        if gained <= 1e-10 * abs(value) or time.perf_counter() > deadline:
            break
        plan *= 1 - tau
        plan[step.rows, step.cols] += tau * step.mass
        field += tau * (towards - field)
        value += gained
    rows, cols = np.nonzero(plan)
    return Plan(rows, cols, plan[rows, cols])


def transported(c: np.ndarray, plan: Plan, d: np.ndarray) -> np.ndarray:
    """C π D [n, m] of a sparse plan."""
    n, m = len(c), len(d)
    if len(plan.rows) <= n + m:
        return (c[:, plan.rows] * plan.mass) @ d[plan.cols]
    if n <= m:
        half = np.zeros((n, m))
        np.add.at(half.T, plan.cols, (c[:, plan.rows] * plan.mass).T)
        return half @ d
    half = np.zeros((n, m))
    np.add.at(half, plan.rows, d[plan.cols] * plan.mass[:, None])
    return c @ half


def overlap(problem: Problem, plan: Plan) -> float:
    """Σ C_ik D_jl π_ij π_kl of a dense pair."""
    c, d = problem.a.dense, problem.b.dense
    if len(plan.rows) <= 4096:
        both = c[plan.rows][:, plan.rows] * d[plan.cols][:, plan.cols]
        return float(plan.mass @ both @ plan.mass)
    return float((transported(c, plan, d)[plan.rows, plan.cols]) @ plan.mass)


def swap_match(c: np.ndarray, d: np.ndarray, match: np.ndarray, deadline: float = np.inf) -> np.ndarray:
    """`swap`, compiled where there is a compiler."""
    library = native.library()
    if library is None:
        return swap(c, d, match, deadline)
    c, found = np.ascontiguousarray(c), np.ascontiguousarray(match, dtype=np.int32).copy()
    e = np.ascontiguousarray(d[np.ix_(match, match)])
    g = c @ e
    floor = ctypes.c_double(1e-14 * float(np.abs(np.diagonal(g)).sum()))
    arrays = pointers(c, e, g, found)
    # some hundred swaps at a time, so that a deadline and Ctrl-C are heard
    while library.gfviz_swap(len(c), *arrays, floor, 256) == 256 and time.perf_counter() < deadline:
        continue
    return found.astype(np.int64)


def swap(c: np.ndarray, d: np.ndarray, match: np.ndarray, deadline: float = np.inf) -> np.ndarray:
    """Pairwise exchange on a permutation until no swap raises Σ C_ik D_π(i)π(k) (p = 2); the best swap each time.

    All n² deltas come from G = C·D_ππ in O(n²), and a swap changes G by a column swap and one rank-one term.
    """
    match = match.copy()
    e = d[np.ix_(match, match)]
    g = c @ e
    dc = np.diagonal(c)
    spread = dc[:, None] + dc[None, :] - 2 * c
    floor = 1e-14 * float(np.abs(np.diagonal(g)).sum())
    n = len(c)
    while time.perf_counter() < deadline:
        dg, de = np.diagonal(g), np.diagonal(e)
        gain = g - dg[:, None]
        gain = 2 * (gain + gain.T)
        gain += spread * (de[:, None] + de[None, :] - 2 * e)
        i, k = divmod(int(gain.argmax()), n)
        if gain[i, k] <= floor:
            break
        match[i], match[k] = match[k], match[i]
        g += np.multiply.outer(c[:, i] - c[:, k], e[k] - e[i])
        e[[i, k]] = e[[k, i]]
        e[:, [i, k]] = e[:, [k, i]]
        g[:, [i, k]] = g[:, [k, i]]
    return match
