"""The dual ascent and the branch and bound against every permutation; the compiled kernels against their twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import gfviz.gromov as gw
from gfviz.gromov import ascent, branch, couplings, dual, enumeration, native, transport
from gfviz.gromov.problem import Problem
from tests.gromov import families as fam

SEEDS = st.integers(0, 10**6)


def _squares(c: np.ndarray, d: np.ndarray, match: np.ndarray) -> float:
    return float(((c - d[np.ix_(match, match)]) ** 2).sum())


def _at(problem: dual.QuadraticDual, match: np.ndarray) -> float:
    n = len(match)
    total = problem.bound + sum(problem.leader[i, match[i]] for i in range(n))
    return total + sum(problem.quadratic[i, k, match[i], match[k]] for i in range(n) for k in range(n) if i != k)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6), sweeps=st.integers(1, 12))
def test_sweeps_keep_the_objective_and_only_raise_the_bound(seed: int, n: int, sweeps: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    scale = (c * c).sum() + (d * d).sum()
    quadratic, match = dual.QuadraticDual.of(c, d), rng.permutation(n)
    before = -np.inf
    for _ in range(sweeps):
        quadratic.sweep()
        assert quadratic.bound >= before - 1e-12 * scale
        before = quadratic.bound
    assert _at(quadratic, match) == pytest.approx(_squares(c, d, match), abs=1e-12 * scale)
    assert quadratic.bound <= (fam.brute_force(c, d) * n) ** 2 + quadratic.error
    i, j = 0, int(match[0])
    rest = np.array([x - (x > j) for x in match[1:]])
    assert _at(quadratic.fix(i, j), rest) == pytest.approx(_squares(c, d, match), abs=1e-12 * scale)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_the_numpy_sweep_bounds_as_well(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    truth = (fam.brute_force(c, d) * n) ** 2
    scale = (c * c).sum() + (d * d).sum()
    twin = dual.QuadraticDual.of(c, d)
    for sweep in range(6):
        dual.sweep_twin(twin.quadratic, twin.leader, 0.5 if sweep else -1.0)
        u, v = (x[0] for x in dual._potentials(twin.leader[None], linear_sum_assignment(twin.leader)[1][None]))
        twin.bound += float(u.sum() + v.sum())
        twin.leader -= u[:, None] + v[None, :]
        assert twin.bound <= truth + 1e-11 * scale
    match = rng.permutation(n)
    assert _at(twin, match) == pytest.approx(_squares(c, d, match), abs=1e-11 * scale)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 6), sweeps=st.integers(1, 20), compiled=st.booleans())
def test_momentum_keeps_the_objective_and_its_best_bound_holds(seed: int, n: int, sweeps: int, compiled: bool) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    scale = (c * c).sum() + (d * d).sum()
    match = rng.permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(native, "library", lambda: None)
        climb = dual.QuadraticDual.of(c, d)
        climb.ascend(sweeps, np.inf, momentum=dual.MOMENTUM)
    assert _at(climb, match) == pytest.approx(_squares(c, d, match), abs=climb.error + 1e-13 * scale)
    assert climb.best <= (fam.brute_force(c, d) * n) ** 2 + 1e-13 * scale
    assert climb.error < 1e-9 * scale


def _coupling(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random doubly stochastic matrix: a mixture of permutations."""
    share = rng.dirichlet(np.full(4, 0.5))
    return sum(w * np.eye(n)[rng.permutation(n)] for w in share)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 6), sweeps=st.integers(1, 12), compiled=st.booleans())
def test_whole_rows_bound_every_coupling_of_indefinite_pairs(seed: int, n: int, sweeps: int, compiled: bool) -> None:
    rng = np.random.default_rng(seed)
    c, d = (x + x.T for x in rng.standard_normal((2, n, n)))
    scale = (c * c).sum() + (d * d).sum()
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(native, "library", lambda: None)
        climb = dual.QuadraticDual.of(c, d, held=False)
        climb.ascend(sweeps, np.inf, momentum=dual.MOMENTUM)
    for _ in range(10):
        x = _coupling(n, rng)
        truth = float((c * c).sum() + (d * d).sum() - 2 * np.einsum("ik,ij,kl,jl->", c, x, x, d))
        now = climb.bound + (climb.leader * x).sum() + np.einsum("ikjl,ij,kl->", climb.quadratic, x, x)
        assert now == pytest.approx(truth, abs=climb.error + 1e-13 * scale)
        assert climb.best <= truth + 1e-13 * scale


def test_permutations_do_not_bound_an_indefinite_pair_but_whole_rows_do() -> None:
    """MATH.md's counterexample: permutations 4, the product coupling 2."""
    c = np.array([[1.0, -1.0], [-1.0, 1.0]])
    held, whole = dual.QuadraticDual.of(c, -c), dual.QuadraticDual.of(c, -c, held=False)
    for climb in (held, whole):
        climb.ascend(20, np.inf, momentum=dual.MOMENTUM)
    assert held.best == pytest.approx(16.0)  # Σ over pairs: four times the objective
    assert whole.best <= 8.0 + 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 5), m=st.integers(1, 5), sweeps=st.integers(1, 12), momentum=st.booleans())
def test_transports_bound_every_coupling_of_unequal_weights(
    seed: int, n: int, m: int, sweeps: int, momentum: bool
) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.symmetric(n, rng), fam.symmetric(m, rng)
    p, q = (w / w.sum() for w in (rng.random(n) + 0.1, rng.random(m) + 0.1))
    scale = float(p @ c**2 @ p + q @ d**2 @ q)
    climb = dual.QuadraticDual.weighted(c, p, d, q)
    climb.ascend(sweeps, np.inf, momentum=dual.MOMENTUM if momentum else 0.0)
    for _ in range(10):
        x = fam.random_plan(p, q, rng)
        truth = fam.definition(c, d, x)
        now = climb.bound + (climb.leader * x).sum() + np.einsum("ikjl,ij,kl->", climb.quadratic, x, x)
        assert now == pytest.approx(truth, abs=climb.error + 1e-12 * scale)
        assert climb.best <= truth + 1e-12 * scale


def test_transports_bound_what_replication_makes_assignable() -> None:
    """Weights of sixths: the replicated pair is assignable, its distance enumerated."""
    rng = np.random.default_rng(5)
    c, d = fam.psd(4, rng), fam.psd(3, rng)
    counts = [2, 1, 2, 1], [1, 3, 2]
    truth = fam.brute_force(fam.replicate(c, counts[0]), fam.replicate(d, counts[1])) ** 2
    climb = dual.QuadraticDual.weighted(c, np.array(counts[0]) / 6, d, np.array(counts[1]) / 6)
    climb.sweep()
    first = climb.best
    climb.ascend(40, truth, momentum=dual.MOMENTUM)
    assert first < climb.best <= truth * (1 + 1e-12)
    assert climb.best >= 0.98 * truth


def test_whole_rows_close_most_of_the_interval_of_distances() -> None:
    rng = np.random.default_rng(0)
    points = [rng.standard_normal((12, 2)) * rng.uniform(0.5, 1.5, 2) for _ in range(2)]
    c, d = (np.sqrt(((x[:, None] - x[None, :]) ** 2).sum(-1)) for x in points)
    assert not Problem(c, d).psd
    plain = gw.gromov_wasserstein(c, d, budget="fast")
    result = gw.gromov_wasserstein(c, d, budget="standard")
    assert result.gap < 0.01 < 0.1 < plain.gap
    assert result.lower_rung == "dual"


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_branch_and_bound_finds_what_enumeration_finds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    problem = Problem(c, d)
    a, b = problem.a.dense, problem.b.dense
    found = branch.branch_and_bound(problem, np.arange(n), dual.QuadraticDual.of(a, b), 10**5, 1)
    truth = (fam.brute_force(a, b) * n) ** 2
    assert found.complete
    assert _squares(a, b, found.match) == pytest.approx(truth, abs=1e-12)
    assert found.bound == pytest.approx(truth, rel=1e-9, abs=1e-10)
    stopped = branch.branch_and_bound(problem, np.arange(n), dual.QuadraticDual.of(a, b), 1, 1)
    assert stopped.bound <= truth + 1e-10


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_skew_multipliers_bound_and_their_slope_is_right(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    truth = (fam.brute_force(c, d) * n) ** 2
    scale = (c * c).sum() + (d * d).sum()
    climb = ascent.SkewDual.at_zero(c, d)
    skew = rng.standard_normal((n, n)) * np.sqrt(scale) / n
    skew, shift = skew - skew.T, rng.standard_normal(n) * np.sqrt(scale) / n
    value, slope, shift_slope, _ = climb.evaluate(skew, shift)
    assert value <= truth + 1e-10 * scale
    step = 1e-7 * np.sqrt(scale)
    way, way_shift = rng.standard_normal((n, n)), rng.standard_normal(n)
    way = way - way.T
    ahead, behind = (climb.evaluate(skew + s * way, shift + s * way_shift)[0] for s in (step, -step))
    # the matrix slope is per free entry A_ik, i < k, up to the common factor 2 that both gradients share
    predicted = 2 * (np.vdot(slope, way) / 2 + shift_slope @ way_shift)
    assert (ahead - behind) / (2 * step) == pytest.approx(predicted, rel=1e-4, abs=1e-5 * scale)
    climb.ascend(60, truth)
    assert climb.value <= truth + 1e-10 * scale


def test_twelve_nodes_are_proven_and_nine_equal_enumeration() -> None:
    rng = np.random.default_rng(1)
    proven = [
        gw.gromov_wasserstein(family(12, rng), family(12, rng)).proof is not None
        for family in fam.FAMILIES.values()
        for _ in range(2)
    ]
    assert np.mean(proven) >= 0.9
    c, d = fam.psd(9, rng), fam.psd(9, rng)
    problem = Problem(c, d)
    found = branch.branch_and_bound(
        problem, np.arange(9), dual.QuadraticDual.of(problem.a.dense, problem.b.dense), 10**5, 8
    )
    exact = enumeration.enumerate_matches(problem, np.inf)
    assert exact is not None
    assert problem.objective(couplings.Plan.permutation(found.match))[0] == pytest.approx(
        problem.objective(couplings.Plan.permutation(exact))[0], rel=1e-12
    )


@pytest.mark.skipif(native.library() is None, reason="no C compiler: the twins are all there is")
def test_compiled_kernels_equal_their_twins() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 9, 31):
        for digits in (0, 1, 9):
            cost = np.round(rng.standard_normal((n, n)), digits)
            u, v, match = dual.solve(cost)
            rows, cols = linear_sum_assignment(cost)
            assert u.sum() + v.sum() == pytest.approx(cost[rows, cols].sum(), abs=1e-12 * n)
            assert cost[np.arange(n), match].sum() == pytest.approx(cost[rows, cols].sum(), abs=1e-12 * n)
            assert (cost - u[:, None] - v[None, :]).min() >= -1e-12
    c, d, start = fam.psd(15, rng), fam.psd(15, rng), rng.permutation(15)
    assert np.array_equal(couplings.swap(c, d, start), couplings.swap_match(c, d, start))


@pytest.mark.skipif(native.library() is None, reason="no C compiler: prices are not used")
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40), kind=st.sampled_from(["any", "ties", "monge", "constant"]))
def test_an_assignment_from_any_prices_is_a_cheapest_one(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.standard_normal((n, n))
    if kind == "ties":
        cost = np.round(cost)
    elif kind == "monge":
        x, y = rng.standard_normal(n), rng.standard_normal(n)
        cost = (x[:, None] - y[None, :]) ** 2
    elif kind == "constant":
        cost[...] = cost[0, 0]
    prices = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 3)
    for change in (0.0, 0.0, 0.3):  # from nowhere, from its own prices, from those of a problem like it
        cost = cost + change * rng.standard_normal((n, n))
        u, v, match = transport.solve_compiled(cost, prices)
        rows, cols = linear_sum_assignment(cost)
        least = cost[rows, cols].sum()
        assert np.array_equal(np.sort(match), np.arange(n))
        assert cost[rows, match].sum() == pytest.approx(least, abs=1e-10 * n)
        assert u.sum() + v.sum() == pytest.approx(least, abs=1e-10 * n)
        assert (cost - u[:, None] - v[None, :]).min() >= -1e-10
        assert v is prices


@pytest.mark.skipif(native.library() is None, reason="no C compiler: the twin is all there is")
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 24])
def test_a_compiled_step_of_the_ascent_equals_its_twin(n: int, held: bool) -> None:
    rng = np.random.default_rng(n)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    climb = ascent.SkewDual.at_zero(c, d, held)
    for _ in range(4):
        skew, shift = rng.standard_normal((n, n)), rng.standard_normal(n)
        skew = skew - skew.T
        value, slope, shift_slope, match = climb.evaluate(skew, shift)
        twin = climb.evaluate_twin(skew, shift)
        assert value == pytest.approx(twin[0], rel=1e-12)
        assert np.array_equal(match, twin[3])
        np.testing.assert_allclose(slope, twin[1], atol=1e-12)
        np.testing.assert_allclose(shift_slope, twin[2], atol=1e-12 * n)


def test_an_ascent_that_gains_nothing_ends_early() -> None:
    rng = np.random.default_rng(0)
    c, d = ((rng.random((20, 20)) < 0.5).astype(float) for _ in range(2))
    c, d = np.triu(c, 1) + np.triu(c, 1).T, np.triu(d, 1) + np.triu(d, 1).T
    climb = ascent.SkewDual.at_zero(c, d, held=False)
    values = []
    evaluate = climb.evaluate
    climb.evaluate = lambda *at: values.append(evaluate(*at)) or values[-1]  # type: ignore[method-assign, func-returns-value]
    climb.ascend(48, 1e6)
    assert len(values) == ascent._HOPELESS
    assert max(value[0] for value in values) == values[0][0] == climb.value


def test_everything_holds_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    rng = np.random.default_rng(4)
    c, d = fam.psd(6, rng), fam.psd(6, rng)
    problem = Problem(c, d)
    found = branch.branch_and_bound(
        problem, np.arange(6), dual.QuadraticDual.of(problem.a.dense, problem.b.dense), 10**4, 3
    )
    assert problem.value(found.bound / 36) == pytest.approx(fam.brute_force(c, d), rel=1e-9)
