"""‖C − D‖² of two token graphs that are given by their factors, without any matrix over the tokens.

A dense table of all positions by all tokens in a batch takes longer to fill with zeros and to multiply than a small
model's whole step, and does not fit a GPU at 4K positions. Here positions meet through a narrow table, tile by tile.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers in one tile: some of it stays in a processor's cache, and a GPU gets enough to do.
_TILE = 1 << 22


def known_size(size: Tensor, bound: int) -> int:
    """A size that depends on data: itself on a CPU, where reading it costs nothing, and `bound` where it would wait."""
    return min(int(size), bound) if size.device.type == "cpu" else bound


def own_numbers(sides: list[Tensor], inside: list[Tensor], tokens: int) -> tuple[list[Tensor], Tensor]:
    """Number the tokens that occur in each example from 0, without gaps, ascending.

    sides: token numbers [R, W, k] below `tokens` where inside [R, W, k] holds. Returns the new number of each entry
    (any where it is not inside) and how many an example has [R]. O(R·(tokens + W·k)); no sort.

    >>> numbers = torch.tensor([[[5, 2]], [[2, 2]]])
    >>> found, counts = own_numbers([numbers], [torch.tensor([[[True, True]], [[True, False]]])], 6)
    >>> found[0].tolist(), counts.tolist()
    ([[[1, 0]], [[0, 0]]], [2, 1])
    """
    occurs = torch.zeros(len(sides[0]), tokens + 1, dtype=torch.bool, device=sides[0].device)
    keys = [torch.where(here, numbers, tokens) for numbers, here in zip(sides, inside)]
    for key in keys:
        occurs.scatter_(1, key.flatten(1), True)
    upto = occurs[:, :tokens].cumsum(1)
    counts = upto[:, -1] if tokens else upto.new_zeros(len(upto))
    # One more column for what is outside.
    upto = torch.nn.functional.pad(upto, (0, 1), value=1)
    return [upto.gather(1, key.flatten(1)).view_as(key) - 1 for key in keys], counts


def token_nodes(sides: list[Tensor], inside: list[Tensor], tokens: int) -> tuple[list[Tensor], int]:
    """Number the tokens that occur in each example, apart from the other examples' and without gaps.

    As `own_numbers`; returns a node for each entry, the node `count` for those outside, and `count`: the number of
    nodes, or (on a GPU, which would have to be waited for) a bound of it.

    >>> numbers = torch.tensor([[[5, 2]], [[2, 2]]])
    >>> nodes, count = token_nodes([numbers], [torch.tensor([[[True, True]], [[True, False]]])], 6)
    >>> nodes[0].tolist(), count
    ([[[1, 0]], [[2, 3]]], 3)
    """
    found, counts = own_numbers(sides, inside, tokens)
    entries = sum(numbers[0].numel() for numbers in sides)
    count = known_size(counts.sum(), len(counts) * min(tokens, entries))
    first = (counts.cumsum(0) - counts)[:, None, None]
    return [torch.where(here, numbers + first, count) for numbers, here in zip(found, inside)], count


def squared_difference(ours: Tensor, theirs: Tensor, our_nodes: Tensor, their_nodes: Tensor, count: int) -> Tensor:
    """‖Σ_t x_t x_tᵀ − Σ_s y_s y_sᵀ‖² of each example [R], differentiable once, in x.

    ours [R, W, k] and theirs [R, W', k'] are the entries of x and y on the nodes of `token_nodes`; what stands on the
    node `count` must be 0. With the Grams of x with x, x with y and y with y the value is Σ (x_t·x_s)² − 2 Σ (x_t·y_s)²
    + Σ (y_t·y_s)², because ‖XᵀX − YᵀY‖² is that for any two matrices of equal width. O(R·W²·k) time, beside the
    arguments one tile of memory: some 10 MB, or 64 bytes a node where that is more.

    >>> x, y = torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])
    >>> squared_difference(x, y, torch.tensor([[[0]]]), torch.tensor([[[0]]]), 1).tolist()
    [9.0]
    """
    return _SquaredDifference.apply(ours, theirs, our_nodes, their_nodes, count)


class _SquaredDifference(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, ours: Tensor, theirs: Tensor, our_nodes: Tensor, their_nodes: Tensor, count: int
    ) -> Tensor:
        slope = torch.zeros_like(ours) if ours.requires_grad else None
        value = _gram_sums(ours, our_nodes, ours, our_nodes, count, slope, 4.0)
        value -= 2 * _gram_sums(ours, our_nodes, theirs, their_nodes, count, slope, -4.0)
        value += _gram_sums(theirs, their_nodes, theirs, their_nodes, count, None, 0.0)
        if slope is not None:
            ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * of_value[:, None, None], None, None, None, None


def _gram_sums(
    left: Tensor,
    left_nodes: Tensor,
    right: Tensor,
    right_nodes: Tensor,
    count: int,
    slope: Tensor | None,
    factor: float,
) -> Tensor:
    """Σ_{t,s} (left_t · right_s)² of each example [R]; adds factor·Σ_s (left_t·right_s)·right_s to `slope`."""
    examples, length, k = left.shape
    width = min(right.shape[1], max(16, _TILE // (count + 1)))
    height = max(1, _TILE // (width * k))
    rows, nodes = left.reshape(-1, k), left_nodes.reshape(-1, k)
    sums = left.new_zeros(len(rows))
    for start in range(0, right.shape[1], width):
        table = _table(right[:, start : start + width], right_nodes[:, start : start + width], count)
        for top in range(0, len(rows), height):
            tile = slice(top, top + height)
            # Not table[nodes]: that copies element by element where this copies rows.
            met = table.index_select(0, nodes[tile].flatten()).view(-1, k, table.shape[1])
            gram = torch.bmm(rows[tile].unsqueeze(1), met)
            sums[tile] += gram.square().sum((1, 2))
            if slope is not None:
                slope.view(-1, k)[tile] += factor * torch.bmm(met, gram.transpose(1, 2)).squeeze(2)
    return sums.view(examples, length).sum(1)


def _table(entries: Tensor, nodes: Tensor, count: int) -> Tensor:
    """[count + 1, w]: the entries [R, w, k] on their nodes, one column for each position; examples share no node."""
    width = entries.shape[1]
    columns = torch.arange(width, device=entries.device)[:, None]
    table = entries.new_zeros((count + 1) * width)
    return table.scatter_add_(0, (nodes * width + columns).flatten(), entries.flatten()).view(count + 1, width)
