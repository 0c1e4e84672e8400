"""The one pass over the logits, against a float64 truth: no worse than the naive version's own error."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.kernels import topk_logsumexp, topk_logsumexp_reference


def _logits(rows, vocabulary, dtype, seed=0, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * scale).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary,k", [(5, 5), (100, 7), (9001, 64), (16384, 64), (20000, 128)])
def test_values_ids_and_logsumexp(dtype, vocabulary, k):
    logits = _logits(3, vocabulary, dtype)
    truth_values = torch.sort(logits.double(), descending=True, dim=1).values[:, :k]
    truth_total = torch.logsumexp(logits.double(), 1)
    values, ids, total = topk_logsumexp(logits, k)
    _, _, naive_total = topk_logsumexp_reference(logits, k)
    assert torch.equal(values.double(), truth_values)
    assert torch.equal(logits.gather(1, ids), values)
    error, naive_error = (total.double() - truth_total).abs().max(), (naive_total.double() - truth_total).abs().max()
    assert error <= naive_error + 4 * torch.finfo(total.dtype).eps * truth_total.abs().max()


@pytest.mark.parametrize("vocabulary", [50, 9001])
def test_gradient_equals_the_float64_truth(vocabulary):
    logits = _logits(4, vocabulary, torch.float64).requires_grad_()
    weights = _logits(4, 16, torch.float64, seed=1)
    values, _, total = topk_logsumexp(logits, 16)
    (mine,) = torch.autograd.grad((values * weights).sum() + (total**2).sum(), logits)
    truth = torch.sort(logits, descending=True, dim=1).values[:, :16]
    (expected,) = torch.autograd.grad((truth * weights).sum() + (torch.logsumexp(logits, 1) ** 2).sum(), logits)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_finite_differences():
    logits = _logits(2, 9, torch.float64, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: topk_logsumexp(x, 4)[::2], (logits,))


def test_rows_without_gradient_stay_zero_even_where_the_logits_are_nan():
    logits = _logits(2, 12, torch.float32)
    logits[1] = torch.nan
    logits.requires_grad_()
    values, _, total = topk_logsumexp(logits, 3)
    (values[0].sum() + total[0]).backward()
    assert torch.equal(logits.grad[1], torch.zeros(12))
    assert torch.isfinite(logits.grad[0]).all()


@pytest.mark.parametrize("vocabulary", [12, 9000])
def test_non_finite_rows_come_through_as_torch_gives_them(vocabulary):
    logits = torch.zeros(4, vocabulary)
    logits[0] = -torch.inf
    logits[1, 5] = torch.inf
    logits[2, 5] = torch.nan
    logits[3, : vocabulary // 2] = -torch.inf
    values, _, total = topk_logsumexp(logits, 4)
    expected_values, _, expected_total = topk_logsumexp_reference(logits, 4)
    assert torch.equal(values.nan_to_num(nan=7.0), expected_values.nan_to_num(nan=7.0))
    torch.testing.assert_close(total, expected_total, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(8192, 9000), st.integers(1, 63), st.integers(0, 2**16), st.booleans())
def test_blocks_find_the_same_multiset_as_a_sort(vocabulary, k, seed, ties):
    logits = _logits(2, vocabulary, torch.float32, seed)
    if ties:
        logits = logits.round()
    values, ids, _ = topk_logsumexp(logits, k)
    assert torch.equal(values, torch.sort(logits, descending=True, dim=1).values[:, :k])
    assert all(len(set(row.tolist())) == k for row in ids)
    assert torch.equal(logits.gather(1, ids), values)
