"""The certified interval against enumeration, replication, hand-worked cases and invariances."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gfviz.gromov as gw
from gfviz.errors import GfvizError
from gfviz.gromov import native
from gfviz.gromov.problem import Problem
from gfviz.gromov.rungs import LADDERS, RUNGS
from tests.gromov import families as fam

SEEDS = st.integers(0, 10**6)
BUDGETS = ("fast", "standard")


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 7))
def test_standard_proves_assignable_pairs_up_to_nine(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    truth = fam.brute_force(c, d)
    result = gw.gromov_wasserstein(c, d)
    scale = np.linalg.norm(c) + np.linalg.norm(d)
    assert result.lower <= truth + 1e-12 * scale
    assert truth <= result.upper + 1e-12 * scale
    assert result.proof is not None or truth < 1e-6 * scale
    assert result.upper == pytest.approx(truth, rel=1e-9, abs=1e-7 * scale)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, budget=st.sampled_from(BUDGETS))
def test_weighted_pairs_hold_the_replicated_truth(seed: int, budget: str) -> None:
    rng = np.random.default_rng(seed)
    total = int(rng.integers(2, 7))
    counts = [np.bincount(rng.integers(0, int(rng.integers(1, total + 1)), total)) for _ in range(2)]
    counts = [c[c > 0].tolist() for c in counts]
    c, d = (fam.psd(len(x), rng) for x in counts)
    truth = fam.brute_force(fam.replicate(c, counts[0]), fam.replicate(d, counts[1]))
    result = gw.gromov_wasserstein(c, d, budget=budget, weights=counts)
    scale = 1e-9 * (np.abs(c).max() + np.abs(d).max())
    assert result.lower <= truth + scale
    assert truth <= result.upper + scale
    dense = result.coupling.toarray()
    assert dense.sum(1) == pytest.approx(np.array(counts[0]) / total, abs=1e-14)
    assert dense.sum(0) == pytest.approx(np.array(counts[1]) / total, abs=1e-14)
    assert fam.definition(c, d, dense) ** 0.5 == pytest.approx(result.upper, rel=1e-7, abs=scale * 10)


def test_counterexamples_of_the_theory() -> None:
    c, d = [[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 4.0]]
    result = gw.gromov_wasserstein(c, d, p=1)
    assert result.lower <= 1.0 <= result.upper
    assert result.proof is None or result.upper == pytest.approx(1.0)
    left_out = {record.name: record.note for record in result.rungs if not record.used}
    assert "gilmore_lawler" in left_out
    assert "enumeration" in left_out
    c = np.array([[1.0, -1.0], [-1.0, 1.0]])
    result = gw.gromov_wasserstein(c, -c)
    assert result.lower**2 <= 2.0 + 1e-12
    assert "PSD" in {record.name: record.note for record in result.rungs if not record.used}["gilmore_lawler"]
    with pytest.raises(GfvizError, match="PSD"):
        gw.run_rung("gilmore_lawler", c, -c)
    rest = np.diag([2.0, 1.0, 0.0])  # whole spectra paired sorted would claim more than the product coupling attains
    rotation = np.linalg.qr(np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 1.0], [1.0, 0.0, -1.0]]))[0]
    rest = rotation[:, 1:] @ np.diag([2.0, 1.0]) @ rotation[:, 1:].T
    result = gw.gromov_wasserstein(rest, -rest)
    assert (3 * result.lower) ** 2 <= 10.0 + 1e-9


def test_hand_worked_values() -> None:
    assert gw.gromov_wasserstein([[3.0]], [[1.0]]).upper == pytest.approx(2.0, rel=1e-13)
    one_to_two = gw.gromov_wasserstein([[1.0]], [[3.0, 0.0], [0.0, 3.0]])
    assert one_to_two.lower == pytest.approx(2.5**0.5)  # the only coupling: (4 + 4 + 1 + 1) / 4
    assert one_to_two.upper == pytest.approx(2.5**0.5)
    u, v = np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 1.0])
    order = [np.outer(u, u) - np.outer(np.sort(v)[::s], np.sort(v)[::s]) for s in (1, -1)]
    rank_one = min(np.linalg.norm(x) / 3 for x in order)
    assert gw.gromov_wasserstein(np.outer(u, u), np.outer(v, v)).upper == pytest.approx(rank_one)
    assert gw.sorted_gw(np.diag([2.0, 0.0]), np.zeros((2, 2)), p=1) == 0.5


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 9), scale=st.sampled_from([1e-30, 1e-8, 1e-3, 1e8, 1e30]))
def test_scale_permutation_and_symmetry(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(n, rng)
    base = gw.gromov_wasserstein(c, d)
    norm = np.linalg.norm(c) + np.linalg.norm(d)
    s, r = rng.permutation(n), rng.permutation(n)
    for other, unit in (
        (gw.gromov_wasserstein(c * scale, d * scale), scale),
        (gw.gromov_wasserstein(c[np.ix_(s, s)], d[np.ix_(r, r)]), 1.0),
        (gw.gromov_wasserstein(d, c), 1.0),
    ):
        assert other.upper / unit == pytest.approx(base.upper, rel=1e-8, abs=1e-6 * norm)
        assert other.lower / unit == pytest.approx(base.lower, rel=1e-8, abs=1e-6 * norm)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_triangle_inequality_on_the_proven_root(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = (fam.psd(n, rng) for _ in range(3))
    xy, yz, xz = (gw.gromov_wasserstein(*pair).upper for pair in ((x, y), (y, z), (x, z)))
    assert xz <= xy + yz + 1e-9 * (np.linalg.norm(x) + np.linalg.norm(y) + np.linalg.norm(z))


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 14), m=st.integers(2, 14), p=st.sampled_from([1, 1.5, 2]))
def test_a_larger_budget_is_never_wider(seed: int, n: int, m: int, p: float) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.psd(n, rng), fam.psd(m, rng)
    narrow, wide = (gw.gromov_wasserstein(c, d, p=p, budget=b) for b in ("standard", "fast"))
    assert wide.lower <= narrow.lower
    assert narrow.upper <= wide.upper
    again = gw.gromov_wasserstein(c, d, p=p, budget="standard")
    assert (again.lower, again.upper) == (narrow.lower, narrow.upper)


@pytest.mark.parametrize("n", [5, 40])
def test_permuted_copies_are_at_zero(n: int) -> None:
    rng = np.random.default_rng(n)
    for family in fam.FAMILIES.values():
        c = family(n, rng)
        s = rng.permutation(n)
        result = gw.gromov_wasserstein(c, c[np.ix_(s, s)])
        assert result.lower == 0.0
        assert result.upper <= 1e-12 * np.abs(c).max()


def test_nodes_without_weight_change_nothing() -> None:
    rng = np.random.default_rng(3)
    c, d = fam.psd(6, rng), fam.psd(5, rng)
    p = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    kept = np.flatnonzero(p)
    with_zero = gw.gromov_wasserstein(c, d, weights=(p, np.ones(5)))
    without = gw.gromov_wasserstein(c[np.ix_(kept, kept)], d)
    assert with_zero.upper == without.upper
    assert with_zero.lower == without.lower
    assert with_zero.coupling.shape == (6, 5)
    assert with_zero.proof == without.proof


BAD = [
    (np.array([[0.0, 1.0], [2.0, 0.0]]), None, "not symmetric"),
    (np.array([[np.nan]]), None, "NaN"),
    (np.array([[np.inf]]), None, "infinity"),
    (np.zeros((0, 0)), None, "empty"),
    (np.zeros((2, 3)), None, "square"),
    (np.zeros(3), None, "square"),
    (np.array([["a"]]), None, "dtype"),
    (np.eye(2) * 1j, None, "dtype"),
    (np.array([[2**60 + 1]]), None, "integers"),
    (np.eye(2), ([1.0, -1.0], [1.0]), "negative"),
    (np.eye(2), ([0.0, 0.0], [1.0]), "zero mass"),
    (np.eye(2), ([1.0, 1.0, 1.0], [1.0]), "shape"),
    (np.eye(2), ([np.nan, 1.0], [1.0]), "NaN"),
    (np.eye(2), 3, "pair"),
]


@pytest.mark.parametrize("matrix, weights, message", BAD)
def test_bad_input_is_one_clear_line(matrix: np.ndarray, weights: object, message: str) -> None:
    with pytest.raises(GfvizError, match=message) as caught:
        gw.gromov_wasserstein(matrix, np.ones((1, 1)), weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"p": 0.5}, {"p": np.inf}, {"budget": "huge"}, {"budget": -1.0}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(GfvizError):
        gw.gromov_wasserstein(np.eye(2), np.eye(2), **options)


def test_integers_and_single_precision_are_taken_with_care() -> None:
    c = np.array([[4, 1, 0], [1, 3, 1], [0, 1, 2]])
    d = np.array([[1, 0, 1], [0, 5, 2], [1, 2, 3]])
    exact = gw.gromov_wasserstein(c.astype(float), d.astype(float))
    for dtype in (np.int64, np.int8, np.uint16, np.float32):
        assert gw.gromov_wasserstein(c.astype(dtype), d.astype(dtype)).upper == exact.upper


def test_an_interrupted_call_returns_what_it_has(capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    seen = []

    def stop(record: gw.RungRecord, lower: float, upper: float) -> None:
        seen.append((record.name, lower, upper))
        if record.name == "centred":
            raise KeyboardInterrupt

    c, d = fam.token_matrix(12, rng), fam.token_matrix(12, rng)
    result = gw.gromov_wasserstein(c, d, on_rung=stop)
    assert "interrupted" in result.note
    assert 0 < result.lower <= result.upper < np.inf
    assert [lower for _, lower, _ in seen] == sorted(lower for _, lower, _ in seen)


def test_graphs_of_factors_and_accumulated_equal_their_matrix() -> None:
    rng = np.random.default_rng(5)
    a, b = fam.factor_graph(9, rng), fam.factor_graph(12, rng, mass=True)
    by_graph = gw.gromov_wasserstein(a, b)
    by_array = gw.gromov_wasserstein(a.dense(), b.dense(), weights=(a.weights, b.weights))
    held = fam.FactorGraph(None, a.weights, a.positions, sp.csr_array(a.dense()))
    for other in (by_array, gw.gromov_wasserstein(held, b)):
        assert other.lower == pytest.approx(by_graph.lower, rel=1e-9)
        assert other.upper == pytest.approx(by_graph.upper, rel=1e-9)


def test_shares_sum_to_the_objective_and_displays_are_safe() -> None:
    rng = np.random.default_rng(2)
    c, d = fam.psd(6, rng), fam.psd(5, rng)
    result = gw.gromov_wasserstein(c, d)
    own, other = gw.node_shares(c, d, result.coupling)
    value = gw.objective(c, d, result.coupling)
    assert own.sum() == pytest.approx(value)
    assert other.sum() == pytest.approx(value)
    assert value == pytest.approx(result.upper**2, rel=1e-9)
    plan = fam.random_plan(np.full(6, 1 / 6), np.full(5, 1 / 5), rng)
    for p in (1, 2, 3):
        assert gw.objective(c, d, plan, p=p) == pytest.approx(fam.definition(c, d, plan, p))
    with pytest.raises(GfvizError, match="marginals"):
        gw.objective(c, d, plan * 2)
    assert "<table>" in result._repr_html_()
    assert result.to_dict()["rungs"][0]["name"] == "sorted"
    low, high = gw.apriori_interval(c, d)
    assert low <= result.upper
    assert high >= result.lower


def test_never_above_pot_on_its_own_ground() -> None:
    rng = np.random.default_rng(6)
    pairs = [(family(16, rng), family(16, rng), None) for family in fam.FAMILIES.values()]
    pairs += [(fam.symmetric(9, rng), fam.symmetric(9, rng), None), (fam.psd(7, rng), fam.psd(10, rng), None)]
    pairs.append((fam.psd(6, rng), fam.symmetric(8, rng), (rng.random(6), rng.random(8))))
    for c, d, weights in pairs:
        theirs = gw.run_rung("pot", c, d, weights=weights).value
        assert theirs is not None
        assert gw.gromov_wasserstein(c, d, weights=weights).upper <= theirs * (1 + 1e-7)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 7), m=st.integers(2, 7))
def test_lower_bounds_hold_at_random_couplings_of_any_pair(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.symmetric(n, rng), fam.symmetric(m, rng)
    p, q = rng.random(n) + 0.1, rng.random(m) + 0.1
    plan = fam.random_plan(p / p.sum(), q / q.sum(), rng)
    for power in (1, 1.5, 2):
        result = gw.gromov_wasserstein(c, d, p=power, weights=(p, q))
        assert result.lower <= fam.definition(c, d, plan, power) ** (1 / power) * (1 + 1e-12)
        assert result.lower <= result.upper
        found = result.coupling.toarray()
        assert found.sum(1) == pytest.approx(p / p.sum(), abs=1e-12)
        assert fam.definition(c, d, found, power) ** (1 / power) == pytest.approx(result.upper, rel=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6), m=st.integers(2, 6))
def test_the_decomposition_is_an_identity_at_any_coupling(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    c, d = fam.symmetric(n, rng), fam.symmetric(m, rng)
    p, q = rng.random(n) + 0.1, rng.random(m) + 0.1
    problem = Problem(c, d, 2, (p, q))
    a, b = problem.a, problem.b
    plan = fam.random_plan(a.weights, b.weights, rng)
    rest = [side.rest / np.sqrt(np.outer(side.weights, side.weights)) for side in (a, b)]
    means = (a.mean - b.mean) ** 2
    spread = 2 * (plan * (a.centred_means[:, None] - b.centred_means[None, :]) ** 2).sum()
    whole = means + spread + fam.definition(rest[0], rest[1], plan)
    assert fam.definition(a.dense, b.dense, plan) == pytest.approx(whole, rel=1e-9)


def test_every_rung_has_its_place_once() -> None:
    assert {name for ladder in LADDERS.values() for name in ladder} == set(RUNGS)
    assert all(len(set(ladder)) == len(ladder) for ladder in LADDERS.values())
    assert LADDERS["standard"][: len(LADDERS["fast"])] == LADDERS["fast"]
    assert LADDERS["thorough"][: len(LADDERS["standard"])] == LADDERS["standard"]


@pytest.mark.skipif(native.library() is None, reason="no C compiler: transports are POT's")
def test_pot_is_not_imported_where_it_is_not_asked() -> None:
    script = (
        "import sys, numpy as np, gfviz as gv; r = np.random.default_rng(0); "
        "c, d = (x @ x.T for x in (r.random((6, 6)), r.random((8, 8)))); "
        "gv.gromov_wasserstein(c, d, budget='standard'); print('ot' in sys.modules); "
        "gv.gromov_wasserstein(c, d, budget='thorough'); print('ot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "True"]
