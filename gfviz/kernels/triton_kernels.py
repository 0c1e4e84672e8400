"""The Triton implementation of top-k + logsumexp (float32, bfloat16, float16; k ≤ 128), forward and backward.

Forward in two launches, a program for each row. `_scan` reads the row once: the maximum of each group of columns, and
the logsumexp with a running shift. `_select` finds the k groups of largest maximum, then the k largest logits inside
them. Both times the k-th largest key is built bit by bit from the top, counting how many keys reach it: no sort but
that of the k chosen, and no atomics, so that the same input gives the same bits. Among equal logits the smaller id
comes first. Importing this module needs triton; under TRITON_INTERPRET=1 it runs on the CPU, slowly, for the tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_K = 128
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_TILE = 4096
# More group maxima than this do not fit a program's registers: wider vocabularies get wider groups.
_MAX_GROUPS = 4096
_GROUP = 64


def refusal(logits: Tensor, k: int) -> str:
    """Why the kernel cannot take these logits; empty where it can."""
    if logits.device.type != "cuda" and not triton.knobs.runtime.interpret:
        return f"it runs on a GPU, not on {logits.device.type}"
    if logits.dtype not in _DTYPES:
        return f"it knows float32, bfloat16 and float16, not {str(logits.dtype).removeprefix('torch.')}"
    if not 1 <= k <= min(MAX_K, logits.shape[-1]):
        return f"k = {k} is outside 1..{min(MAX_K, logits.shape[-1])}"
    return "" if logits.shape[-1] < 2**30 else "the vocabulary exceeds 2^30"


def forward(rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values [N, k], ids [N, k] and logsumexp [N] of rows [N, V]."""
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    count, vocabulary = rows.shape
    values, ids = rows.new_empty(count, k), rows.new_empty(count, k, dtype=torch.int64)
    total = rows.new_empty(count, dtype=torch.float32)
    if count == 0:
        return values, ids, total
    group = max(_GROUP, triton.next_power_of_2(triton.cdiv(vocabulary, _MAX_GROUPS)))
    groups, width = triton.cdiv(vocabulary, group), triton.next_power_of_2(k)
    maxima = rows.new_empty(count, groups, dtype=torch.int32)
    scratch = rows.new_empty(count, width, dtype=torch.int64)
    _scan[(count,)](rows, maxima, total, rows.stride(0), vocabulary, groups, GROUP=group, TILE=max(_TILE, group))
    _select[(count,)](
        rows,
        maxima,
        scratch,
        values,
        ids,
        rows.stride(0),
        vocabulary,
        groups,
        k,
        GROUP=group,
        GROUPS=triton.next_power_of_2(groups),
        WIDTH=width,
        num_warps=8,
    )
    return values, ids, total


def backward(rows: Tensor, ids: Tensor, total: Tensor, of_values: Tensor, of_total: Tensor, gradient: Tensor) -> None:
    """Fill `gradient` [N, V] in one pass; a row with of_total = 0 gets zeros and its of_values. Ids of a row differ."""
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    count, vocabulary = rows.shape
    if count == 0:
        return
    k = ids.shape[1]
    ids, total = ids.contiguous(), total.contiguous()
    of_values, of_total = of_values.contiguous(), of_total.contiguous()
    tiles = triton.cdiv(vocabulary, _TILE)
    _spread[(count, tiles)](rows, total, of_total, gradient, rows.stride(0), vocabulary, TILE=_TILE)
    if k:
        _add_chosen[(count,)](
            rows,
            ids,
            total,
            of_values,
            of_total,
            gradient,
            rows.stride(0),
            vocabulary,
            k,
            WIDTH=triton.next_power_of_2(k),
        )


@triton.jit
def _key(x):
    """An int32 that grows with the float32 x; NaN above all, −0 equal to 0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return tl.where(x != x, 0x7FFFFFFF, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def _positive(key):
    """The key as a uint32 of the same order."""
    return key.to(tl.uint32, bitcast=True) ^ 0x80000000


@triton.jit
def _k_best(keys, k):
    """Which of the uint32 keys [n] are the k largest, the earlier first among equals; there must be k."""
    bound = tl.full((), 0, tl.uint32)
    bit = tl.full((), 0x80000000, tl.uint32)
    for _ in range(32):
        trial = bound | bit
        reached = tl.sum((keys >= trial).to(tl.int32), 0)
        bound = tl.where(reached >= k, trial, bound)
        bit = bit >> 1
    above = keys > bound
    equal = keys == bound
    wanted = k - tl.sum(above.to(tl.int32), 0)
    return above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= wanted))


@triton.jit
def _scan(rows, maxima, total, stride, vocabulary, groups, GROUP: tl.constexpr, TILE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, TILE)
    group = tl.arange(0, TILE // GROUP)
    largest = tl.full((), float("-inf"), tl.float32)
    sum = tl.zeros((), dtype=tl.float32)
    for start in range(0, vocabulary, TILE):
        inside = start + column < vocabulary
        x = tl.load(rows + row * stride + start + column, mask=inside, other=float("-inf")).to(tl.float32)
        best = tl.max(tl.reshape(_key(x), (TILE // GROUP, GROUP)), 1)
        place = start // GROUP + group
        tl.store(maxima + row * groups + place, best, mask=place < groups)
        higher = tl.maximum(largest, tl.max(x, 0))
        # Infinities and NaN cannot be subtracted: relative to 0 they reach the sum as what they are.
        before = tl.where(tl.abs(largest) < float("inf"), largest, 0.0)
        shift = tl.where(tl.abs(higher) < float("inf"), higher, 0.0)
        sum = sum * tl.exp(before - shift) + tl.sum(tl.exp(x - shift), 0)
        largest = higher
    shift = tl.where(tl.abs(largest) < float("inf"), largest, 0.0)
    tl.store(total + row, shift + tl.log(sum))


@triton.jit
def _select(
    rows,
    maxima,
    scratch,
    values,
    ids,
    stride,
    vocabulary,
    groups,
    k,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    scratch += row * WIDTH
    index = tl.arange(0, GROUPS)
    best = tl.load(maxima + row * groups + index, mask=index < groups, other=-0x80000000)
    taken = tl.minimum(k, groups)
    chosen = _k_best(_positive(best), taken) & (index < groups)
    tl.store(scratch + tl.cumsum(chosen.to(tl.int32), 0) - 1, index.to(tl.int64), mask=chosen)
    # What other threads of this program stored is read next.
    tl.debug_barrier()
    group = tl.load(scratch + place, mask=place < taken, other=0)
    column = tl.reshape(group[:, None] * GROUP + tl.arange(0, GROUP)[None, :], (WIDTH * GROUP,))
    known = tl.reshape((place < taken)[:, None] & (tl.arange(0, GROUP)[None, :] >= 0), (WIDTH * GROUP,))
    known = known & (column < vocabulary)
    x = tl.load(rows + row * stride + column, mask=known, other=0.0).to(tl.float32)
    key = _key(x)
    # No float has the key 0 once positive: what is not there never reaches a bound above it.
    chosen = _k_best(tl.where(known, _positive(key), 0), k) & known
    packed = (key.to(tl.int64) << 32) | (0x7FFFFFFF - column)
    tl.debug_barrier()
    tl.store(scratch + tl.cumsum(chosen.to(tl.int32), 0) - 1, packed, mask=chosen)
    tl.debug_barrier()
    order = tl.sort(tl.load(scratch + place, mask=place < k, other=-0x8000000000000000), descending=True)
    column = 0x7FFFFFFF - (order & 0xFFFFFFFF)
    tl.store(ids + row * k + place, column, mask=place < k)
    tl.store(values + row * k + place, tl.load(rows + row * stride + column, mask=place < k), mask=place < k)


@triton.jit
def _spread(rows, total, of_total, gradient, stride, vocabulary, TILE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = column < vocabulary
    scale = tl.load(of_total + row).to(tl.float32)
    place = gradient + row * vocabulary + column
    # Rows nobody asked about are not read: 0 · NaN would be NaN.
    if scale == 0:
        tl.store(place, tl.zeros((TILE,), gradient.dtype.element_ty), mask=inside)
    else:
        x = tl.load(rows + row * stride + column, mask=inside, other=float("-inf")).to(tl.float32)
        share = scale * tl.exp(x - tl.load(total + row))
        tl.store(place, share.to(gradient.dtype.element_ty), mask=inside)


@triton.jit
def _add_chosen(rows, ids, total, of_values, of_total, gradient, stride, vocabulary, k, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    inside = place < k
    column = tl.load(ids + row * k + place, mask=inside, other=0)
    share = tl.load(of_values + row * k + place, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(of_total + row).to(tl.float32)
    if scale != 0:
        x = tl.load(rows + row * stride + column, mask=inside, other=0.0).to(tl.float32)
        share += scale * tl.exp(x - tl.load(total + row))
    tl.store(gradient + row * vocabulary + column, share.to(gradient.dtype.element_ty), mask=inside)
