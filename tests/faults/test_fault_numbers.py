"""Numbers at the edge: right (against a second computation in float64 or by hand), or refused; never silently wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gfviz as gv
from gfviz.errors import GfvizError
from gfviz.fusion.config import parse_config
from gfviz.fusion.losses import SortedGLD, UniversalLogitDistillation
from gfviz.fusion.session import create_run, execute
from gfviz.signals import TopKLogits
from tests.faults.victims import curves, differing, fusion_mapping, zoo
from tests.fusion.test_fusion_losses import make_pair

BASE = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def graph(logits: torch.Tensor, normalize: str = "prob", k: int | None = None, nodes: str = "token"):
    return gv.CoactivationGraph.from_signal(TopKLogits.from_logits(logits, k), nodes=nodes, normalize=normalize)


def dense(logits: torch.Tensor, normalize: str) -> np.ndarray:
    """C of all tokens in float64, by the definition: (1/T) Σ z zᵀ."""
    x = logits.double().numpy()
    if normalize == "prob":
        z = np.exp(x - x.max(1, keepdims=True))
        z /= z.sum(1, keepdims=True)
    elif normalize == "zscore":
        x = x / np.abs(x).max(1, keepdims=True)
        z = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    else:
        z = x
    return z.T @ z / len(z)


@pytest.mark.parametrize("normalize", ["prob", "raw", "zscore"])
@pytest.mark.parametrize("nodes", ["token", "rank"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_are_refused(normalize: str, nodes: str, bad: float) -> None:
    logits = BASE.clone()
    logits[2, 3] = bad
    with pytest.raises(GfvizError, match="NaN or"):
        graph(logits, normalize, nodes=nodes)
    # The same at a position that does not count changes nothing.
    mask = torch.tensor([True, True, False, True, True])
    one = gv.CoactivationGraph.from_signal(TopKLogits.from_logits(logits, mask=mask), normalize=normalize)
    other = gv.CoactivationGraph.from_signal(TopKLogits.from_logits(BASE, mask=mask), normalize=normalize)
    assert one.content_hash == other.content_hash


@pytest.mark.parametrize("normalize", ["prob", "raw", "zscore"])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 100.0, 1e30, 2e37])
def test_scales_are_right_or_refused(normalize: str, scale: float) -> None:
    logits = BASE * scale
    if normalize == "prob" and scale > 1e4:
        with pytest.raises(GfvizError, match="too large for their precision"):
            graph(logits)
        # In float64 a scale of 1e4 is still resolved; one of 1e30 by nobody.
        exact = graph((BASE * 1e4).double()).dense()
        np.testing.assert_allclose(exact, dense(BASE.double() * 1e4, "prob"), atol=1e-9)
        return
    made, wanted = graph(logits, normalize).dense(), dense(logits, normalize)
    assert np.isfinite(made).all()
    np.testing.assert_allclose(made / np.abs(wanted).max(), wanted / np.abs(wanted).max(), atol=3e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    """Sums of exponentials and squares of half-precision logits leave their range; the graph must not."""
    logits = (BASE * 20).to(dtype)
    np.testing.assert_allclose(graph(logits).dense(), dense(logits, "prob"), atol=1e-5)
    large = (BASE * 2e4).to(dtype)
    np.testing.assert_allclose(graph(large, "raw").dense() / 4e8, dense(large, "raw") / 4e8, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(graph(large, "zscore").dense(), dense(large, "zscore"), atol=1e-4)
    with pytest.raises(GfvizError, match="too large for their precision"):
        graph(torch.full((2, 8), 65504.0).to(dtype))
    half = torch.full((2, 3), torch.inf, dtype=dtype)
    with pytest.raises(GfvizError, match=r"NaN or \+inf"):
        graph(half)


def test_equal_logits_and_ties() -> None:
    equal = graph(torch.zeros(3, 8))
    np.testing.assert_allclose(equal.dense(), np.full((8, 8), 1 / 64), rtol=1e-6)
    assert not graph(torch.full((3, 8), 7.5), "zscore").dense().any()
    # Ties may be kept under any of their ids, but the multiset of values is one.
    tied = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(4, 1)
    signal = TopKLogits.from_logits(tied, 2)
    assert signal.values.tolist() == [[1.0, 1.0]] * 4
    assert all(len(set(row)) == 2 and max(row) < 3 for row in signal.ids.tolist())
    one = graph(tied, k=2, nodes="rank")
    np.testing.assert_allclose(one.dense(), np.full((2, 2), one.dense()[0, 0]))


def test_the_whole_vocabulary_one_position_one_node() -> None:
    whole = TopKLogits.from_logits(BASE, 8)
    assert float(whole.tail_mass().max()) < 1e-6
    np.testing.assert_allclose(graph(BASE, k=8).dense(), dense(BASE, "prob"), atol=1e-7)
    with pytest.raises(GfvizError, match="k = 9 exceeds"):
        TopKLogits.from_logits(BASE, 9)
    np.testing.assert_allclose(graph(BASE[:1]).dense(), dense(BASE[:1], "prob"), atol=1e-7)
    alone = graph(BASE[:, :1])
    assert (alone.n, alone.dense().tolist()) == (1, [[1.0]])
    assert gv.gromov_wasserstein(alone, alone).upper == 0.0
    # One node against another: the only coupling there is, so the distance is the difference.
    found = gv.gromov_wasserstein(np.array([[2.0]]), np.array([[5.0]]))
    assert found.lower <= 3.0 <= found.upper
    assert found.upper - found.lower < 1e-9


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("p", [1, 2])
def test_distances_scale_with_their_matrices(scale: float, p: int) -> None:
    """GW_p(sC, sD) = s·GW_p(C, D): the definition is homogeneous of degree one."""
    rng = np.random.default_rng(0)
    a, b = (x @ x.T / 5 for x in (rng.random((5, 7)), rng.random((5, 7))))
    plain, scaled = (gv.gromov_wasserstein(a * s, b * s, p=p, budget="fast") for s in (1.0, scale))
    assert scaled.lower / scale == pytest.approx(plain.lower, rel=1e-12)
    assert scaled.upper / scale == pytest.approx(plain.upper, rel=1e-12)
    assert gv.sorted_gw(a * scale, b * scale, p=p) / scale == pytest.approx(gv.sorted_gw(a, b, p=p), rel=1e-12)


@pytest.mark.parametrize("bad", [np.full((3, 3), np.nan), np.full((3, 3), np.inf), np.zeros((0, 0)), np.zeros((2, 3))])
def test_distances_refuse_what_is_no_matrix(bad: np.ndarray) -> None:
    with pytest.raises(GfvizError):
        gv.gromov_wasserstein(bad, np.eye(3))
    with pytest.raises(GfvizError):
        gv.sorted_gw(bad, np.eye(3))


@pytest.mark.parametrize("loss", [UniversalLogitDistillation(), SortedGLD("prob"), SortedGLD("zscore")])
def test_a_teacher_of_nan_makes_the_loss_nan_not_a_number(loss) -> None:
    """The trainer skips a step whose loss is not finite: a number that hides NaN would train on nothing."""
    pair = make_pair()[0]
    sound = loss(pair)
    assert all(bool(torch.isfinite(part).all()) for part in sound if isinstance(part, torch.Tensor))
    poisoned = pair.teacher.signal.values.clone()
    poisoned[pair.teacher.signal.mask] = torch.nan
    from dataclasses import replace

    teacher = replace(pair.teacher, signal=replace(pair.teacher.signal, values=poisoned))
    value = loss(replace(pair, teacher=teacher))
    numbers = [part for part in value if isinstance(part, torch.Tensor) and part.is_floating_point()]
    assert any(bool(torch.isnan(part).any()) for part in numbers)


def test_a_run_repeats_and_records_what_repeats_it(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    models = zoo(tmp_path)
    mapping = {**fusion_mapping(models, tmp_path / "runs", steps=3), "seed": 11}
    runs = [create_run(parse_config(mapping)) for _ in range(2)]
    for run in runs:
        execute(run)
    assert differing(*map(curves, runs)) == []
    facts = [json.loads((run.path / "run.json").read_text())["facts"] for run in runs]
    assert facts[0] == facts[1]
    assert facts[0]["seed"] == 11
    assert {"gfviz", "torch", "transformers", "accelerate", "tokenizers", "numpy", "python"} <= set(
        facts[0]["versions"]
    )
    assert set(facts[0]["models"]) == {"pivot", "t"}
    assert set(facts[0]["vocabularies"]) == {"pivot", "t"}
    for group in ("data", "models", "vocabularies"):
        for value in facts[0][group].values():
            assert len(value) == 64
            assert int(value, 16) >= 0
    assert runs[0].config["seed"] == 11
