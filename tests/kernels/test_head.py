"""The fused head against the dense product, in float64 where values are compared."""

import pytest
import torch

from gfviz.errors import GfvizError
from gfviz.kernels import head, head_topk_logsumexp, native


def parts(rows=7, width=5, vocabulary=37, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    return make(rows, width), make(vocabulary, width), make(vocabulary), targets


def dense(hidden, weight, bias, targets, k):
    logits = hidden @ weight.T + (0 if bias is None else bias)
    values, ids = logits.topk(k, 1)
    return values, ids, torch.logsumexp(logits, 1), logits.gather(1, targets.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("chunk", [1, 4, 16, 36, 37, 1000])
@pytest.mark.parametrize("k", [1, 6, 37])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_equal_the_dense_ones(chunk, k, with_bias):
    hidden, weight, bias, targets = parts()
    bias = bias if with_bias else None
    leaves = [leaf.requires_grad_() for leaf in (hidden, weight, bias) if leaf is not None]
    mine = head_topk_logsumexp(hidden, weight, k, targets, bias, chunk)
    expected = dense(hidden, weight, bias, targets, k)
    for found, known in zip(mine, expected):
        torch.testing.assert_close(found, known)
    weights = torch.linspace(-1, 2, k, dtype=torch.float64)

    def gradients(values, _, total, chosen):
        return torch.autograd.grad((values * weights).sum() + (total**2).sum() - (3 * chosen).sum(), leaves)

    for found, known in zip(gradients(*mine), gradients(*expected)):
        torch.testing.assert_close(found, known)


def test_cross_entropy_alone():
    hidden, weight, _, targets = parts()
    hidden.requires_grad_()
    found = head_topk_logsumexp(hidden, weight, 1, targets, chunk=10)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(found.logsumexp - found.targets, expected)
    (mine,) = torch.autograd.grad((found.logsumexp - found.targets).sum(), hidden)
    torch.testing.assert_close(mine, torch.autograd.grad(expected.sum(), hidden)[0])


def test_rows_that_nobody_asks_about_are_silent():
    hidden, weight, _, targets = parts()
    hidden[2] = torch.nan
    hidden.requires_grad_(), weight.requires_grad_()
    found = head_topk_logsumexp(hidden, weight, 3, targets, chunk=10)
    counted = torch.arange(7) != 2
    loss = torch.where(counted, found.logsumexp - found.targets + found.values[:, 0], torch.zeros(()))
    of_hidden, of_weight = torch.autograd.grad(loss.sum(), (hidden, weight))
    assert torch.equal(of_hidden[2], torch.zeros(5, dtype=torch.float64))
    assert torch.isfinite(of_hidden).all()
    assert torch.isfinite(of_weight).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_vocabularies_through_the_kernels_of_the_machine(dtype):
    hidden, weight, _, targets = parts(4, 16, 40_000, dtype)
    hidden.requires_grad_(), weight.requires_grad_()
    found = head_topk_logsumexp(hidden, weight, 64, targets, chunk=9000)
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    values, _, total, chosen = dense(*exact, None, targets, 64)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found.values.double(), values, rtol=4 * unit, atol=4 * unit)
    torch.testing.assert_close(found.logsumexp.double(), total, rtol=4 * unit, atol=4 * unit)
    mine = torch.autograd.grad((found.logsumexp - found.targets).sum(), (hidden, weight))
    _, _, naive_total, naive_chosen = dense(hidden, weight, None, targets, 64)
    naive = torch.autograd.grad((naive_total.to(dtype) - naive_chosen).sum(), (hidden, weight))
    for got, plain, known in zip(mine, naive, torch.autograd.grad((total - chosen).sum(), exact)):
        error, allowed = ((each.double() - known).abs().max() for each in (got, plain))
        assert error <= allowed + 8 * unit * known.abs().max()


def test_no_tensor_as_wide_as_the_vocabulary_is_made():
    hidden, weight, _, targets = parts(8, 4, 50_000, torch.float32)
    hidden.requires_grad_()
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            seen.extend(
                each.numel() for each in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(each)
            )
            return out

    with Watch():
        found = head_topk_logsumexp(hidden, weight, 8, targets, chunk=10_000)
        (found.logsumexp.sum() + found.values.sum()).backward()
    assert max(size for size in seen if size != weight.numel()) == 8 * 10_000


def test_a_frozen_head_costs_no_gradient_of_its_own():
    hidden, weight, _, _ = parts()
    hidden.requires_grad_()
    head_topk_logsumexp(hidden, weight, 2).logsumexp.sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert head_topk_logsumexp(hidden, weight, 2).targets is None


@pytest.mark.parametrize(
    "change,words",
    [
        ({"weight": torch.zeros(9, 4)}, "do not fit"),
        ({"weight": torch.zeros(9, 3, dtype=torch.float64)}, "one floating dtype"),
        ({"k": 10}, "outside 1..9"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "targets must be int64"),
        ({"bias": torch.zeros(8)}, "bias must have the shape"),
        ({"chunk": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    given = {"hidden": torch.zeros(2, 3), "weight": torch.zeros(9, 3), "k": 2, **change}
    with pytest.raises(GfvizError, match=words):
        head_topk_logsumexp(**given)


def test_the_default_chunk_is_wide_enough_for_the_compiled_kernel():
    assert head.CHUNK >= native.MIN_VOCABULARY
