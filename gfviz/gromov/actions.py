"""What the rungs do: each takes the pair and what is known so far, and returns a bound, a coupling, or both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gfviz.gromov import ascent, bounds, branch, costs, couplings, dual, enumeration, exchange, heads, projected, rows
from gfviz.gromov.problem import Problem, State
from gfviz.gromov.transport import Plan


@dataclass(frozen=True)
class Outcome:
    """What a rung found: a bound on GW_p^p before rounding outward, or a coupling, or both; and a proof, if it is
    one."""

    lower: float | None = None
    plan: Plan | None = None
    proof: str | None = None
    note: str = ""


def bound_entries(problem: Problem, state: State) -> Outcome:
    return Outcome(lower=bounds.entries_bound(problem))


def bound_rows(problem: Problem, state: State) -> Outcome:
    value, plan = rows.rows_bound(problem)
    state.starts.append(plan)
    return Outcome(lower=value, plan=plan)


def bound_exact_rows(problem: Problem, state: State) -> Outcome:
    value, plan = rows.rows_bound(problem, exact=True)
    state.starts.append(plan)
    return Outcome(lower=value, plan=plan)


def bound_gilmore_lawler(problem: Problem, state: State) -> Outcome:
    value, plan = rows.gilmore_lawler_bound(problem)
    state.starts.append(plan)
    return Outcome(lower=value, plan=plan)


def _best(problem: Problem, plans: list[Plan]) -> Plan:
    return min(plans, key=lambda plan: problem.objective(plan)[0])


def try_keys(problem: Problem, state: State) -> Outcome:
    plans = couplings.key_couplings(problem)
    state.starts += plans
    return Outcome(plan=_best(problem, plans))


def follow_gradient(problem: Problem, state: State) -> Outcome:
    assert state.plan is not None
    starts = [couplings.sorted_coupling(problem), state.plan]
    plans = [couplings.conditional_gradient(problem, start, deadline=state.deadline) for start in starts]
    state.starts += plans
    return Outcome(plan=_best(problem, plans))


def polish(problem: Problem, plan: Plan, deadline: float, moves: float = np.inf) -> Plan:
    """Exchange from `plan` until none improves: swaps on permutations with p = 2, cycles (up to `moves`) elsewhere."""
    match = plan.match() if problem.square and problem.p == 2 else None
    if match is None:
        return exchange.exchange(problem, plan, deadline=deadline, moves=moves)
    better = couplings.swap_match(problem.a.dense, problem.b.dense, match, deadline)
    if problem.assignable:
        return Plan.permutation(better)
    return exchange.exchange(problem, Plan.permutation(better), deadline=deadline, moves=moves)


def exchange_mass(problem: Problem, state: State, work: float) -> Outcome:
    assert state.plan is not None
    start = state.plan
    if len(start.rows) > 2 * (problem.a.n + problem.b.n):  # an interior coupling has no few cells to exchange between
        start = _best(problem, [couplings.sorted_coupling(problem), *state.starts])
    return Outcome(plan=polish(problem, start, state.deadline, costs.moves(problem, work)))


def start_often(problem: Problem, state: State) -> Outcome:
    rng = np.random.default_rng(0)
    plans = [polish(problem, start, state.deadline) for start in state.starts]
    if problem.square:
        plans += [polish(problem, Plan.permutation(rng.permutation(problem.a.n)), state.deadline) for _ in range(8)]
    return Outcome(plan=_best(problem, plans)) if plans else Outcome()


def ascend_skew(problem: Problem, state: State, iterations: int) -> Outcome:
    n = problem.a.n
    if "skew" not in state.memory:
        state.memory["skew"] = ascent.SkewDual.at_zero(problem.a.dense, problem.b.dense, problem.assignable)
    dual = state.memory["skew"]
    dual.ascend(iterations, state.upper * n * n, state.deadline)
    plan = dual.plan()
    if plan is not None:
        state.starts.append(plan)
    return Outcome(lower=dual.value / n**2, plan=plan)


def project(problem: Problem, state: State, steps: int) -> Outcome:
    if "projected" not in state.memory:
        state.memory["projected"] = projected.ProjectedProgram(problem)
    program = state.memory["projected"]
    # It starts as `spectral` and rarely gains more than half: below that it is left where it is.
    program.descend(1, state.upper)
    if program.bound < 0.4 * state.lower:
        return Outcome(lower=program.bound, note="stopped: far below the lower end")
    plan = program.descend(steps - 1, state.upper, state.deadline, state.lower)
    return Outcome(lower=program.bound, plan=plan)


def ascend_dual(problem: Problem, state: State, sweeps: int) -> Outcome:
    n = problem.a.n
    if "dual" not in state.memory:
        state.memory["dual"] = dual.QuadraticDual.of(problem.a.dense, problem.b.dense, problem.assignable)
    quadratic = state.memory["dual"]
    quadratic.ascend(sweeps, state.upper * n * n, state.deadline, dual.MOMENTUM)
    match = couplings.swap_match(problem.a.dense, problem.b.dense, quadratic.match, state.deadline)
    return Outcome(lower=quadratic.best / n**2, plan=Plan.permutation(match))


def ascend_weighted(problem: Problem, state: State, sweeps: int) -> Outcome:
    a, b = problem.a, problem.b
    quadratic = dual.QuadraticDual.weighted(a.dense, a.weights, b.dense, b.weights)
    quadratic.ascend(sweeps, state.upper, state.deadline, dual.WEIGHTED_MOMENTUM)
    return Outcome(lower=quadratic.best, plan=quadratic.plan)


def search_branches(problem: Problem, state: State, nodes: int) -> Outcome:
    n = problem.a.n
    assert state.plan is not None
    match = state.plan.match()
    root = state.memory.get("dual") or dual.QuadraticDual.of(problem.a.dense, problem.b.dense)
    found = branch.branch_and_bound(problem, np.arange(n) if match is None else match, root, nodes, 12, state.deadline)
    proof = "branch and bound" if found.complete else None
    return Outcome(found.bound / n**2, Plan.permutation(found.match), proof, f"{found.nodes} subproblems")


def enumerate_all(problem: Problem, state: State) -> Outcome:
    match = enumeration.enumerate_matches(problem, state.upper)
    plan = state.plan if match is None else Plan.permutation(match)
    assert plan is not None
    value = min(problem.objective(plan)[0], state.upper)
    return Outcome(lower=value, plan=plan, proof="enumeration")


def go_inside(problem: Problem, state: State) -> Outcome:
    leans = [None, *state.starts[-2:], state.plan]
    plans = [couplings.interior_gradient(problem, lean, deadline=state.deadline) for lean in leans]
    return Outcome(plan=_best(problem, plans))


def match_heads(problem: Problem, state: State, size: int) -> Outcome:
    return Outcome(plan=heads.head_plan(problem, size, state.deadline), note=f"{size} heaviest nodes matched")


def ask_pot(problem: Problem, state: State) -> Outcome:
    import ot

    # At a largest entry of one, as a careful user would ask: its tolerances are absolute. From some size on at a
    # quarter, where it stops sooner: at one, 0/1 graphs of 64 nodes take ten times as long and end no better than ours.
    top = max(problem.a.magnitude, problem.b.magnitude) or 1.0
    top *= 1.0 if problem.a.n * problem.b.n <= 1024 else 4.0
    c, d = problem.a.dense / top, problem.b.dense / top
    plan = np.asarray(
        ot.gromov.gromov_wasserstein(c, d, problem.a.weights, problem.b.weights, "square_loss", symmetric=True)
    )
    kept_rows, kept_cols = np.nonzero(plan)
    return Outcome(plan=Plan(kept_rows, kept_cols, plan[kept_rows, kept_cols]))
