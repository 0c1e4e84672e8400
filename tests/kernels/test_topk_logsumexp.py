"""The one pass over the logits, against a float64 truth: no worse than the naive version's own error."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.kernels import blockwise, native, topk_logsumexp, topk_logsumexp_reference
from gfviz.kernels.topk_logsumexp import choose_kernel

from .conftest import non_finite_logits, random_logits, skip_unless

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def assert_as_good_as_naive(mine, naive, truth, size=None):
    """Error against the truth at most the naive version's own plus four units in the last place (of `size`)."""
    tolerance = 4 * torch.finfo(mine.dtype).eps * (truth.abs().clamp_min(1.0) if size is None else size)
    assert ((mine.double() - truth).abs() <= (naive.double() - truth).abs().max() + tolerance).all()


def assert_same_answer(logits, k, impl):
    """Multiset of values exact, ids distinct and theirs, logsumexp as good as torch's."""
    truth = torch.sort(logits.double(), descending=True, dim=-1).values[..., :k]
    values, ids, total = topk_logsumexp(logits, k, impl)
    _, _, naive = topk_logsumexp_reference(logits, k)
    assert torch.equal(values.double(), truth)
    assert torch.equal(logits.gather(-1, ids), values)
    assert all(len(set(row.tolist())) == k for row in ids.reshape(-1, k))
    assert_as_good_as_naive(total, naive, torch.logsumexp(logits.double(), -1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "vocabulary,k", [(1, 1), (5, 5), (63, 64 - 1), (100, 7), (9001, 64), (16384, 64), (20001, 128)]
)
def test_values_ids_and_logsumexp(cpu_impl, dtype, vocabulary, k):
    skip_unless(cpu_impl, dtype)
    assert_same_answer(random_logits(3, vocabulary, dtype), k, cpu_impl)


@pytest.mark.parametrize("shape", ["ascending", "descending", "constant", "one_block", "two_levels", "far", "steps_up"])
def test_rows_that_mislead_a_threshold(cpu_impl, shape):
    base = random_logits(2, 9003, torch.float32)
    rows = {
        "ascending": base.sort(1).values,
        "descending": base.sort(1, descending=True).values,
        "constant": torch.full_like(base, -3.25),
        "one_block": base.index_fill(1, torch.arange(640, 704), 50.0) + torch.arange(9003) * 1e-3,
        "two_levels": (base > 1.0).float(),
        "far": base * 1e30,
        "steps_up": base + (torch.arange(9003) // 512) * 70.0,
    }[shape]
    assert_same_answer(rows, 64, cpu_impl)


def test_logits_at_the_ends_of_the_range(cpu_impl):
    logits = torch.tensor([[3e38, 3e38, -3e38, 0.0], [-3e38, -3.4e38, -3e38, -3.1e38], [1e-40, -1e-40, 0.0, -0.0]])
    values, _, total = topk_logsumexp(logits, 2, cpu_impl)
    assert torch.equal(values, logits.topk(2).values)
    torch.testing.assert_close(total.double(), torch.logsumexp(logits.double(), 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vocabulary", [12, 9000])
def test_non_finite_rows_come_through_as_torch_gives_them(cpu_impl, vocabulary):
    logits = non_finite_logits(vocabulary)
    logits.requires_grad_()
    (mine, _, total), (theirs, _, expected) = topk_logsumexp(logits, 4, cpu_impl), topk_logsumexp_reference(logits, 4)
    torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(total, expected, equal_nan=True)
    gradients = [torch.autograd.grad(found.sum(), logits)[0] for found in (total, expected)]
    torch.testing.assert_close(*gradients, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(8192, 9000),
    st.integers(1, 63),
    st.integers(0, 2**16),
    st.sampled_from(["plain", "ties", "wide"]),
    st.sampled_from(["torch", "c"]),
)
def test_blocks_find_the_same_multiset_as_a_sort(vocabulary, k, seed, kind, impl):
    if impl == "c" and native.library() is None:
        return
    logits = random_logits(2, vocabulary, torch.float32, seed)
    logits = {"plain": logits, "ties": logits.round(), "wide": logits * 1e6}[kind]
    assert_same_answer(logits, k, impl)


@pytest.mark.parametrize("vocabulary", [50, 9001])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_as_good_as_the_naive_one(cpu_impl, dtype, vocabulary):
    skip_unless(cpu_impl, dtype)
    logits = random_logits(4, vocabulary, dtype)
    of_values, of_total = random_logits(4, 16, torch.float64, 1), random_logits(4, 1, torch.float64, 2).squeeze(1)

    def gradient(function, x):
        x = x.clone().requires_grad_()
        values, _, total = function(x)
        loss = (values * of_values.to(values.dtype)).sum() + (total * of_total.to(total.dtype)).sum()
        return torch.autograd.grad(loss, x)[0]

    def truth(x):
        return torch.sort(x, descending=True, dim=1).values[:, :16], None, torch.logsumexp(x, 1)

    expected = gradient(truth, logits.double())
    mine = gradient(lambda x: topk_logsumexp(x, 16, cpu_impl), logits)
    naive = gradient(lambda x: topk_logsumexp_reference(x, 16), logits)
    if dtype.itemsize == 2:
        # Equal logits at the rim: who among them gets the gradient is a choice. The sums over a row are not.
        mine, naive, expected = mine.double().sum(1), naive.double().sum(1), expected.sum(1)
        assert ((mine - expected).abs() <= (naive - expected).abs().max() + 0.05).all()
    else:
        # One unit in the last place of logsumexp is a factor of the whole row's gradient.
        size = float(torch.logsumexp(logits.double(), 1).abs().max() * of_total.abs().max())
        assert_as_good_as_naive(mine, naive, expected, size)


def test_finite_differences():
    logits = random_logits(2, 9, torch.float64, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: topk_logsumexp(x, 4, "torch")[::2], (logits,))


def test_rows_without_gradient_stay_zero_even_where_the_logits_are_nan(cpu_impl):
    logits = random_logits(2, 9000, torch.float32)
    logits[1] = torch.nan
    logits.requires_grad_()
    values, _, total = topk_logsumexp(logits, 3, cpu_impl)
    (values[0].sum() + total[0]).backward()
    assert torch.equal(logits.grad[1], torch.zeros(9000))
    assert torch.isfinite(logits.grad[0]).all()


@pytest.mark.parametrize("cut", ["window", "columns", "transposed", "expanded", "vector", "batch"])
def test_any_strides(cpu_impl, cut):
    whole = random_logits(6, 8200 * 2, torch.float32).unflatten(0, (2, 3))
    logits = {
        "window": whole[:, 1:],
        "columns": whole[..., 100:9000],
        "transposed": random_logits(8200, 4, torch.float32).T,
        "expanded": whole[0, :1].expand(3, -1),
        "vector": whole[0, 0],
        "batch": whole,
    }[cut].requires_grad_()
    mine, expected = topk_logsumexp(logits, 9, cpu_impl), topk_logsumexp_reference(logits, 9)
    for found, known in zip(mine, expected):
        assert found.shape == known.shape
    torch.testing.assert_close(mine[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(mine[2], expected[2])
    gradients = [torch.autograd.grad(v.sum() * 2 + t.sum(), logits)[0] for v, _, t in (mine, expected)]
    torch.testing.assert_close(*gradients)


def test_threads_and_neighbours_do_not_change_a_row(cpu_impl):
    logits = random_logits(70, 130_000, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = topk_logsumexp(logits, 64, cpu_impl)
        torch.set_num_threads(2)
        shared = topk_logsumexp(logits, 64, cpu_impl)
    finally:
        torch.set_num_threads(threads)
    one = topk_logsumexp(logits[33:34], 64, cpu_impl)
    for whole, same, row in zip(alone, shared, one):
        assert torch.equal(whole, same)
        assert torch.equal(whole[33:34], row)


def test_the_compiled_kernel_takes_the_smaller_of_equal_ids():
    if native.library() is None:
        pytest.skip("no C compiler, or GFVIZ_NO_COMPILE is set")
    logits = torch.zeros(1, 9000)
    logits[0, 700], logits[0, 1] = 1.0, -0.0
    assert topk_logsumexp(logits, 4, "c")[1].tolist() == [[700, 0, 1, 2]]


def test_no_rows_at_all(cpu_impl):
    logits = torch.zeros(0, 9000, requires_grad=True)
    values, ids, total = topk_logsumexp(logits, 3, cpu_impl)
    assert (values.shape, ids.shape, total.shape) == ((0, 3), (0, 3), (0,))
    (values.sum() + total.sum()).backward()
    assert logits.grad.shape == (0, 9000)


def test_auto_goes_by_the_row_and_not_by_how_many_there_are(monkeypatch):
    monkeypatch.setenv("GFVIZ_NO_COMPILE", "1")
    assert choose_kernel(torch.zeros(2, 9000), 3) is blockwise
    monkeypatch.delenv("GFVIZ_NO_COMPILE")
    if native.library() is None:
        pytest.skip("no C compiler")
    assert all(choose_kernel(torch.zeros(rows, 9000), 3) is native for rows in (0, 1, 100))
    assert choose_kernel(torch.zeros(2, 100), 3) is blockwise


@pytest.mark.parametrize(
    "impl,dtype,words", [("c", torch.float64, "float32 and bfloat16"), ("cuda", torch.float32, "choose one of auto")]
)
def test_an_implementation_that_cannot_run_says_why(impl, dtype, words):
    with pytest.raises(GfvizError, match=words):
        topk_logsumexp(torch.zeros(2, 9, dtype=dtype), 2, impl)
