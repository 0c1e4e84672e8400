"""The head's projection, top-k, logsumexp and the target's logit, without ever holding the logits [N, V]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gfviz.errors import GfvizError
from gfviz.kernels.topk_logsumexp import choose_kernel

CHUNK = 1 << 15


class HeadTopK(NamedTuple):
    """values [N, k] descending, ids [N, k] int64, logsumexp [N]; targets [N]: the logit of each row's target id.

    `targets` is None where none were given. Cross-entropy is logsumexp − targets.
    """

    values: Tensor
    ids: Tensor
    logsumexp: Tensor
    targets: Tensor | None


def head_topk_logsumexp(
    hidden: Tensor,
    weight: Tensor,
    k: int,
    targets: Tensor | None = None,
    bias: Tensor | None = None,
    chunk: int = CHUNK,
) -> HeadTopK:
    """Top-k and logsumexp of the logits hidden @ weight.T + bias, a chunk of the vocabulary at a time.

    hidden: [N, H] floating; weight: [V, H] of the same dtype and device; bias: [V]; targets: [N] ids in 0..V−1 (their
    range is not checked: that would wait for a GPU). `chunk` columns are held at a time, [N, chunk] in place of [N, V].
    Differentiable in hidden, weight and bias through values, logsumexp and targets; the backward pass computes each
    chunk again. Rows whose gradients are zero give none, whatever they hold. Results and the logits themselves have
    hidden's dtype, logsumexp is float32 at least; ids among equal logits are any of them.

    Raises `GfvizError` for shapes that do not fit. Cost: the projection once forward (2·N·V·H operations) and three
    times backward, one more than with the logits kept. Source: the chunked softmax of Milakov and Gimelshein
    (arXiv 1805.02867), as in cut cross-entropy (arXiv 2411.09009); top-k of a union is the top-k of the parts' top-k.

    >>> import torch
    >>> found = head_topk_logsumexp(torch.ones(1, 2), torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0]]), k=2)
    >>> found.values.tolist(), found.ids.tolist(), round(found.logsumexp.item(), 4)
    ([[3.0, 1.0]], [[1, 0]], 3.1698)
    """
    _check(hidden, weight, k, targets, bias, chunk)
    values, ids, total, chosen = _HeadTopK.apply(hidden, weight, bias, targets, k, chunk)
    return HeadTopK(values, ids, total, None if targets is None else chosen)


def _check(hidden: Tensor, weight: Tensor, k: int, targets: Tensor | None, bias: Tensor | None, chunk: int) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise GfvizError(f"hidden [N, H] and weight [V, H] do not fit: {list(hidden.shape)}, {list(weight.shape)}")
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise GfvizError(f"hidden is {hidden.dtype} and weight {weight.dtype}: give both one floating dtype")
    if not 1 <= k <= weight.shape[0]:
        raise GfvizError(f"k = {k} is outside 1..{weight.shape[0]}, the vocabulary")
    if targets is not None and (targets.shape != hidden.shape[:1] or targets.dtype != torch.int64):
        raise GfvizError(f"targets must be int64 [{hidden.shape[0]}], got {targets.dtype} {list(targets.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise GfvizError(f"bias must have the shape [{weight.shape[0]}], got {list(bias.shape)}")
    if chunk < 1:
        raise GfvizError(f"chunk = {chunk} must be at least 1")


class _Chunks:
    """Walks over the vocabulary: the logits of one chunk at a time, in one buffer that is used again."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> None:
        self.hidden, self.weight, self.bias = hidden.detach(), weight.detach(), bias
        self.chunk = min(chunk, len(weight))
        self._buffer = hidden.new_empty(len(hidden) * self.chunk)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.weight), self.chunk):
            part = slice(start, min(start + self.chunk, len(self.weight)))
            rows = self.weight[part]
            logits = self._buffer[: len(self.hidden) * len(rows)].view(len(self.hidden), len(rows))
            if self.bias is None:
                torch.mm(self.hidden, rows.T, out=logits)
            else:
                torch.addmm(self.bias.detach()[part], self.hidden, rows.T, out=logits)
            yield part, logits


def _inside(ids: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Ids [N, m] as columns of a chunk, and which of them lie in it; the others point at column 0."""
    known = (ids >= part.start) & (ids < part.stop)
    return torch.where(known, ids - part.start, ids.new_zeros(())), known


class _HeadTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor | None, k: int, chunk: int
    ):
        found: list[tuple[Tensor, Tensor]] = []
        totals = []
        chosen = hidden.new_zeros(len(hidden))
        for part, logits in _Chunks(hidden, weight, bias, chunk):
            width = min(k, logits.shape[1])
            values, ids, total = choose_kernel(logits, width).forward(logits, width)
            found = [_best([*found, (values, ids + part.start)], k)]
            totals.append(total)
            if targets is not None:
                column, known = _inside(targets.unsqueeze(1), part)
                chosen = torch.where(known.squeeze(1), logits.gather(1, column).squeeze(1), chosen)
        values, ids = found[0]
        total = totals[0] if len(totals) == 1 else torch.logsumexp(torch.stack(totals), 0)
        ctx.save_for_backward(hidden, weight, bias, targets, ids, total)
        ctx.mark_non_differentiable(ids)
        ctx.chunk = chunk
        return values, ids, total, chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: Tensor, _of_ids: Tensor, of_total: Tensor, of_chosen: Tensor):
        hidden, weight, bias, targets, ids, total = ctx.saved_tensors
        if targets is not None:
            ids, of_values = (
                torch.cat([ids, targets.unsqueeze(1)], 1),
                torch.cat([of_values, of_chosen.unsqueeze(1)], 1),
            )
        # What nobody asked about may hold NaN (padding), and 0 · NaN would reach every row of the weight's gradient.
        asked = ((of_values != 0).any(1) | (of_total != 0)).unsqueeze(1)
        quiet = torch.where(asked, hidden, hidden.new_zeros(()))
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.zeros_like(hidden, dtype=total.dtype) if to_hidden else None
        of_weight = torch.empty_like(weight) if to_weight else None
        of_bias = torch.empty_like(bias) if to_bias else None
        chunks = _Chunks(hidden, weight, bias, ctx.chunk)
        buffer = hidden.new_empty(len(hidden) * chunks.chunk)
        for part, logits in chunks:
            gradient = buffer[: logits.numel()].view_as(logits)
            kernel = choose_kernel(logits, 1)
            kernel.backward(logits, ids[:, :0], total, of_values[:, :0], of_total, gradient)
            column, known = _inside(ids, part)
            gradient.scatter_add_(1, column, torch.where(known, of_values, of_values.new_zeros(())).to(gradient.dtype))
            if of_hidden is not None:
                of_hidden += gradient @ weight[part]
            if of_weight is not None:
                torch.mm(gradient.T, quiet, out=of_weight[part])
            if of_bias is not None:
                of_bias[part] = gradient.sum(0)
        return None if of_hidden is None else of_hidden.to(hidden.dtype), of_weight, of_bias, None, None, None


def _best(parts: list[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k best of several (values [N, m], ids [N, m]), or all where they are fewer; descending."""
    if len(parts) == 1:
        return parts[0]
    values, ids = (torch.cat(each, 1) for each in zip(*parts))
    values, order = torch.topk(values, min(k, values.shape[1]), dim=1)
    return values, ids.gather(1, order)
