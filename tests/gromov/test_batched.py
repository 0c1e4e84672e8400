"""The torch bounds against the float64 rungs, and their gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gfviz.gromov as gw
from gfviz.errors import GfvizError
from gfviz.gromov import bounds
from gfviz.gromov.batched import KINDS, GraphSummary, lower_bound, sorted_upper_bound
from gfviz.gromov.problem import Problem
from tests.gromov import families as fam

NUMPY = {
    "sorted": bounds.sorted_bound,
    "centred": bounds.centred_bound,
    "spectral": bounds.spectral_bound,
    "entries": bounds.entries_bound,
}


def _signals(batch: int, positions: int, n: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(-np.sort(-rng.dirichlet(np.ones(n), size=(batch, positions)), axis=2))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 2e-3)])
def test_torch_equals_the_numpy_rungs(dtype: torch.dtype, tolerance: float) -> None:
    za, zb = _signals(4, 9, 7, 0), _signals(4, 12, 7, 1)
    a, b = (GraphSummary.from_factors(z.to(dtype)) for z in (za, zb))
    for i in range(4):
        c, d = (np.asarray(z[i].T @ z[i] / len(z[i])) for z in (za, zb))
        problem = Problem((c + c.T) / 2, (d + d.T) / 2)
        for kind in KINDS:
            expected = problem.value(NUMPY[kind](problem)) ** 2
            assert float(lower_bound(a, b, kind)[i]) == pytest.approx(expected, rel=tolerance)
        upper = gw.run_rung("sorted_coupling", (c + c.T) / 2, (d + d.T) / 2).value
        assert upper is not None
        assert float(sorted_upper_bound(a, b)[i]) == pytest.approx(upper**2, rel=tolerance)


def test_indefinite_spectra_are_paired_by_sign() -> None:
    rng = np.random.default_rng(2)
    c, d = fam.symmetric(5, rng), fam.symmetric(5, rng)
    a, b = (GraphSummary.from_graph(torch.from_numpy(x)[None]) for x in (c, d))
    problem = Problem(c, d)
    assert float(lower_bound(a, b, "spectral")[0]) == pytest.approx(problem.value(bounds.spectral_bound(problem)) ** 2)


def test_masked_positions_may_hold_nan_and_change_nothing() -> None:
    z = _signals(2, 6, 5, 3)
    padded = torch.cat([torch.full((2, 3, 5), torch.nan, dtype=z.dtype), z], dim=1)
    mask = torch.arange(9) >= 3
    a, b = GraphSummary.from_factors(z), GraphSummary.from_factors(padded, mask.expand(2, 9))
    assert torch.allclose(a.graph, b.graph, rtol=1e-14)


@pytest.mark.parametrize("kind", [*KINDS, "upper"])
def test_gradients_by_finite_differences(kind: str) -> None:
    teacher = GraphSummary.from_factors(_signals(2, 8, 4, 5)).detach()
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 0] = False

    def loss(z: torch.Tensor) -> torch.Tensor:
        ours = GraphSummary.from_factors(z, mask)
        if kind == "upper":
            return sorted_upper_bound(ours, teacher)
        return lower_bound(ours, teacher, kind)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, (_signals(2, 6, 4, 4).requires_grad_(),))


def test_the_gradient_at_a_graph_without_rest_is_finite() -> None:
    z = torch.ones(1, 3, 4, dtype=torch.float64, requires_grad=True)
    other = GraphSummary.from_factors(_signals(1, 3, 4, 0))
    lower_bound(GraphSummary.from_factors(z, kinds=("centred",)), other, "centred").sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_what_is_missing_is_said() -> None:
    z = _signals(1, 3, 4, 0)
    a = GraphSummary.from_factors(z, kinds=("sorted",))
    with pytest.raises(GfvizError, match="without 'spectral'"):
        lower_bound(a, a, "spectral")
    with pytest.raises(GfvizError, match="nodes"):
        lower_bound(a, GraphSummary.from_factors(z[..., :3]), "sorted")
    with pytest.raises(GfvizError, match="mask"):
        GraphSummary.from_factors(z, torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(GfvizError, match="no bound"):
        GraphSummary.from_factors(z, kinds=("other",))  # type: ignore[arg-type]
