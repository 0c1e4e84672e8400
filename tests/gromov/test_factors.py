"""Graphs too large for a matrix: the same certificates from factors and from sparse matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gfviz.gromov as gw
from gfviz.errors import GfvizError
from gfviz.gromov import bounds, couplings, heads, network, rows, summaries
from gfviz.gromov.problem import Problem
from tests.gromov import families as fam


@pytest.fixture(params=["factors", "accumulated"])
def pair(request: pytest.FixtureRequest) -> tuple[fam.FactorGraph, fam.FactorGraph]:
    rng = np.random.default_rng(8)
    a, b = fam.factor_graph(30, rng), fam.factor_graph(41, rng, positions=19, mass=True)
    if request.param == "factors":
        return a, b
    held = [fam.FactorGraph(None, g.weights, g.positions, sp.csr_array(g.dense())) for g in (a, b)]
    return held[0], held[1]


def test_without_a_matrix_equals_with_one(
    pair: tuple[fam.FactorGraph, fam.FactorGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = Problem(*pair)
    monkeypatch.setattr(network, "DENSE_NODES", 8)
    thin = Problem(*pair)
    assert not thin.a.is_dense
    for bound in (bounds.sorted_bound, bounds.centred_bound, bounds.entries_bound):
        assert bound(thin) == pytest.approx(bound(dense), rel=1e-9)
    if pair[0].factors is not None:
        assert bounds.spectral_bound(thin) == pytest.approx(bounds.spectral_bound(dense), rel=1e-9)
    plan = couplings.sorted_coupling(dense)
    assert thin.objective(plan)[0] == pytest.approx(dense.objective(plan)[0], rel=1e-9)
    assert thin.a.row_square_means == pytest.approx(dense.a.row_square_means, rel=1e-9)
    assert summaries.cell_costs(thin, plan) == pytest.approx(summaries.cell_costs(dense, plan), rel=1e-8, abs=1e-12)
    with pytest.raises(GfvizError, match="too many nodes"):
        Problem(*pair, p=1).objective(plan)


def test_leading_eigenvalues_bound_less_and_never_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = fam.factor_graph(80, rng, positions=60), fam.factor_graph(90, rng, positions=70)
    full, centred = (bound(Problem(a, b)) for bound in (bounds.spectral_bound, bounds.centred_bound))
    monkeypatch.setattr(network, "DENSE_NODES", 8)
    monkeypatch.setattr(network, "FULL_SPECTRUM", 10)
    monkeypatch.setattr(network, "LEADING", 6)
    some = bounds.spectral_bound(Problem(a, b))
    assert centred - 1e-12 <= some <= full + 1e-12


def test_a_large_graph_gets_an_interval_and_says_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n, positions, k = 5000, 40, 30
    graphs = []
    for _ in range(2):
        cols = np.concatenate([rng.choice(n, k, replace=False) for _ in range(positions)])
        z = sp.csr_array((rng.random(positions * k), cols, np.arange(0, positions * k + 1, k)), shape=(positions, n))
        graphs.append(fam.FactorGraph(z, np.full(n, 1 / n), positions))

    def refuse(self: fam.FactorGraph) -> np.ndarray:
        raise AssertionError("the n×n matrix was asked for")

    monkeypatch.setattr(fam.FactorGraph, "dense", refuse)
    result = gw.gromov_wasserstein(*graphs)
    assert 0 < result.lower <= result.upper
    assert result.coupling.shape == (n, n)
    assert result.coupling.sum() == pytest.approx(1.0)
    notes = {record.name: record.note for record in result.rungs if not record.used}
    assert "too many nodes" in notes["rows"] or "PSD" in notes["gilmore_lawler"]
    own, other = gw.node_shares(*graphs, result.coupling)
    assert own.sum() == pytest.approx(result.upper**2, rel=1e-6)
    assert other.sum() == pytest.approx(own.sum(), rel=1e-9)


def test_matching_the_heaviest_nodes_gives_a_coupling(pair: tuple[fam.FactorGraph, fam.FactorGraph]) -> None:
    problem = Problem(*pair)
    for size in (1, 7, 30, 500):
        plan = heads.head_plan(problem, size).matrix(30, 41).toarray()
        assert plan.min() >= 0
        assert plan.sum(1) == pytest.approx(problem.a.weights, abs=1e-15)
        assert plan.sum(0) == pytest.approx(problem.b.weights, abs=1e-15)


def test_matching_all_nodes_of_a_permuted_copy_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    a = fam.factor_graph(30, rng)
    assert a.factors is not None
    b = fam.FactorGraph(sp.csr_array(a.factors[:, rng.permutation(30)]), a.weights, a.positions)
    monkeypatch.setattr(network, "DENSE_NODES", 8)
    result = gw.gromov_wasserstein(a, b)
    assert result.lower == 0.0
    assert result.upper <= 1e-6 * np.abs(a.dense()).max()


def test_a_vocabulary_of_unequal_sizes_is_coupled_and_certified() -> None:
    rng = np.random.default_rng(2)
    graphs = []
    for n, positions in ((14_561, 512), (14_828, 512)):
        cols = np.stack([np.sort(rng.choice(n, 64, replace=False)) for _ in range(positions)])
        cells = (rng.random(positions * 64), cols.ravel(), np.arange(0, positions * 64 + 1, 64))
        graphs.append(fam.FactorGraph(sp.csr_array(cells, shape=(positions, n)), np.full(n, 1 / n), positions))
    result = gw.gromov_wasserstein(*graphs, budget="fast")
    assert 0 < result.lower <= result.upper < np.inf
    assert np.abs(result.coupling.sum(axis=1) * 14_561 - 1).max() < 1e-10
    assert np.abs(result.coupling.sum(axis=0) * 14_828 - 1).max() < 1e-10


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), mass=st.booleans())
def test_rows_of_heads_stay_below_rows_and_reach_them_where_all_are_heads(seed: int, size: int, mass: bool) -> None:
    rng = np.random.default_rng(seed)
    problem = Problem(fam.factor_graph(17, rng, mass=mass), fam.factor_graph(23, rng, mass=mass))
    exact = rows.rows_bound(problem)[0]
    found = heads.head_rows_bound(problem, size)
    assert 0 <= found <= exact * (1 + 1e-9) + 1e-15
    # 17 heads on both sides leave six nodes of one to their norms; cells blur a little
    assert heads.head_rows_bound(problem, 17) >= 0.6 * exact
