"""The rungs, and the ladder that runs them inside a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.gromov import native
from gfviz.gromov.actions import Outcome
from gfviz.gromov.problem import Problem, State
from gfviz.gromov.result import GromovResult, RungRecord, Side
from gfviz.gromov.rungs import LADDERS, RUNGS, Rung
from gfviz.gromov.sources import Source
from gfviz.gromov.transport import Plan, load_solver
from gfviz.lazy import sparse as sp

BUDGETS = tuple(LADDERS)
"""Names of the fixed budgets, cheapest first."""

CEILINGS = {"fast": 2.0, "standard": 5.0, "thorough": 60.0}
"""Seconds that a rung of a named budget may be predicted to take; the cost model is the same on any machine."""

LARGEST_MISPLACED = 1e-9
"""Mass that a plan may have in the wrong place, all told; its cost is added to the upper end."""

LEAST_WORTH = 0.01
"""Share of the open gap that any rung is expected to win, in a budget of seconds."""

TYPICAL_MATCHING = 1.05
"""What `Rung.typical` would be of the couplings that lower bounds leave behind (the study's: 1.00 to 1.27)."""

OnRung = Callable[[RungRecord, float, float], None]
"""Called after every rung with its record and the interval so far."""


@dataclass(frozen=True)
class Prediction:
    """What a rung is expected to take; `reason` says why it would be left out, empty where it would run."""

    rung: str
    seconds: float
    bytes: float
    reason: str


def gromov_wasserstein(
    a: Source,
    b: Source,
    p: float = 2,
    budget: str | float = "standard",
    weights: Any = None,
    on_rung: OnRung | None = None,
) -> GromovResult:
    """Certified interval of the Gromov–Wasserstein distance GW_p of two graphs or symmetric arrays.

    GW_p(C, D)^p = min over couplings π of Σ |C_ik − D_jl|^p π_ij π_kl; the result holds GW_p itself (root taken).

    Args:
        a, b: graphs (their own node weights) or symmetric arrays [n, n], [m, m] (uniform weights).
        p: exponent, >= 1.
        budget: "fast", "standard" or "thorough", fixed nested lists of rungs (the same interval anywhere, a larger
            budget never a wider one), or a number of seconds, within which rungs run by value per second.
        weights: (p, q) node weights in place of uniform or the graphs' own; normalised to sum 1.
        on_rung: called after each rung with (record, lower, upper), values in the units of the input.

    Returns: a `GromovResult`. A KeyboardInterrupt ends the work early and returns what is proven so far, with a note.
    Raises `GfvizError` for asymmetric, non-finite, empty or otherwise unusable input.
    Cost: see `predict_cost`. Formulas: MATH.md section 3 (Mémoli 2011; Gilmore 1962, Lawler 1963; Hadley et al. 1992).

    >>> result = gromov_wasserstein([[0., 1.], [1., 0.]], [[0., 3.], [3., 0.]])
    >>> round(result.lower, 6) <= round(2 ** 0.5, 6) <= round(result.upper, 6)
    True
    """
    limit = _seconds(budget)
    started = time.perf_counter()
    problem = Problem(a, b, p, weights)
    if needs_solver(problem, budget):
        started += load_solver()
    ceiling = CEILINGS[budget] if isinstance(budget, str) else math.inf
    climb = _Climb(problem, on_rung, started + limit, ceiling)
    note = ""
    try:
        if isinstance(budget, str):
            for name in LADDERS[budget]:
                climb.step(RUNGS[name])
        else:
            climb.spend()
    except KeyboardInterrupt:
        note = "interrupted: this is what was proven until then"
    if climb.state.plan is None:
        climb.step(RUNGS["sorted_coupling"])
    return climb.result(budget, note)


def predict_cost(
    a: Source,
    b: Source,
    p: float = 2,
    budget: str | float = "standard",
    weights: Any = None,
    alone: bool = False,
) -> list[Prediction]:
    """Predicted seconds (one core) and bytes of each rung of a budget on this pair.

    A named budget runs them in this order; a budget in seconds chooses the next by what is known of the pair by then.
    `alone`: reasons are those for which `run_rung` would refuse; a ladder also leaves out what another rung exceeds.
    """
    problem = Problem(a, b, p, weights)
    _seconds(budget)
    names = LADDERS[budget] if isinstance(budget, str) else LADDERS["thorough"]
    found = []
    for name in names:
        rung = RUNGS[name]
        seconds, size = rung.cost(problem)
        found.append(Prediction(name, seconds, size, rung.reason(problem, alone) or ""))
    return found


def run_rung(name: str, a: Source, b: Source, p: float = 2, weights: Any = None) -> RungRecord:
    """Run one rung alone (after the sorted coupling, from which the local searches start) and return its record.

    Raises `GfvizError` where the rung does not exist or is not valid for this pair.
    """
    if name not in RUNGS:
        raise GfvizError(f"no rung is called {name!r}: choose one of {', '.join(RUNGS)}")
    climb = _Climb(Problem(a, b, p, weights), None, math.inf)
    reason = RUNGS[name].reason(climb.problem, alone=True)
    if reason:
        raise GfvizError(f"{name} does not hold for this pair: {reason}")
    if name != "sorted_coupling":
        climb.step(RUNGS["sorted_coupling"])
    climb.records.clear()
    climb.step(RUNGS[name], always=True)
    return climb.records[0]


def needs_solver(problem: Problem, budget: str | float) -> bool:
    """Whether POT will be asked, which is imported before the time of a budget begins."""
    if problem.assignable:
        return False
    return native.library() is None or not problem.psd or budget not in ("fast", "standard")


def _seconds(budget: str | float) -> float:
    if isinstance(budget, str):
        if budget not in LADDERS:
            raise GfvizError(f"budget {budget!r} is unknown: choose {', '.join(LADDERS)} or a number of seconds")
        return math.inf
    if not (isinstance(budget, (int, float)) and budget > 0):
        raise GfvizError(f"budget {budget!r} is not a positive number of seconds")
    return float(budget)


class _Climb:
    """One run up the ladder."""

    def __init__(self, problem: Problem, on_rung: OnRung | None, deadline: float, ceiling: float = math.inf) -> None:
        self.problem, self.on_rung, self.ceiling = problem, on_rung, ceiling
        self.state = State(deadline=deadline)
        self.records: list[RungRecord] = []

    def step(self, rung: Rung, always: bool = False) -> None:
        """Run a rung, or record why not; `always`: whatever it is predicted to take or to be good for."""
        reason = rung.reason(self.problem, alone=always)
        if not always and not reason:
            if self.state.proof:
                reason = "not needed: the interval is closed"
            elif rung.cost(self.problem)[0] > self.ceiling:
                reason = f"more than {self.ceiling:g} s predicted: give a budget in seconds"
        if reason:
            self._record(RungRecord(rung.name, rung.side, None, 0.0, False, reason))
            return
        begun = time.perf_counter()
        outcome = rung.run(self.problem, self.state)
        seconds = time.perf_counter() - begun
        for record in self._take(rung, outcome, seconds):
            self._record(record)

    def spend(self) -> None:
        """Run what a budget in seconds has room for, each time the rung worth most a second on what is known by then.

        The two of the sorted form, which cost next to nothing, come first: without them nothing is known of the pair.
        """
        left = [RUNGS[name] for name in LADDERS["thorough"]]
        for rung in left[:2]:
            self.step(rung)
        left = left[2:]
        while left and not self.state.proof:
            fitting = [rung for rung in left if not rung.reason(self.problem) and not self._too_long(rung)]
            if not fitting:
                break
            rung = max(fitting, key=self.worth)
            left.remove(rung)
            self.step(rung)
        for rung in left:
            reason = "" if rung.reason(self.problem) or self.state.proof else self._too_long(rung)
            if reason:
                self._record(RungRecord(rung.name, rung.side, None, 0.0, False, reason))
            else:
                self.step(rung)

    def _too_long(self, rung: Rung) -> str:
        seconds, remaining = rung.cost(self.problem)[0], self.state.deadline - time.perf_counter()
        fits = remaining > 0 and (seconds <= remaining or rung.interruptible)
        return "" if fits else f"{seconds:.2g} s predicted, {max(remaining, 0.0):.2g} s left"

    def worth(self, rung: Rung) -> float:
        """Share of the upper end that the rung is expected to win, per predicted second.

        The rungs that gave the two ends are believed to have reached their typical share of the distance, which lies
        between what the two say; this one is believed to reach its own. One that would then win nothing may still, on a
        pair unlike the study's: `LEAST_WORTH` of the open gap.
        """
        state, low, high = self.state, self.problem.value(self.state.lower), self.problem.value(self.state.upper)
        from_below = min(low / RUNGS[state.lower_rung].typical, high) if state.lower_rung else high
        above = RUNGS[state.upper_rung]
        from_above = max(high / (above.typical if above.side == "upper" else TYPICAL_MATCHING), low)
        reached = rung.typical * (from_below + from_above) / 2
        won = reached - low if rung.side == "lower" else high - reached
        return max(won, LEAST_WORTH * (high - low)) / (high * rung.cost(self.problem)[0])

    def _take(self, rung: Rung, outcome: Outcome, seconds: float) -> list[RungRecord]:
        problem, state, records = self.problem, self.state, []
        for side, found in (("lower", outcome.lower is not None), ("upper", outcome.plan is not None)):
            if not found and side != rung.side:
                continue
            value: float | None = None
            if side == "lower" and outcome.lower is not None:
                bound = problem.outward_lower(outcome.lower)
                value = problem.value(bound)
                if bound > state.lower:
                    state.lower, state.lower_rung = bound, rung.name
            note = outcome.note
            misplaced = problem.misplaced(outcome.plan) if side == "upper" and outcome.plan is not None else 0.0
            if side == "upper" and misplaced > LARGEST_MISPLACED:
                note = "left out: the solver returned a plan with other marginals"
            elif side == "upper" and outcome.plan is not None:
                bound = problem.objective(outcome.plan)[1] + problem.surcharge(misplaced)
                value = problem.value(bound)
                if bound < state.upper:
                    state.upper, state.upper_rung, state.plan = bound, rung.name, outcome.plan
            records.append(
                RungRecord(rung.name, side_of(side), value, seconds if side == rung.side else 0.0, True, note)
            )
        self._settle(outcome)
        return records

    def _settle(self, outcome: Outcome) -> None:
        state = self.state
        # Two computations of one number may cross by their rounding; the interval then is that number's.
        state.lower = min(state.lower, state.upper)
        if outcome.proof:
            state.proof = outcome.proof
        elif not state.proof and state.upper < math.inf:
            low, high = self.problem.value(state.lower), self.problem.value(state.upper)
            if high == 0 or high - low < 1e-9 * high:
                state.proof = "bounds meet"

    def _record(self, record: RungRecord) -> None:
        self.records.append(record)
        if self.on_rung is not None:
            self.on_rung(record, self.problem.value(self.state.lower), self.problem.value(self.state.upper))

    def result(self, budget: str | float, note: str) -> GromovResult:
        problem, state = self.problem, self.state
        assert state.plan is not None
        return GromovResult(
            lower=problem.value(state.lower),
            upper=problem.value(state.upper),
            proof=state.proof,  # type: ignore[arg-type]
            coupling=full_coupling(problem, state.plan),
            rungs=tuple(self.records),
            lower_rung=state.lower_rung,
            upper_rung=state.upper_rung,
            p=problem.p,
            n=problem.a.size,
            m=problem.b.size,
            budget=budget,
            seconds=math.fsum(record.seconds for record in self.records),
            note=note,
        )


def side_of(name: str) -> Side:
    return "lower" if name == "lower" else "upper"


def full_coupling(problem: Problem, plan: Plan) -> sp.csr_array:
    """The plan as csr [n, m] over all nodes, those of zero weight included."""
    rows, cols = problem.a.support[plan.rows], problem.b.support[plan.cols]
    return sp.csr_array((np.asarray(plan.mass), (rows, cols)), shape=(problem.a.size, problem.b.size))
