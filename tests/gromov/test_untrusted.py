"""What must not be believed: forged graphs, external solvers, cancelling sums, underflow."""

import numpy as np
import pytest
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph
from gfviz.gromov import gromov_wasserstein
from gfviz.gromov.bounds import spectrum_distance
from gfviz.gromov.network import MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan


def _accumulated(matrix):
    n = len(matrix)
    keys = np.arange(n)
    labels = [str(k) for k in keys]
    held = sparse.csr_array(np.asarray(matrix, float))
    return CoactivationGraph("rank", "raw", "uniform", 10, keys, labels, "rank", accumulated=held)


def test_an_accumulated_matrix_is_not_taken_for_a_gram():
    indefinite = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]])  # passes every 2×2 minor
    assert np.linalg.eigvalsh(indefinite)[0] < -0.2
    assert not MeasureNetwork.of(_accumulated(indefinite)).psd
    result = gromov_wasserstein(_accumulated(indefinite), _accumulated(np.eye(3)))
    assert result.proof not in ("enumeration", "branch and bound")
    gram = np.array([[1.0, 0.5], [0.5, 1.0]])
    assert MeasureNetwork.of(_accumulated(gram)).psd


def test_a_plan_with_other_marginals_is_no_upper_bound():
    problem = Problem(np.eye(3), np.ones((3, 3)), 2, None)
    cells = np.arange(3)
    assert problem.misplaced(Plan(cells, cells, np.full(3, 1 / 3))) < 1e-15
    assert problem.misplaced(Plan(cells, cells, np.array([0.5, 0.25, 0.25]))) > 0.1
    assert problem.misplaced(Plan(cells[:2], cells[:2], np.full(2, 1 / 3))) > 0.1


def test_powers_that_underflow_prove_nothing():
    with pytest.raises(GfvizError, match="p = 1100"):
        gromov_wasserstein([[0, 1], [1, 0]], [[0, 3], [3, 0]], p=1100)
    tiny = np.array([[1.0, 1e-170], [1e-170, 1.0]])
    result = gromov_wasserstein(np.eye(2), tiny)
    assert result.upper > 0
    assert result.proof != "bounds meet"
    same = gromov_wasserstein(tiny, tiny)
    assert (same.lower, same.upper) == (0, 0)
    assert same.proof is not None


def test_weights_that_sums_absorb_are_refused():
    with pytest.raises(GfvizError, match="uniform weights"):
        gromov_wasserstein(np.diag([0.0, 0, 1]), np.zeros((3, 3)), weights=([0.5, 0.5, 1e-17], [1, 1, 1]))


def test_rests_of_spectra_that_cancel_do_not_raise_the_bound():
    """The norm of what was left out may be wrong by √ε of the whole: equal graphs still get distance 0."""
    rng = np.random.default_rng(0)
    a = MeasureNetwork.of(np.eye(4))
    b = MeasureNetwork.of(np.eye(4))
    a.__dict__["rest_spectrum"] = (np.array([0.5]), 1e-8)
    b.__dict__["rest_spectrum"] = (np.array([0.5]), 1.4e-8 * (1 + 0.1 * rng.random()))
    assert spectrum_distance(a, b) == 0
    b.__dict__["rest_spectrum"] = (np.array([0.5]), 0.25)
    assert spectrum_distance(a, b) == pytest.approx(0.25**2, rel=1e-6)


@pytest.mark.parametrize("swap", [False, True])
def test_a_small_graph_against_one_too_large_to_multiply_out(swap, monkeypatch):
    from gfviz.gromov import network
    from gfviz.signals import TopKLogits

    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    big = CoactivationGraph.from_signal(TopKLogits.from_logits(torch.randn(30, 90, generator=generator) * 3, 8))
    small = CoactivationGraph.from_signal(TopKLogits.from_logits(torch.randn(9, 12, generator=generator) * 3, 4))
    pair = (small, big) if swap else (big, small)
    dense = gromov_wasserstein(*pair, budget="fast")
    monkeypatch.setattr(network, "DENSE_NODES", small.n)
    monkeypatch.setattr(network, "SPARSE_PRODUCTS", 0)
    sparse_result = gromov_wasserstein(*pair, budget="standard")
    assert sparse_result.lower <= dense.upper * (1 + 1e-9)
    assert sparse_result.upper >= dense.lower * (1 - 1e-9)


def test_what_rounding_leaves_of_semidefiniteness_is_paid_for():
    """A Gram matrix of fewer factors than nodes has eigenvalues of either sign around zero."""
    z = np.random.default_rng(0).standard_normal((3, 40))
    low, full, indefinite = z.T @ z, z.T @ z + np.eye(40), z.T @ z - np.eye(40)
    shortfalls = [MeasureNetwork.of((x + x.T) / 2).psd_shortfall for x in (low, full, indefinite)]
    assert 0 < shortfalls[0] < 1e-12 * np.linalg.norm(low, 2)
    assert shortfalls[1] == 0
    assert shortfalls[2] is None
    other = np.random.default_rng(1).standard_normal((3, 40))
    problem = Problem(low, other.T @ other, 2, None)
    assert problem.assignable
    assert problem.shift == pytest.approx(2 * max(x.psd_shortfall for x in (problem.a, problem.b)) / np.sqrt(40))
    assert problem.outward_lower(1e-3) == pytest.approx(
        (np.sqrt(1e-3 - problem.margin) - problem.shift) ** 2, rel=1e-12
    )
