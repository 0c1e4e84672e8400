"""Row against row: exact correlations against transport from POT, cells below them, large supports."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gfviz.gromov as gw
from gfviz.gromov import native, network, rows, transport
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan
from tests.gromov import families as fam

SEEDS = st.integers(0, 10**6)


def _weights(n: int, uniform: bool, rng: np.random.Generator) -> np.ndarray:
    w = np.ones(n) if uniform else rng.dirichlet(np.ones(n)) + 0.01
    return w / w.sum()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 7), m=st.integers(1, 7), uniform=st.booleans(), compiled=st.booleans())
def test_costs_of_rows_are_transport_between_them(seed: int, n: int, m: int, uniform: bool, compiled: bool) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.symmetric(n, rng), fam.symmetric(m, rng)
    p, q = _weights(n, uniform, rng), _weights(m, uniform, rng)
    problem = Problem(c, d, weights=(p, q))
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(native, "library", lambda: None)
        found = rows.rows_cost(problem)
    exact = np.array([[ot.emd2_1d(x, y, p, q, metric="sqeuclidean") for y in problem.b.dense] for x in problem.a.dense])
    if compiled or uniform:
        assert found == pytest.approx(exact, abs=1e-12)
    else:
        assert (found <= exact + 1e-12).all()  # cells only ever lose


def test_cells_lose_little_where_a_few_entries_carry_all() -> None:
    rng = np.random.default_rng(0)
    z = fam.token_factors(300, rng, 60)
    sides = [z.T @ z / 60, fam.token_matrix(240, rng)]
    weights = [np.sqrt(np.diagonal(x)) + 1e-4 for x in sides]
    problem = Problem(*sides, weights=tuple(weights))
    exact = rows.rows_bound(problem)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "QUICK_STEPS", 0)
        averaged = rows.rows_bound(problem)[0]
    assert averaged <= exact * (1 + 1e-9)
    assert averaged >= 0.97 * exact


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40), m=st.integers(1, 40))
def test_correlation_of_quantiles_is_the_plan_s(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (np.round(rng.standard_normal(size), int(rng.integers(0, 6))) for size in (n, m))
    p, q = _weights(n, False, rng), _weights(m, False, rng)
    plan = transport.monotone_plan(x, p, y, q)
    listed = float(plan.mass @ (x[plan.rows] - y[plan.cols]) ** 2)
    assert transport._square_by_correlation(x, p, y, q) == pytest.approx(listed, abs=1e-13 * (p @ x**2 + q @ y**2))


def test_mass_in_the_wrong_place_is_paid_for() -> None:
    """A plan whose marginals are off by δ may be cheaper than any coupling; its surcharge covers the difference."""
    rng = np.random.default_rng(0)
    problem = Problem(np.diag([1.0, 0.0, 0.0]), np.zeros((2, 2)), weights=(np.full(3, 1 / 3), np.array([0.6, 0.4])))
    true = problem.objective(transport.monotone_plan(np.zeros(3), problem.a.weights, np.zeros(2), problem.b.weights))[0]
    for _ in range(20):
        off = 10.0 ** rng.uniform(-12, -2)
        plan = Plan(np.array([0, 1, 2, 2]), np.array([0, 0, 0, 1]), np.array([1 / 3 - off, 4 / 15, off, 0.4]))
        misplaced = problem.misplaced(plan)
        assert misplaced == pytest.approx(off + abs(1 / 3 - 4 / 15) + abs(off + 0.4 - 1 / 3), rel=1e-9)
        assert problem.objective(plan)[0] < true
        assert problem.objective(plan)[0] + problem.surcharge(misplaced) >= true


@pytest.mark.parametrize("mass", [False, True])
def test_a_pair_as_large_as_a_vocabulary_keeps_its_couplings(mass: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over tens of thousands of weights drift; a coupling was once thrown away for it."""
    rng = np.random.default_rng(3)
    a, b = (_zipf_graph(rng, positions, mass) for positions in (150, 170))
    assert min(a.n, b.n) > 14_000
    result = gw.gromov_wasserstein(a, b, budget="fast")
    assert 0 < result.lower < result.upper
    assert np.abs(result.coupling.sum(axis=1) - a.weights).sum() < 1e-11
    assert np.abs(result.coupling.sum(axis=0) - b.weights).sum() < 1e-11
    monkeypatch.setattr(network, "GRAM_POSITIONS", 10)  # the same from the sparse matrix
    other = gw.gromov_wasserstein(a, b, budget="fast")
    assert (other.lower, other.upper) == pytest.approx((result.lower, result.upper), rel=1e-6)


def _zipf_graph(rng: np.random.Generator, positions: int, mass: bool) -> fam.FactorGraph:
    import scipy.sparse as sp

    n, k = 15_000, 100
    cols = np.concatenate([rng.choice(n, k, replace=False) for _ in range(positions)])
    values = rng.dirichlet(np.full(k, 0.1), positions).ravel() + 1e-6
    z = sp.csr_array((values, cols, np.arange(0, positions * k + 1, k)), shape=(positions, n))
    w = np.asarray(np.sqrt((z * z).sum(axis=0))).ravel() + 1e-6 if mass else np.ones(n)
    return fam.FactorGraph(z, w / w.sum(), positions)


@pytest.mark.parametrize("scale", [1e-8, 0.1, 3.0, 1e8])
def test_graphs_of_whole_numbers_are_the_same_at_every_scale(scale: float) -> None:
    """Ties of 0/1 graphs fall the same way whatever number stands for 1."""
    rng = np.random.default_rng(1)
    sides = [np.triu(rng.integers(0, 2, (24, 24)), 1).astype(float) for _ in range(2)]
    sides = [x + x.T for x in sides]
    plain = gw.gromov_wasserstein(*sides)
    scaled = gw.gromov_wasserstein(*(scale * x for x in sides))
    assert scaled.lower / scale == pytest.approx(plain.lower, rel=1e-14)
    assert scaled.upper / scale == pytest.approx(plain.upper, rel=1e-14)
    assert gw.objective(*(scale * x for x in sides), plain.coupling) == pytest.approx((scale * plain.upper) ** 2)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 8), noise=st.sampled_from([0.0, 1e-3, 0.3]))
def test_the_monotone_assignment_is_given_only_where_it_is_cheapest(seed: int, n: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, n))
    cost = (x[:, None] - y[None, :]) ** 2 + noise * rng.random((n, n))
    found = transport.monotone_assignment(cost, np.argsort(x), np.argsort(y))
    best = cost[np.arange(n), transport.assignment(cost)].sum()
    if noise == 0.0:
        assert found is not None  # squares of differences are Monge
    if found is not None:
        assert cost[np.arange(n), found].sum() == pytest.approx(best, abs=1e-12)
    assert transport.monotone_assignment(-cost, np.argsort(x), np.argsort(y)) is None or n == 1 or best == 0.0
