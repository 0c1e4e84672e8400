"""The rungs of the ladder, one small object each (what they do: actions.py), and the named budgets that list them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gfviz.gromov import actions, bounds, costs, couplings, enumeration, heads, rows
from gfviz.gromov.actions import Outcome
from gfviz.gromov.problem import Problem, State
from gfviz.gromov.result import Side

DUAL_NODES = 80
"""Largest n of the long dual ascent, whose costs take 16 n⁴ bytes."""
ROWS_CELLS = 40_000_000
"""Largest n·m for which a cost matrix between nodes is made: 320 MB."""


@dataclass(frozen=True)
class Rung:
    """A bound or a search: its name, the end it moves, what it needs, what it costs, and the computation.

    `needs` are predicates on the problem, each with the reason to give where it fails; `useful` likewise, but where
    they fail the rung is valid and another of the ladder does better; `cost` predicts (seconds, bytes) on one core;
    `interruptible` rungs stop by themselves at the state's deadline; `typical` is the share of the distance that the
    rung reaches, by which a budget in seconds ranks it: the median over families and sizes from n = 32 up in
    `study/results/validate-cpu.csv` (`gfviz validate --size cpu`), set by hand for rungs that it does not run alone.
    """

    name: str
    side: Side
    run: Callable[[Problem, State], Outcome]
    cost: Callable[[Problem], tuple[float, float]]
    needs: tuple[tuple[Callable[[Problem], bool], str], ...] = ()
    interruptible: bool = False
    useful: tuple[tuple[Callable[[Problem], bool], str], ...] = ()
    typical: float = 1.0

    def reason(self, problem: Problem, alone: bool = False) -> str | None:
        """Why the rung must be left out on this pair, or need not run in a ladder (not asked if `alone`), or None."""
        for holds, otherwise in self.needs if alone else (*self.needs, *self.useful):
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


def _up_to(n: int) -> tuple[Callable[[Problem], bool], str]:
    return (lambda problem: problem.a.n <= n, f"needs n <= {n}: its costs grow as n⁴")


_CATALOGUE = (
    Rung(
        "sorted", "lower", lambda problem, state: Outcome(lower=bounds.sorted_bound(problem)), costs.line, typical=0.21
    ),
    Rung(
        "sorted_coupling",
        "upper",
        lambda problem, state: Outcome(plan=couplings.sorted_coupling(problem)),
        costs.line,
        typical=1.08,
    ),
    Rung(
        "centred",
        "lower",
        lambda problem, state: Outcome(lower=bounds.centred_bound(problem)),
        costs.norm,
        (SQUARE_LOSS,),
        typical=0.69,
    ),
    Rung(
        "gilmore_lawler",
        "lower",
        actions.bound_gilmore_lawler,
        lambda problem: costs.matrix(problem, 3, 3e-10),
        (ASSIGNABLE, DENSE),
        typical=0.93,
    ),
    Rung(
        "rows",
        "lower",
        actions.bound_rows,
        costs.rows,
        (DENSE, SMALL),
        useful=((lambda problem: not problem.assignable, "not needed: gilmore_lawler is at least as large"),),
        typical=0.92,
    ),
    Rung(
        "exact_rows",
        "lower",
        actions.bound_exact_rows,
        costs.exact_rows,
        (DENSE, SMALL, (lambda problem: problem.p == 2 and rows.averaged(problem), "not needed: rows is exact here")),
        typical=0.94,
    ),
    Rung("entries", "lower", actions.bound_entries, costs.entries, (DENSE,), typical=0.8),
    Rung(
        "sparse_entries",
        "lower",
        actions.bound_entries,
        costs.entries,
        (LARGE, (_entries_known, "needs the entries of C: too many to list")),
        typical=0.8,
    ),
    Rung(
        "heads",
        "upper",
        lambda problem, state: actions.match_heads(problem, state, 256),
        lambda problem: (0.3, 3e7),
        (SQUARE_LOSS, LARGE),
        typical=1.1,
    ),
    Rung(
        "spectral",
        "lower",
        lambda problem, state: Outcome(lower=bounds.spectral_bound(problem)),
        costs.spectrum,
        (SQUARE_LOSS,),
        typical=0.81,
    ),
    Rung(
        "conditional_gradient",
        "upper",
        actions.follow_gradient,
        costs.gradient,
        (SQUARE_LOSS, DENSE),
        True,
        typical=1.02,
    ),
    Rung(
        "pot_indefinite",
        "upper",
        actions.ask_pot,
        lambda problem: costs.matrix(problem, 3, 2e-8, 1e-3),
        # on PSD pairs conditional_gradient takes POT's own path; on others ties part them, so POT itself is asked
        (SQUARE_LOSS, DENSE, INDEFINITE),
        typical=1.02,
    ),
    Rung(
        "interior",
        "upper",
        actions.go_inside,
        lambda problem: costs.matrix(problem, 3, 2e-8, 1e-3),
        (SQUARE_LOSS, DENSE, INDEFINITE),
        True,
    ),
    Rung(
        "exchange",
        "upper",
        lambda problem, state: actions.exchange_mass(problem, state, 5e9),
        lambda problem: costs.exchange(problem, 5e9),
        (DENSE,),
        True,
    ),
    Rung(
        "ascent",
        "lower",
        lambda problem, state: actions.ascend_skew(problem, state, 48),
        lambda problem: costs.ascent(problem, 48),
        (SQUARE_LOSS, UNIFORM, DENSE),
        True,
        typical=0.95,
    ),
    Rung(
        "projected",
        "lower",
        lambda problem, state: actions.project(problem, state, 30),
        lambda problem: costs.projected(problem, 30),
        (SQUARE_LOSS, DENSE),
        True,
        typical=0.88,
    ),
    Rung(
        "enumeration",
        "lower",
        actions.enumerate_all,
        lambda problem: (0.2, 1e8),
        (ASSIGNABLE, DENSE, (lambda problem: problem.a.n <= enumeration.LIMIT, "needs n <= 9")),
    ),
    Rung(
        "dual",
        "lower",
        lambda problem, state: actions.ascend_dual(problem, state, 40),
        lambda problem: costs.dual(problem, 40),
        (SQUARE_LOSS, UNIFORM, DENSE, _up_to(16)),
        True,
    ),
    Rung(
        "branch",
        "lower",
        lambda problem, state: actions.search_branches(problem, state, 60),
        lambda problem: costs.dual(problem, 12 * 60),
        (ASSIGNABLE, DENSE, _up_to(14)),
        True,
    ),
    Rung(
        "long_projected",
        "lower",
        lambda problem, state: actions.project(problem, state, 400),
        lambda problem: costs.projected(problem, 400),
        (SQUARE_LOSS, DENSE),
        True,
        typical=0.89,
    ),
    Rung(
        "long_dual",
        "lower",
        lambda problem, state: actions.ascend_dual(problem, state, costs.sweeps(problem)),
        lambda problem: costs.dual(problem, costs.sweeps(problem)),
        (SQUARE_LOSS, UNIFORM, DENSE, _up_to(DUAL_NODES)),
        True,
        typical=0.97,
    ),
    Rung(
        "weighted_dual",
        "lower",
        lambda problem, state: actions.ascend_weighted(problem, state, costs.weighted_sweeps(problem)),
        costs.weighted_dual,
        (
            SQUARE_LOSS,
            DENSE,
            (lambda problem: not problem.square, "not needed: dual needs no transport here"),
            (
                lambda problem: problem.a.n * problem.b.n <= DUAL_NODES**2,
                "its costs take 24 (n·m)² bytes: too many nodes",
            ),
        ),
        True,
        typical=0.97,
    ),
    Rung(
        "long_branch",
        "lower",
        lambda problem, state: actions.search_branches(problem, state, costs.nodes(problem)),
        lambda problem: costs.dual(problem, 12 * costs.nodes(problem)),
        (ASSIGNABLE, DENSE, _up_to(20)),
        True,
    ),
    Rung(
        "head_rows",
        "lower",
        lambda problem, state: Outcome(lower=heads.head_rows_bound(problem, 512)),
        costs.head_rows,
        (SQUARE_LOSS, LARGE),
        typical=0.9,
    ),
    Rung(
        "more_heads",
        "upper",
        lambda problem, state: actions.match_heads(problem, state, 512),
        lambda problem: (1.5, 1e8),
        (SQUARE_LOSS, LARGE),
        True,
        typical=1.07,
    ),
    Rung(
        "long_exchange",
        "upper",
        lambda problem, state: actions.exchange_mass(problem, state, 5e10),
        lambda problem: costs.exchange(problem, 5e10),
        (
            DENSE,
            (lambda problem: problem.p == 2 and problem.a.n * problem.b.n > 1e6, "not needed: nothing was cut short"),
        ),
        True,
    ),
    Rung("other_keys", "upper", actions.try_keys, lambda problem: costs.matrix(problem, 3, 1e-9, 8e-4), typical=1.05),
    Rung(
        "pot",
        "upper",
        actions.ask_pot,
        lambda problem: costs.matrix(problem, 3, 6e-9, 1e-3),
        (SQUARE_LOSS, DENSE),
        typical=1.02,
    ),
    Rung("multistart", "upper", actions.start_often, costs.multistart, (DENSE,), True),
    Rung(
        "long_ascent",
        "lower",
        lambda problem, state: actions.ascend_skew(problem, state, 2000),
        lambda problem: costs.ascent(problem, 2000),
        (SQUARE_LOSS, UNIFORM, DENSE),
        True,
        ((lambda problem: problem.a.n > DUAL_NODES, "not needed: long_dual is larger"),),
        typical=0.96,
    ),
)
RUNGS = {rung.name: rung for rung in _CATALOGUE}

_FAST = ("sorted", "sorted_coupling", "centred", "gilmore_lawler", "rows")
_STANDARD = (
    *(
        *_FAST,
        "entries",
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
        "exact_rows",
        "sparse_entries",
        "head_rows",
        "more_heads",
        "other_keys",
        "long_exchange",
        "pot",
        "multistart",
        "long_projected",
        "long_dual",
        "weighted_dual",
        "long_branch",
        "long_ascent",
    ),
}
