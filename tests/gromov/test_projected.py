"""The quadratic-programming bound against couplings, permutations and the spectral bound that it starts from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gfviz.gromov import bounds
from gfviz.gromov.problem import Problem
from gfviz.gromov.projected import ProjectedProgram, potentials
from gfviz.gromov.transport import Plan
from tests.gromov import families as fam

SEEDS = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 6), m=st.integers(1, 6))
def test_potentials_are_an_optimal_dual_of_the_partial_pairing(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = (np.round(rng.standard_normal(size), int(rng.integers(0, 4))) for size in (n, m))
    s, t = potentials(left, right)
    cost = -2.0 * np.multiply.outer(left, right)
    assert (s <= 0).all()
    assert (t <= 0).all()
    assert (cost - s[:, None] - t[None, :]).min() >= -1e-12
    rows = np.kron(np.eye(n), np.ones((1, m)))
    cols = np.kron(np.ones((1, n)), np.eye(m))
    solved = linprog(cost.ravel(), A_ub=np.vstack([rows, cols]), b_ub=np.ones(n + m))
    assert s.sum() + t.sum() == pytest.approx(solved.fun, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6), m=st.integers(2, 6), psd=st.booleans(), uniform=st.booleans())
def test_it_bounds_every_coupling_and_starts_as_the_spectral_bound(
    seed: int, n: int, m: int, psd: bool, uniform: bool
) -> None:
    rng = np.random.default_rng(seed)
    c, d = (fam.psd(size, rng) if psd else fam.symmetric(size, rng) for size in (n, m))
    p, q = (np.full(size, 1 / size) if uniform else rng.dirichlet(np.ones(size)) + 0.01 for size in (n, m))
    p, q = p / p.sum(), q / q.sum()
    problem = Problem(c, d, weights=(p, q))
    program = ProjectedProgram(problem)
    program.descend(1, np.inf)
    assert program.bound == pytest.approx(bounds.spectral_bound(problem), abs=1e-9)
    first = program.bound
    plan = program.descend(40, np.inf)
    assert program.bound >= first
    assert program.bound <= problem.objective(plan)[1] + problem.margin
    for _ in range(10):
        coupling = fam.random_plan(p, q, rng)
        rows, cols = np.nonzero(coupling)
        assert program.bound <= problem.objective(Plan(rows, cols, coupling[rows, cols]))[1] + problem.margin


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_it_stays_below_the_best_permutation(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    problem = Problem(c, d)
    program = ProjectedProgram(problem)
    program.descend(200, np.inf)
    truth = problem.power(fam.brute_force(c, d))
    assert program.bound <= truth + problem.margin


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(3, 8))
def test_it_ends_at_a_floor_that_no_later_step_could_pass(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    problem = Problem(fam.psd(n, rng), fam.psd(n + 1, rng))
    whole = ProjectedProgram(problem)
    whole.descend(2000, np.inf)
    floor = whole.bound + 1e-3 * max(abs(whole.bound), 1.0)
    cut, steps, moved = ProjectedProgram(problem), 0, np.inf
    while steps < 500:
        before = cut.coupling.copy()
        cut.descend(1, np.inf, floor=floor)
        moved = float(np.abs(cut.coupling - before).max())
        if moved == 0.0:
            break
        steps += 1
    assert steps < 500
    assert cut.bound <= whole.bound + 1e-9
