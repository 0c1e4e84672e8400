"""TopKLogits: probabilities, tails and normalisations against dense float64 softmax."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.signals import TopKLogits


def _logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_probabilities_and_tail_are_those_of_the_full_softmax():
    logits = _logits(2, 6, 50)
    signal = TopKLogits.from_logits(logits, k=8)
    full = torch.softmax(logits, -1).sort(-1, descending=True).values
    torch.testing.assert_close(signal.probs(), full[..., :8])
    torch.testing.assert_close(signal.tail_mass(), full[..., 8:].sum(-1))
    torch.testing.assert_close(signal.log_probs(), full[..., :8].log())


def test_default_k_is_64_or_the_whole_vocabulary():
    assert TopKLogits.from_logits(_logits(3, 100)).k == 64
    whole = TopKLogits.from_logits(_logits(3, 10))
    assert whole.k == 10
    torch.testing.assert_close(whole.tail_mass(), torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)


def test_masked_positions_are_zeros_whatever_the_model_returned_there():
    logits = _logits(2, 4, 20)
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    poisoned = torch.where(mask.unsqueeze(-1), logits, torch.nan).requires_grad_()
    clean, dirty = TopKLogits.from_logits(logits, 5, mask), TopKLogits.from_logits(poisoned, 5, mask)
    for kind in ("prob", "raw", "zscore"):
        assert torch.equal(clean.normalized(kind), dirty.normalized(kind))
        assert (dirty.normalized(kind)[~mask] == 0).all()
    (dirty.normalized("zscore").square().sum() + dirty.normalized("prob").sum() + dirty.tail_mass().sum()).backward()
    assert (poisoned.grad[~mask] == 0).all()
    assert torch.isfinite(poisoned.grad).all()
    dirty.require_finite()


def test_normalisations_by_hand():
    signal = TopKLogits.from_logits(torch.tensor([[3.0, 1.0, -5.0]], dtype=torch.float64), k=2)
    assert signal.normalized("raw").tolist() == [[3.0, 1.0]]
    torch.testing.assert_close(signal.normalized("zscore"), torch.tensor([[1.0, -1.0]], dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-50, 50), st.floats(0.1, 10))
def test_invariances_of_the_normalisations(seed, shift, temperature):
    logits = _logits(3, 12, seed=seed)
    plain, shifted = TopKLogits.from_logits(logits, 5), TopKLogits.from_logits(logits + shift, 5)
    torch.testing.assert_close(plain.normalized("prob"), shifted.normalized("prob"), rtol=1e-10, atol=1e-12)
    changed = TopKLogits.from_logits(logits / temperature + shift, 5).normalized("zscore")
    torch.testing.assert_close(plain.normalized("zscore"), changed, rtol=1e-7, atol=1e-7)
    assert plain.normalized("zscore").mean(-1).abs().max() < 1e-12


def test_all_equal_logits_have_no_spread():
    signal = TopKLogits.from_logits(torch.full((2, 9), 1e4), k=4)
    assert torch.equal(signal.normalized("zscore"), torch.zeros(2, 4))
    torch.testing.assert_close(signal.probs(), torch.full((2, 4), 1 / 9))


def test_top_is_the_signal_of_a_smaller_k():
    logits = _logits(3, 30)
    narrow, direct = TopKLogits.from_logits(logits, 9).top(4), TopKLogits.from_logits(logits, 4)
    assert torch.equal(narrow.values, direct.values)
    assert torch.equal(narrow.logsumexp, direct.logsumexp)


@pytest.mark.parametrize("bad,words", [
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8), k=9), "k = 9 exceeds the vocabulary of 8"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8), k=0), "at least 1"),
    (lambda: TopKLogits.from_logits(torch.zeros(8)), r"\[T, V\]"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8, dtype=torch.int64)), "floating"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 0)), "empty vocabulary"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8), mask=torch.ones(4)), "mask has the shape"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8)).normalized("softmax"), "unknown"),
    (lambda: TopKLogits.from_logits(torch.zeros(3, 8)).top(9), "outside 1..8"),
    (lambda: TopKLogits.from_logits(torch.full((1, 4), torch.nan)).require_finite(), "NaN"),
    (lambda: TopKLogits.from_logits(torch.full((1, 4), -torch.inf)).require_finite(), "-inf over the whole"),
])  # fmt: skip
def test_bad_input_is_named(bad, words):
    with pytest.raises(GfvizError, match=words):
        bad()


def test_half_precision_keeps_a_float32_logsumexp():
    logits = _logits(4, 5000).to(torch.bfloat16)
    signal = TopKLogits.from_logits(logits, 8)
    assert signal.logsumexp.dtype == torch.float32
    torch.testing.assert_close(signal.logsumexp, torch.logsumexp(logits.float(), -1))


@pytest.mark.parametrize(("dtype", "scale"), [
    (torch.float64, 1e-300), (torch.float64, 1e-200), (torch.float64, 1e200), (torch.float64, 2e307),
    (torch.float32, 1e-36), (torch.float32, 4e37),
])  # fmt: skip
def test_zscores_are_the_same_at_every_scale_of_the_type(dtype, scale):
    base = torch.tensor([[4.0, 2.5, -1.0, -3.0], [1.0, 0.5, 0.25, 0.0]], dtype=torch.float64)
    wanted = (base - base.mean(1, keepdim=True)) / base.std(1, keepdim=True, correction=0)
    logits = (base * scale).to(dtype).requires_grad_()
    found = TopKLogits.from_logits(logits).normalized("zscore")
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-7)
    # The gradient at scale s is 1/s of that at scale 1.
    leaf = base.clone().requires_grad_()
    ((leaf - leaf.mean(1, keepdim=True)) / leaf.std(1, keepdim=True, correction=0)).pow(3).sum().backward()
    if 1e-36 <= scale <= 1e36 or dtype == torch.float64:
        found.pow(3).sum().backward()
        torch.testing.assert_close(logits.grad.double() * scale, leaf.grad, rtol=1e-4, atol=1e-5)


def test_zscores_of_subnormal_logits_are_right():
    """Whole multiples of the smallest number there is, whose inverse no float holds."""
    base = torch.tensor([[9.0, 4.0, 0.0, -7.0]], dtype=torch.float64)
    wanted = (base - base.mean(1, keepdim=True)) / base.std(1, keepdim=True, correction=0)
    for dtype, least in ((torch.float64, 5e-324), (torch.float32, 2.0**-149)):
        signal = TopKLogits.from_logits((base * least).to(dtype))
        torch.testing.assert_close(signal.normalized("zscore").double(), wanted, rtol=1e-6, atol=1e-7)
