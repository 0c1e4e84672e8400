"""Top-k and logsumexp of the last axis: the one thing the library does to full-vocabulary logits."""

import torch
from torch import Tensor

_BLOCK = 64
# Below this the blocks' bookkeeping costs more than the plain top-k saves (measured by `gfviz bench losses`).
_MIN_BLOCKED_VOCABULARY = 8192
# Rows exponentiated at a time: the scratch buffer stays in the cache instead of being another copy of the logits.
_SCRATCH_ELEMENTS = 1 << 19


def topk_logsumexp_reference(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The plain twin of `topk_logsumexp`: torch's own `topk` and `logsumexp`, differentiated by autograd.

    >>> import torch
    >>> values, ids, total = topk_logsumexp_reference(torch.tensor([0.0, 2.0, 1.0]), 2)
    >>> ids.tolist(), round(total.item(), 4)
    ([1, 2], 2.4076)
    """
    values, ids = torch.topk(logits, k, dim=-1)
    return values, ids, torch.logsumexp(logits.float() if logits.dtype.itemsize < 4 else logits, dim=-1)


def topk_logsumexp(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest logits, their ids and the full-vocabulary logsumexp, in about one read of the logits.

    `logits` is [..., V] floating; the answer is values [..., k] (descending, the logits' dtype), ids [..., k] int64 and
    logsumexp [...] (float32 at least). The multiset of values is exact; among equal logits the ids chosen may differ
    from torch's. NaN counts as largest, as in torch. Differentiable in values and logsumexp; a row whose gradient is
    zero gets exactly zero, even where its logits are NaN (padding).

    Cost: forward O(V + k·64) a row; backward one pass that writes the gradient. Source: block maxima bound the k-th
    value from below, so the top k lie in the k blocks of largest maximum.

    >>> import torch
    >>> values, ids, total = topk_logsumexp(torch.tensor([[0.0, 2.0, 1.0]]), 2)
    >>> values.tolist(), ids.tolist()
    ([[2.0, 1.0]], [[1, 2]])
    """
    return _TopKLogSumExp.apply(logits, k)


class _TopKLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, k: int):
        rows = logits.detach().reshape(-1, logits.shape[-1])
        values, ids = _topk_rows(rows, k)
        total = _logsumexp_rows(rows, values[:, 0])
        shape = logits.shape[:-1]
        values, ids, total = values.reshape(*shape, k), ids.reshape(*shape, k), total.reshape(shape)
        ctx.save_for_backward(logits, ids, total)
        ctx.mark_non_differentiable(ids)
        return values, ids, total

    @staticmethod
    def backward(ctx, grad_values: Tensor, _grad_ids: Tensor, grad_total: Tensor):
        logits, ids, total = ctx.saved_tensors
        gradient = torch.sub(logits, total.unsqueeze(-1)).exp_()
        gradient.mul_(grad_total.unsqueeze(-1))
        # 0 · NaN is NaN: rows nobody asked about must stay silent whatever padding they hold.
        gradient.masked_fill_((grad_total == 0).unsqueeze(-1), 0.0)
        gradient = gradient.to(logits.dtype)
        gradient.scatter_add_(-1, ids, grad_values.to(logits.dtype))
        return gradient, None


def _topk_rows(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Exact top-k of each row of [N, V] through the maxima of 64-wide blocks."""
    vocabulary = rows.shape[1]
    blocks = vocabulary // _BLOCK
    if rows.is_cuda or vocabulary < _MIN_BLOCKED_VOCABULARY or blocks <= 2 * k:
        return torch.topk(rows, k, dim=1)
    body = blocks * _BLOCK
    shaped = rows[:, :body].unflatten(1, (blocks, _BLOCK))
    best = torch.topk(shaped.amax(2), k, dim=1, sorted=False).indices
    within = torch.arange(_BLOCK, device=rows.device)
    candidate_ids = (best.unsqueeze(2) * _BLOCK + within).flatten(1)
    if body < vocabulary:
        tail = torch.arange(body, vocabulary, device=rows.device).expand(rows.shape[0], -1)
        candidate_ids = torch.cat([candidate_ids, tail], 1)
    values, position = torch.topk(rows.gather(1, candidate_ids), k, dim=1)
    return values, candidate_ids.gather(1, position)


def _logsumexp_rows(rows: Tensor, largest: Tensor) -> Tensor:
    """logsumexp of each row of [N, V] given its maximum, a few rows at a time through one reused buffer."""
    wide = torch.float32 if rows.dtype.itemsize < 4 else rows.dtype
    # A row of −inf has no finite maximum to subtract; its logsumexp is −inf, and NaN or +inf must come through.
    shift = torch.where(torch.isfinite(largest), largest, torch.zeros_like(largest)).to(wide)
    if rows.is_cuda:
        return (rows.to(wide) - shift.unsqueeze(1)).exp_().sum(1).log_().add_(shift)
    step = max(1, _SCRATCH_ELEMENTS // max(rows.shape[1], 1))
    scratch = torch.empty(min(step, rows.shape[0]), rows.shape[1], dtype=wide, device=rows.device)
    sums = torch.empty(rows.shape[0], dtype=wide, device=rows.device)
    for start in range(0, rows.shape[0], step):
        stop = min(start + step, rows.shape[0])
        part = scratch[: stop - start]
        torch.sub(rows[start:stop], shift[start:stop, None], out=part)
        torch.sum(part.exp_(), dim=1, out=sums[start:stop])
    return sums.log_().add_(shift)
