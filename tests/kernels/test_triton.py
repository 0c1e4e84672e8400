"""The Triton kernel beside its torch twin: on a GPU as such, elsewhere interpreted, in a process of its own.

Run here with `TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py`; without it the first test does that.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from gfviz.errors import GfvizError
from gfviz.kernels import topk_logsumexp, topk_logsumexp_reference

from .conftest import INTERPRETED, non_finite_logits, random_logits
from .test_topk_logsumexp import assert_as_good_as_naive, assert_same_answer

DEVICE = "cpu" if INTERPRETED else "cuda"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
runs = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="no GPU; these run interpreted in a process of their own"
)


@needs_triton
@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="the tests below run in this process")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    found = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=280
    )
    assert found.returncode == 0, found.stdout[-4000:]
    assert " passed" in found.stdout


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="needs the compiler")
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gfviz.kernels import triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    given = {"ids": "*i64", "scratch": "*i64", "maxima": "*i32", "of_total": "*fp32", "total": "*fp32"}
    given |= dict.fromkeys(("rows", "values", "of_values", "gradient"), "*bf16")
    sizes = {"GROUP": 64, "TILE": 4096, "GROUPS": 4096, "WIDTH": 64}
    for function in (kernels._scan, kernels._select, kernels._spread, kernels._add_chosen):
        constants = {name: sizes[name] for name in function.arg_names if name in sizes}
        signature = {name: given.get(name, "i32") for name in function.arg_names}
        source = ASTSource(function, signature | dict.fromkeys(constants, "constexpr"), constants)
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
        assert ".target sm_90" in built.asm["ptx"]
        # Registers that spill would be read and written through memory in every one of the 32 rounds.
        assert ".local" not in built.asm["ptx"]


@needs_triton
def test_it_refuses_what_it_cannot_do():
    with pytest.raises(GfvizError, match=r"float64|runs on a GPU"):
        topk_logsumexp(torch.zeros(1, 4, dtype=torch.float64), 1, "triton")
    if INTERPRETED:
        with pytest.raises(GfvizError, match=r"k = 129 is outside 1\.\.128"):
            topk_logsumexp(torch.zeros(1, 400), 129, "triton")


@needs_triton
@runs
@pytest.mark.parametrize(
    "vocabulary,k,dtype",
    [
        (1, 1, torch.float32),
        (63, 63, torch.float32),
        (5003, 40, torch.float32),
        (5003, 7, torch.bfloat16),
        (100, 7, torch.float16),
    ],
)
def test_values_ids_and_logsumexp(vocabulary, k, dtype):
    assert_same_answer(random_logits(2, vocabulary, dtype).to(DEVICE), k, "triton")


@needs_triton
@runs
@pytest.mark.parametrize("vocabulary,k,most", [(9001, 128, 4096), (5003, 12, 32)])
def test_the_widest_k_and_a_vocabulary_that_needs_wider_groups(monkeypatch, vocabulary, k, most):
    from gfviz.kernels import triton_kernels

    monkeypatch.setattr(triton_kernels, "_MAX_GROUPS", most)
    assert_same_answer(random_logits(2, vocabulary, torch.float32).to(DEVICE), k, "triton")


@needs_triton
@runs
@pytest.mark.parametrize("shape", ["ascending", "constant", "two_levels", "one_block"])
def test_rows_that_mislead_a_threshold(shape):
    base = random_logits(2, 4500, torch.float32)
    rows = {
        "ascending": base.sort(1).values,
        "constant": torch.full_like(base, -3.25),
        "two_levels": (base > 1.0).float(),
        "one_block": base.index_fill(1, torch.arange(640, 704), 50.0) + torch.arange(4500) * 1e-3,
    }[shape]
    assert_same_answer(rows.to(DEVICE), 32, "triton")


@needs_triton
@runs
def test_the_smaller_of_equal_ids_comes_first():
    logits = torch.zeros(1, 4500, device=DEVICE)
    logits[0, 700], logits[0, 1] = 1.0, -0.0
    assert topk_logsumexp(logits, 4, "triton")[1].tolist() == [[700, 0, 1, 2]]


@needs_triton
@runs
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("vocabulary", [12, 4500])
def test_non_finite_rows_come_through_as_torch_gives_them(vocabulary):
    logits = non_finite_logits(vocabulary)
    logits = logits.to(DEVICE).requires_grad_()
    (mine, _, total), (theirs, _, expected) = topk_logsumexp(logits, 4, "triton"), topk_logsumexp_reference(logits, 4)
    torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(total, expected, equal_nan=True)
    gradients = [torch.autograd.grad(found.sum(), logits)[0] for found in (total, expected)]
    torch.testing.assert_close(*gradients, equal_nan=True)


@needs_triton
@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradient_is_as_good_as_the_naive_one(dtype):
    logits = random_logits(3, 5003, dtype)
    # Distinct logits at the rim, so that everyone means the same ids.
    logits[:, :20] = torch.linspace(30, 20, 20).to(dtype)
    of_values, of_total = random_logits(3, 16, torch.float64, 1), random_logits(3, 1, torch.float64, 2).squeeze(1)
    of_total[1] = 0.0

    def gradient(function, x):
        x = x.to(DEVICE).requires_grad_()
        values, _, total = function(x, 16)
        grads = (of_values.to(DEVICE, values.dtype), of_total.to(DEVICE, total.dtype))
        return torch.autograd.grad((values, total), x, grads)[0].cpu()

    expected = gradient(topk_logsumexp_reference, logits.double())
    mine = gradient(lambda x, k: topk_logsumexp(x, k, "triton"), logits.clone())
    size = 31.0 * float(of_total.abs().max())
    assert_as_good_as_naive(mine, gradient(topk_logsumexp_reference, logits.clone()), expected, size)
    silent = torch.ones(5003, dtype=torch.bool).index_fill(0, logits[1].topk(16).indices, False)
    assert torch.equal(mine[1][silent], torch.zeros_like(mine[1][silent]))


@needs_triton
@runs
def test_padding_stays_silent_and_windows_are_read_in_place():
    whole = random_logits(6, 700, torch.float32).unflatten(0, (2, 3))
    whole[0, 2] = torch.nan
    logits = whole[:, 1:].to(DEVICE).requires_grad_()
    values, _, total = topk_logsumexp(logits, 3, "triton")
    counted = torch.tensor([[True, False], [True, True]], device=DEVICE)
    (torch.where(counted, total, 0.0).sum() + torch.where(counted[..., None], values, 0.0).sum()).backward()
    assert torch.equal(logits.grad[0, 1], torch.zeros(700, device=DEVICE))
    assert torch.isfinite(logits.grad).all()


@needs_triton
@runs
def test_the_same_input_gives_the_same_bits():
    logits = random_logits(2, 4500, torch.bfloat16).to(DEVICE).requires_grad_()
    runs = [topk_logsumexp(logits, 32, "triton") for _ in range(2)]
    for first, second in zip(*runs):
        assert torch.equal(first, second)
    gradients = [torch.autograd.grad(v.sum() + t.sum(), logits)[0] for v, _, t in runs]
    assert torch.equal(*gradients)
