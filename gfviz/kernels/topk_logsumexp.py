"""Top-k and logsumexp of the last axis: the one thing the library does to full-vocabulary logits."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Literal, Protocol, cast, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gfviz.errors import GfvizError
from gfviz.kernels import blockwise, native
from gfviz.kernels.memory import fresh_like

Implementation = Literal["auto", "torch", "c", "triton", "reference"]


class Kernel(Protocol):
    """One implementation on rows [N, V]; the differentiable function around it is the same for all."""

    def forward(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Values [N, k], ids [N, k], logsumexp [N] of rows whose last axis has stride 1 or not."""
        ...

    def backward(
        self, rows: Tensor, ids: Tensor, total: Tensor, of_values: Tensor, of_total: Tensor, gradient: Tensor
    ) -> None:
        """Fill `gradient` [N, V], contiguous and uninitialised: of_total·exp(rows − total), plus of_values at ids."""
        ...


def topk_logsumexp_reference(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The plain twin of `topk_logsumexp`: torch's own `topk` and `logsumexp`, differentiated by autograd.

    >>> import torch
    >>> values, ids, total = topk_logsumexp_reference(torch.tensor([0.0, 2.0, 1.0]), 2)
    >>> ids.tolist(), round(total.item(), 4)
    ([1, 2], 2.4076)
    """
    values, ids = torch.topk(logits, k, dim=-1)
    return values, ids, torch.logsumexp(logits.float() if logits.dtype.itemsize < 4 else logits, dim=-1)


def topk_logsumexp(logits: Tensor, k: int, impl: Implementation = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """The k largest logits, their ids and the full-vocabulary logsumexp, in about one read of the logits.

    `logits` is [..., V] floating; the answer is values [..., k] (descending, the logits' dtype), ids [..., k] int64 and
    logsumexp [...] (float32 at least). The multiset of values is exact; among equal logits the ids chosen may differ
    from torch's. NaN counts as largest, as in torch. Differentiable in values and logsumexp; a row whose gradient is
    zero gets exactly zero, even where its logits are NaN (padding).

    `impl`: "c" is compiled at first use (see `gfviz.kernels.native`), "triton" runs on a GPU, "torch" everywhere;
    "auto" takes the fastest that is there, by dtype, V, k and device alone, so that a row's answer does not depend on
    its neighbours. Raises `GfvizError` where the named one cannot run.

    Cost: forward O(V + k·64) a row; backward one pass that writes the gradient. Source: block maxima bound the k-th
    value from below, so the top k lie in the k blocks of largest maximum.

    >>> import torch
    >>> values, ids, total = topk_logsumexp(torch.tensor([[0.0, 2.0, 1.0]]), 2)
    >>> values.tolist(), ids.tolist()
    ([[2.0, 1.0]], [[1, 2]])
    """
    if impl == "reference":
        return topk_logsumexp_reference(logits, k)
    return _TopKLogSumExp.apply(logits, k, choose_kernel(logits, k, impl), [])


class Picks:
    """Takes single logits whose gradients join those of `topk_logsumexp_picks`: one gradient [..., V], filled once.

    A gather's own gradient would be a second one as large as the logits, zeros but for the entries picked, that is then
    added; a sparse one makes a GPU wait when it is added.
    """

    def __init__(self, logits: Tensor, total: Tensor, asked: list[tuple[Tensor, Tensor]]) -> None:
        self._logits, self._total, self._asked = logits, total, asked

    def __call__(self, ids: Tensor) -> Tensor:
        """Entries `ids` [..., m] of the logits [..., V], differentiable once."""
        if not self._logits.requires_grad:
            return self._logits.gather(-1, ids)
        return _Pick.apply(self._total, self._logits.detach(), ids, self._asked)


def topk_logsumexp_picks(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Picks]:
    """`topk_logsumexp`, and what picks more of the same logits.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 2.0, 1.0]], requires_grad=True)
    >>> values, ids, total, picks = topk_logsumexp_picks(logits, 1)
    >>> picks(torch.tensor([[2, 2]])).sum().backward()
    >>> logits.grad.tolist()
    [[0.0, 0.0, 2.0]]
    """
    asked: list[tuple[Tensor, Tensor]] = []
    values, ids, total = _TopKLogSumExp.apply(logits, k, choose_kernel(logits, k), asked)
    return values, ids, total, Picks(logits, total, asked)


def choose_kernel(logits: Tensor, k: int, impl: Implementation = "auto") -> Kernel:
    """The kernel that `impl` means for these logits. Raises `GfvizError` where it cannot run on them."""
    if impl not in get_args(Implementation):
        raise GfvizError(f"impl = {impl!r} is unknown: choose one of {', '.join(get_args(Implementation))}")
    if impl == "torch" or torch.compiler.is_compiling():
        return cast(Kernel, blockwise)
    if impl == "c" or (impl == "auto" and logits.device.type == "cpu"):
        reason = native.refusal(logits, k, small_too=impl == "c")
        if not reason:
            return cast(Kernel, native)
        if impl == "c":
            raise GfvizError(f"the compiled kernel cannot run: {reason}")
    if impl == "triton" or (impl == "auto" and logits.device.type == "cuda"):
        reason = _triton_refusal(logits, k)
        if not reason:
            return cast(Kernel, import_module("gfviz.kernels.triton_kernels"))
        if impl == "triton":
            raise GfvizError(f"the Triton kernel cannot run: {reason}")
    return cast(Kernel, blockwise)


def _triton_refusal(logits: Tensor, k: int) -> str:
    try:
        kernels = import_module("gfviz.kernels.triton_kernels")
    except ImportError:
        return "triton is not installed"
    return kernels.refusal(logits, k)


def _pieces(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits as rows [N, V] without copying: one piece, or one for each leading index (a window [B, W, V] of more)."""
    start = 0
    stack = [logits]
    while stack:
        part = stack.pop()
        try:
            rows = part.view(-1, part.shape[-1])
        except RuntimeError:
            stack.extend(reversed(part.unbind(0)))
            continue
        yield slice(start, start + len(rows)), rows
        start += len(rows)


class _TopKLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, k: int, kernel: Kernel, asked: list[tuple[Tensor, Tensor]]):
        shape = logits.shape[:-1]
        if logits.numel() == 0:
            wide = torch.promote_types(logits.dtype, torch.float32)
            found = [
                (logits.new_empty(0, k), logits.new_empty(0, k, dtype=torch.int64), logits.new_empty(0, dtype=wide))
            ]
        else:
            found = [kernel.forward(rows, k) for _, rows in _pieces(logits.detach())]
        values, ids, total = found[0] if len(found) == 1 else (torch.cat(parts) for parts in zip(*found))
        values, ids, total = values.reshape(*shape, k), ids.reshape(*shape, k), total.reshape(shape)
        ctx.save_for_backward(logits, ids, total)
        ctx.mark_non_differentiable(ids)
        ctx.kernel, ctx.asked = kernel, asked
        return values, ids, total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_values: Tensor, _grad_ids: Tensor, grad_total: Tensor):
        logits, ids, total = ctx.saved_tensors
        gradient = fresh_like(logits)
        asked = [(ids.reshape(-1, ids.shape[-1]), of_picked) for ids, of_picked in ctx.asked]
        ctx.asked.clear()  # the next backward pass through the same graph fills it again
        if logits.numel() == 0:
            return gradient, None, None, None
        ids, grad_values = (each.reshape(-1, each.shape[-1]) for each in (ids, grad_values))
        total, grad_total = total.reshape(-1), grad_total.reshape(-1)
        out = gradient.view(-1, logits.shape[-1])
        for part, rows in _pieces(logits):
            ctx.kernel.backward(rows, ids[part], total[part], grad_values[part], grad_total[part], out[part])
        for picked, of_picked in asked:
            out.scatter_add_(1, picked, of_picked.reshape(picked.shape).to(out.dtype))
        return gradient, None, None, None


class _Pick(torch.autograd.Function):
    """A gather whose gradient is left for the backward pass of `_TopKLogSumExp`, which comes after this one's.

    It does because `total` is a result of that function: autograd runs a function once all that uses its results has
    run, whether they got a gradient or none.
    """

    @staticmethod
    def forward(ctx, total: Tensor, logits: Tensor, ids: Tensor, asked: list[tuple[Tensor, Tensor]]):
        ctx.save_for_backward(ids)
        ctx.asked = asked
        return logits.gather(-1, ids)

    @staticmethod
    @once_differentiable
    def backward(ctx, of_picked: Tensor):
        ctx.asked.append((ctx.saved_tensors[0], of_picked))
        return None, None, None, None
