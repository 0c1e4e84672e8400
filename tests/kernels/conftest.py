"""Implementations to hold against each other, each skipped with a reason where the machine lacks what it needs."""

import os

import pytest
import torch

from gfviz.kernels import native

try:
    import triton
except ImportError:
    triton = None  # type: ignore[assignment]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["torch", "c"])
def cpu_impl(request):
    """An implementation that runs on the CPU."""
    if request.param == "c" and native.library() is None:
        pytest.skip("no C compiler, or GFVIZ_NO_COMPILE is set")
    return request.param


def random_logits(rows, vocabulary, dtype, seed=0, scale=4.0):
    """Normal logits of deviation `scale`."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64) * scale).to(dtype)


def non_finite_logits(vocabulary):
    """Seven rows, each with its own mixture of infinities and NaN."""
    half = vocabulary // 2
    logits = random_logits(7, vocabulary, torch.float32)
    logits[0] = -torch.inf
    logits[1, 5] = torch.inf
    logits[2, 5] = torch.nan
    logits[3, :half] = -torch.inf
    logits[4, half:] = torch.nan
    logits[5, 3], logits[5, 7] = torch.inf, -torch.nan
    logits[6] = torch.nan
    return logits


def skip_unless(impl, dtype):
    """The compiled kernel knows two dtypes."""
    if impl == "c" and dtype not in (torch.float32, torch.bfloat16):
        pytest.skip("the compiled kernel takes float32 and bfloat16")
