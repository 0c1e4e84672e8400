"""The torch implementation of top-k + logsumexp: any device, any floating dtype."""

import torch
from torch import Tensor

_BLOCK = 64
# Below this the blocks' bookkeeping costs more than the plain top-k saves (measured by `gfviz bench losses`).
_MIN_BLOCKED_VOCABULARY = 8192
# Elements exponentiated at a time on the CPU: they stay in the cache between the loops over them.
CACHED_ELEMENTS = 1 << 19
# Rows selected from at a time: enough to drown the calls, few enough that scratch memory does not grow with N.
_TOPK_ROWS = 64


def forward(rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values [N, k], ids [N, k] and logsumexp [N] of rows [N, V]."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    if rows.device.type != "cpu":
        values, ids = torch.topk(rows, k, dim=1)
        return values, ids, torch.logsumexp(rows.to(wide), 1)
    found = [_topk(part, k) for part in rows.split(_TOPK_ROWS)]
    values, ids = (torch.cat(parts) for parts in zip(*found))
    largest, total = values[:, 0].to(wide), rows.new_empty(len(rows), dtype=wide)
    step = _cached_rows(rows)
    scratch = rows.new_empty(min(step, len(rows)), rows.shape[1], dtype=wide)
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        total[part] = _logsumexp(rows[part], largest[part], ids[part, :1], scratch[: part.stop - start])
    return values, ids, total


def backward(rows: Tensor, ids: Tensor, total: Tensor, of_values: Tensor, of_total: Tensor, gradient: Tensor) -> None:
    """Fill `gradient` [N, V]; a row with of_total = 0 gets zeros and its of_values, whatever its logits hold."""
    step = _cached_rows(rows) if rows.device.type == "cpu" else len(rows)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scale = of_total[part].unsqueeze(1)
        softmax = torch.sub(rows[part], total[part].unsqueeze(1)).exp_().mul_(scale)
        # 0 · NaN is NaN: rows nobody asked about must stay silent whatever padding they hold.
        gradient[part] = softmax.masked_fill_(scale == 0, 0.0)
    gradient.scatter_add_(1, ids, of_values.to(gradient.dtype))


def _cached_rows(rows: Tensor) -> int:
    return max(1, CACHED_ELEMENTS // rows.shape[1])


def _topk(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Exact top-k of each row of [N, V] through the maxima of 64-wide blocks."""
    vocabulary = rows.shape[1]
    blocks = vocabulary // _BLOCK
    if vocabulary < _MIN_BLOCKED_VOCABULARY or blocks <= 2 * k:
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


def _logsumexp(rows: Tensor, largest: Tensor, at: Tensor, scratch: Tensor) -> Tensor:
    """logsumexp [N] of rows [N, V] whose maximum `largest` [N] stands at `at` [N, 1].

    torch's log-softmax is its fastest loop over exponentials; at the maximum it is −log Σ exp(x − max).
    """
    if rows.dtype != scratch.dtype:
        rows = scratch.copy_(rows)
    torch.log_softmax(rows, 1, out=scratch)
    # NaN and infinities have no softmax; being the maximum, they are the logsumexp.
    return torch.where(torch.isfinite(largest), largest - scratch.gather(1, at).squeeze(1), largest)
