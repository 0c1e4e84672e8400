"""Exchange of mass along cycles ends, keeps the marginals and never raises the objective."""

import numpy as np
import pytest
import torch

from gfviz.graph import CoactivationGraph
from gfviz.gromov import native, objective
from gfviz.gromov.couplings import sorted_coupling
from gfviz.gromov.exchange import exchange
from gfviz.gromov.problem import Problem
from gfviz.signals import TopKLogits
from tests.gromov import families as fam


def _saturated(vocabulary, seed):
    """A token graph of a nearly certain model: most entries are far below the rounding of the largest."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(200, vocabulary, generator=generator) * 6
    return CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 8))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("p", [1, 2])
def test_exchange_ends_on_entries_of_all_magnitudes(p):
    a, b = _saturated(60, 0), _saturated(47, 1)
    problem = Problem(a, b, p, None)
    start = sorted_coupling(problem)
    found = exchange(problem, start)
    plan = found.matrix(a.n, b.n).toarray()
    np.testing.assert_allclose(plan.sum(1), a.weights, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), b.weights, atol=1e-12)
    assert plan.min() >= 0
    before, after = (objective(a, b, x.matrix(a.n, b.n), p=p) for x in (start, found))
    assert after <= before * (1 + 1e-12)


@pytest.mark.skipif(native.library() is None, reason="no C compiler here")
@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_exchange_leaves_its_twin_nothing_to_move(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    sides = [fam.psd(size, rng) for size in (23, 17)]
    weights = [w / w.sum() for w in (rng.dirichlet(np.ones(len(x))) + 0.01 for x in sides)]
    problem = Problem(*sides, weights=tuple(weights))
    start = sorted_coupling(problem)
    found = exchange(problem, start)
    assert problem.misplaced(found) < 1e-13
    reached = problem.objective(found)[0]
    assert reached < problem.objective(start)[0]
    monkeypatch.setattr(native, "library", lambda: None)
    again = problem.objective(exchange(problem, found))[0]
    assert again == pytest.approx(reached, rel=1e-6)
    alone = problem.objective(exchange(problem, start))[0]
    assert reached == pytest.approx(alone, rel=0.02)  # other orders of equal gains may end at another local optimum
