"""The rungs of the ladder, one small object each, and the named budgets that list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gfviz.gromov import ascent, bounds, branch, costs, couplings, dual, enumeration, exchange, heads, projected, rows
from gfviz.gromov.problem import Problem, State
from gfviz.gromov.result import Side
from gfviz.gromov.transport import Plan

ROWS_CELLS = 40_000_000
"""Largest n·m for which a cost matrix between nodes is made: 320 MB."""


@dataclass(frozen=True)
class Outcome:
    """What a rung found: a bound on GW_p^p before rounding outward, or a coupling, or both; and a proof, if it is
    one."""

    lower: float | None = None
    plan: Plan | None = None
    proof: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Rung:
    """A bound or a search: its name, the end it moves, what it needs, what it costs, and the computation.

    `needs` are predicates on the problem, each with the reason to give where it fails; `cost` predicts (seconds, bytes)
    on one core; `interruptible` rungs stop by themselves at the state's deadline.
    """

    name: str
    side: Side
    run: Callable[[Problem, State], Outcome]
    cost: Callable[[Problem], tuple[float, float]]
    needs: tuple[tuple[Callable[[Problem], bool], str], ...] = ()
    interruptible: bool = False

    def reason(self, problem: Problem) -> str | None:
        """Why the rung must be left out on this pair, or None."""
        for holds, otherwise in self.needs:
            if not holds(problem):
                return otherwise
        return None


SQUARE_LOSS = (lambda problem: problem.p == 2, "needs p = 2")
DENSE = (lambda problem: problem.dense, "needs the matrices themselves: too many nodes")
INDEFINITE = (lambda problem: not problem.psd, "not needed: PSD pairs have a vertex for an optimum")
LARGE = (lambda problem: not problem.dense, "made for graphs too large for a matrix")
SMALL = (lambda problem: problem.a.n * problem.b.n <= ROWS_CELLS, "needs a matrix of n·m costs: too many nodes")


UNIFORM = (lambda problem: problem.square, "needs n = m and uniform weights")


def _assignable(problem: Problem) -> bool:
    return problem.assignable


ASSIGNABLE = (_assignable, "needs p = 2, PSD matrices, n = m and uniform weights")


def _entries_known(problem: Problem) -> bool:
    return problem.a.listable and problem.b.listable


def _entries(problem: Problem, state: State) -> Outcome:
    return Outcome(lower=bounds.entries_bound(problem))


def _rows(problem: Problem, state: State) -> Outcome:
    value, plan = rows.rows_bound(problem)
    state.starts.append(plan)
    return Outcome(lower=value, plan=plan)


def _gilmore_lawler(problem: Problem, state: State) -> Outcome:
    value, plan = rows.gilmore_lawler_bound(problem)
    state.starts.append(plan)
    return Outcome(lower=value, plan=plan)


def _best(problem: Problem, plans: list[Plan]) -> Plan:
    return min(plans, key=lambda plan: problem.objective(plan)[0])


def _keys(problem: Problem, state: State) -> Outcome:
    plans = couplings.key_couplings(problem)
    state.starts += plans
    return Outcome(plan=_best(problem, plans))


def _conditional_gradient(problem: Problem, state: State) -> Outcome:
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


def _exchange(problem: Problem, state: State, work: float) -> Outcome:
    assert state.plan is not None
    start = state.plan
    if len(start.rows) > 2 * (problem.a.n + problem.b.n):  # an interior coupling has no few cells to exchange between
        start = _best(problem, [couplings.sorted_coupling(problem), *state.starts])
    return Outcome(plan=polish(problem, start, state.deadline, costs.moves(problem, work)))


def _multistart(problem: Problem, state: State) -> Outcome:
    rng = np.random.default_rng(0)
    plans = [polish(problem, start, state.deadline) for start in state.starts]
    if problem.square:
        plans += [polish(problem, Plan.permutation(rng.permutation(problem.a.n)), state.deadline) for _ in range(8)]
    return Outcome(plan=_best(problem, plans)) if plans else Outcome()


def _ascend(problem: Problem, state: State, iterations: int) -> Outcome:
    n = problem.a.n
    if "skew" not in state.memory:
        state.memory["skew"] = ascent.SkewDual.at_zero(problem.a.dense, problem.b.dense, problem.assignable)
    dual = state.memory["skew"]
    dual.ascend(iterations, state.upper * n * n, state.deadline)
    plan = dual.plan()
    if plan is not None:
        state.starts.append(plan)
    return Outcome(lower=dual.value / n**2, plan=plan)


def _project(problem: Problem, state: State, steps: int) -> Outcome:
    if "projected" not in state.memory:
        state.memory["projected"] = projected.ProjectedProgram(problem)
    program = state.memory["projected"]
    # It starts as `spectral` and rarely gains more than half: below that it is left where it is.
    program.descend(1, state.upper)
    if program.bound < 0.4 * state.lower:
        return Outcome(lower=program.bound, note="stopped: far below the lower end")
    plan = program.descend(steps - 1, state.upper, state.deadline)
    return Outcome(lower=program.bound, plan=plan)


def _dual(problem: Problem, state: State, sweeps: int) -> Outcome:
    n = problem.a.n
    if "dual" not in state.memory:
        state.memory["dual"] = dual.QuadraticDual.of(problem.a.dense, problem.b.dense, problem.assignable)
    quadratic = state.memory["dual"]
    quadratic.ascend(sweeps, state.upper * n * n, state.deadline, dual.MOMENTUM)
    match = couplings.swap_match(problem.a.dense, problem.b.dense, quadratic.match, state.deadline)
    return Outcome(lower=quadratic.best / n**2, plan=Plan.permutation(match))


def _branch(problem: Problem, state: State, nodes: int) -> Outcome:
    n = problem.a.n
    assert state.plan is not None
    match = state.plan.match()
    root = state.memory.get("dual") or dual.QuadraticDual.of(problem.a.dense, problem.b.dense)
    found = branch.branch_and_bound(problem, np.arange(n) if match is None else match, root, nodes, 12, state.deadline)
    proof = "branch and bound" if found.complete else None
    return Outcome(found.bound / n**2, Plan.permutation(found.match), proof, f"{found.nodes} subproblems")


def _enumerate(problem: Problem, state: State) -> Outcome:
    match = enumeration.enumerate_matches(problem, state.upper)
    plan = state.plan if match is None else Plan.permutation(match)
    assert plan is not None
    value = min(problem.objective(plan)[0], state.upper)
    return Outcome(lower=value, plan=plan, proof="enumeration")


def _interior(problem: Problem, state: State) -> Outcome:
    leans = [None, *state.starts[-2:], state.plan]
    plans = [couplings.interior_gradient(problem, lean, deadline=state.deadline) for lean in leans]
    return Outcome(plan=_best(problem, plans))


def _heads(problem: Problem, state: State, size: int) -> Outcome:
    return Outcome(plan=heads.head_plan(problem, size, state.deadline), note=f"{size} heaviest nodes matched")


def _pot(problem: Problem, state: State) -> Outcome:
    import ot

    plan = np.asarray(
        ot.gromov.gromov_wasserstein(
            problem.a.dense, problem.b.dense, problem.a.weights, problem.b.weights, "square_loss", symmetric=True
        )
    )
    kept_rows, kept_cols = np.nonzero(plan)
    return Outcome(plan=Plan(kept_rows, kept_cols, plan[kept_rows, kept_cols]))


def _up_to(n: int) -> tuple[Callable[[Problem], bool], str]:
    return (lambda problem: problem.a.n <= n, f"needs n <= {n}: its costs grow as n⁴")


_CATALOGUE = (
    Rung("sorted", "lower", lambda problem, state: Outcome(lower=bounds.sorted_bound(problem)), costs.line),
    Rung(
        "sorted_coupling", "upper", lambda problem, state: Outcome(plan=couplings.sorted_coupling(problem)), costs.line
    ),
    Rung(
        "centred",
        "lower",
        lambda problem, state: Outcome(lower=bounds.centred_bound(problem)),
        costs.norm,
        (SQUARE_LOSS,),
    ),
    Rung(
        "gilmore_lawler", "lower", _gilmore_lawler, lambda problem: costs.matrix(problem, 3, 1e-9), (ASSIGNABLE, DENSE)
    ),
    Rung("rows", "lower", _rows, costs.rows, (DENSE, SMALL)),
    Rung("entries", "lower", _entries, costs.entries, (DENSE,)),
    Rung(
        "sparse_entries",
        "lower",
        _entries,
        costs.entries,
        (LARGE, (_entries_known, "needs the entries of C: too many to list")),
    ),
    Rung(
        "heads",
        "upper",
        lambda problem, state: _heads(problem, state, 256),
        lambda problem: (0.3, 3e7),
        (SQUARE_LOSS, LARGE),
    ),
    Rung(
        "spectral",
        "lower",
        lambda problem, state: Outcome(lower=bounds.spectral_bound(problem)),
        costs.spectrum,
        (SQUARE_LOSS,),
    ),
    Rung(
        "conditional_gradient",
        "upper",
        _conditional_gradient,
        lambda problem: costs.matrix(problem, 3, 5e-9),
        (SQUARE_LOSS, DENSE),
        True,
    ),
    Rung(
        "pot_indefinite",
        "upper",
        _pot,
        lambda problem: costs.matrix(problem, 3, 1e-7),
        # on PSD pairs conditional_gradient takes POT's own path; on others ties part them, so POT itself is asked
        (SQUARE_LOSS, DENSE, INDEFINITE),
    ),
    Rung(
        "interior",
        "upper",
        _interior,
        lambda problem: costs.matrix(problem, 3, 1e-7),
        (SQUARE_LOSS, DENSE, INDEFINITE),
        True,
    ),
    Rung(
        "exchange",
        "upper",
        lambda problem, state: _exchange(problem, state, 5e9),
        lambda problem: costs.exchange(problem, 5e9),
        (DENSE,),
        True,
    ),
    Rung(
        "ascent",
        "lower",
        lambda problem, state: _ascend(problem, state, 48),
        lambda problem: costs.matrix(problem, 2, 48 * 1e-7),
        (SQUARE_LOSS, UNIFORM, DENSE),
        True,
    ),
    Rung(
        "projected",
        "lower",
        lambda problem, state: _project(problem, state, 30),
        lambda problem: costs.matrix(problem, 3, 30 * 2e-9 if problem.square else 30 * 1e-8),
        (SQUARE_LOSS, DENSE),
        True,
    ),
    Rung(
        "enumeration",
        "lower",
        _enumerate,
        lambda problem: (0.2, 1e8),
        (ASSIGNABLE, DENSE, (lambda problem: problem.a.n <= enumeration.LIMIT, "needs n <= 9")),
    ),
    Rung(
        "dual",
        "lower",
        lambda problem, state: _dual(problem, state, 40),
        lambda problem: costs.dual(problem, 40),
        (SQUARE_LOSS, UNIFORM, DENSE, _up_to(16)),
        True,
    ),
    Rung(
        "branch",
        "lower",
        lambda problem, state: _branch(problem, state, 60),
        lambda problem: costs.dual(problem, 12 * 60),
        (ASSIGNABLE, DENSE, _up_to(14)),
        True,
    ),
    Rung(
        "long_projected",
        "lower",
        lambda problem, state: _project(problem, state, 400),
        lambda problem: costs.matrix(problem, 3, 400 * 2e-9 if problem.square else 400 * 1e-8),
        (SQUARE_LOSS, DENSE),
        True,
    ),
    Rung(
        "long_dual",
        "lower",
        lambda problem, state: _dual(problem, state, costs.sweeps(problem)),
        lambda problem: costs.dual(problem, costs.sweeps(problem)),
        (SQUARE_LOSS, UNIFORM, DENSE, _up_to(80)),
        True,
    ),
    Rung(
        "long_branch",
        "lower",
        lambda problem, state: _branch(problem, state, costs.nodes(problem)),
        lambda problem: costs.dual(problem, 12 * costs.nodes(problem)),
        (ASSIGNABLE, DENSE, _up_to(20)),
        True,
    ),
    Rung(
        "more_heads",
        "upper",
        lambda problem, state: _heads(problem, state, 512),
        lambda problem: (1.5, 1e8),
        (SQUARE_LOSS, LARGE),
        True,
    ),
    Rung(
        "long_exchange",
        "upper",
        lambda problem, state: _exchange(problem, state, 5e10),
        lambda problem: costs.exchange(problem, 5e10),
        (
            DENSE,
            (lambda problem: problem.p == 2 and problem.a.n * problem.b.n > 1e6, "not needed: nothing was cut short"),
        ),
        True,
    ),
    Rung("other_keys", "upper", _keys, lambda problem: costs.matrix(problem, 3, 1e-9)),
    Rung("pot", "upper", _pot, lambda problem: costs.matrix(problem, 3, 1e-8), (SQUARE_LOSS, DENSE)),
    Rung("multistart", "upper", _multistart, lambda problem: costs.matrix(problem, 3, 3e-7), (DENSE,), True),
    Rung(
        "long_ascent",
        "lower",
        lambda problem, state: _ascend(problem, state, 2000),
        lambda problem: costs.matrix(problem, 2, 2000 * 1e-7),
        (SQUARE_LOSS, UNIFORM, DENSE),
        True,
    ),
)
RUNGS = {rung.name: rung for rung in _CATALOGUE}

_FAST = ("sorted", "sorted_coupling", "centred", "gilmore_lawler", "rows")
_STANDARD = (
    *(
        *_FAST,
        "entries",
        "sparse_entries",
        "spectral",
        "heads",
        "conditional_gradient",
        "interior",
        "pot_indefinite",
        "exchange",
    ),
    *("enumeration", "projected", "ascent", "dual", "branch"),
)
LADDERS: dict[str, tuple[str, ...]] = {
    "fast": _FAST,
    "standard": _STANDARD,
    "thorough": (
        *_STANDARD,
        "more_heads",
        "other_keys",
        "long_exchange",
        "pot",
        "multistart",
        "long_projected",
        "long_dual",
        "long_branch",
        "long_ascent",
    ),
}
