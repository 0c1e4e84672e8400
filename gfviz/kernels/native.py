"""The compiled implementation of top-k + logsumexp on the CPU (float32 and bfloat16).

`native.c` is compiled at first use with the machine's own compiler into the user's cache folder; without a compiler,
with an unsafe folder or with GFVIZ_NO_COMPILE=1 the torch implementation takes its place, silently.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfviz.compiled import FORBID, load_compiled

# Beyond this the insertion sort of the chosen would show; nothing in the library keeps more than 128.
MAX_K = 256
# The steps of a model with fewer tokens cost little either way and should not wait for a compiler.
MIN_VOCABULARY = 4096
_KINDS = {torch.float32: 0, torch.bfloat16: 1}
# Elements below which a second thread costs more than it saves.
_ELEMENTS_PER_THREAD = 1 << 22
_SOURCE = Path(__file__).with_name("native.c")
_FLAGS = (
    "-O3",
    "-march=native",
    "-std=gnu11",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
)


def refusal(logits: Tensor, k: int, small_too: bool = False) -> str:
    """Why the compiled kernel cannot take these logits; empty where it can. Compiles at the first call that passes."""
    # Subclasses (fake, distributed, functional tensors) have no memory to hand to C.
    if logits.device.type != "cpu" or type(logits) not in (Tensor, torch.nn.Parameter):
        return f"it reads plain CPU memory, not {type(logits).__name__} on {logits.device.type}"
    if logits.dtype not in _KINDS:
        return f"it knows float32 and bfloat16, not {str(logits.dtype).removeprefix('torch.')}"
    if not 1 <= k <= min(MAX_K, logits.shape[-1]):
        return f"k = {k} is outside 1..{min(MAX_K, logits.shape[-1])}"
    if logits.shape[-1] < MIN_VOCABULARY and not small_too:
        return f"the vocabulary is below {MIN_VOCABULARY}"
    if logits.shape[-1] >= 2**31:
        return "the vocabulary exceeds 2^31"
    return "" if library() is not None else f"no library could be built (compiler missing, or {FORBID} set)"


def forward(rows: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values [N, k], ids [N, k] and logsumexp [N] of rows [N, V]."""
    rows = _unit_stride(rows)
    count, vocabulary = rows.shape
    values, ids = rows.new_empty(count, k), rows.new_empty(count, k, dtype=torch.int64)
    total = rows.new_empty(count, dtype=torch.float32)
    code = _loaded()
    source = (rows.data_ptr(), _KINDS[rows.dtype], rows.stride(0), vocabulary, k)

    def part(first: int, last: int) -> None:
        if code.gfviz_forward(*source, first, last, values.data_ptr(), ids.data_ptr(), total.data_ptr()):
            raise MemoryError(f"no memory for the candidates of a vocabulary of {vocabulary}")

    _in_threads(part, count, vocabulary)
    return values, ids, total


def backward(rows: Tensor, ids: Tensor, total: Tensor, of_values: Tensor, of_total: Tensor, gradient: Tensor) -> None:
    """Fill `gradient` [N, V] in one pass; a row with of_total = 0 gets zeros and its of_values."""
    rows = _unit_stride(rows)
    count, vocabulary = rows.shape
    ids, total = ids.contiguous(), total.contiguous()
    of_values, of_total = of_values.float().contiguous(), of_total.float().contiguous()
    code = _loaded()
    source = (rows.data_ptr(), _KINDS[rows.dtype], rows.stride(0), vocabulary, ids.shape[1])
    parts = [tensor.data_ptr() for tensor in (ids, total, of_values, of_total, gradient)]
    _in_threads(lambda first, last: code.gfviz_backward(*source, first, last, *parts), count, vocabulary)


def _unit_stride(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def _in_threads(work: Callable[[int, int], None], count: int, vocabulary: int) -> None:
    """Run `work(first, last)` over ranges of rows, in as many threads as torch uses; ctypes lets go of the GIL."""
    threads = max(1, min(torch.get_num_threads(), count, count * vocabulary // _ELEMENTS_PER_THREAD))
    edges = [count * i // threads for i in range(threads + 1)]
    errors: list[BaseException] = []

    def guarded(first: int, last: int) -> None:
        try:
            work(first, last)
        except BaseException as error:
            errors.append(error)

    # Threads of a call's own, not a pool: a pool does not survive a fork, and starting one costs some 50 µs.
    others = [threading.Thread(target=guarded, args=edges[i : i + 2]) for i in range(1, threads)]
    for thread in others:
        thread.start()
    guarded(edges[0], edges[1])
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]


def _loaded() -> ctypes.CDLL:
    code = library()
    if code is None:
        raise RuntimeError("the compiled kernel was asked to run where `refusal` refuses it")
    return code


def library() -> ctypes.CDLL | None:
    """The compiled library; None where it is forbidden, cannot be had, or gets a small case wrong."""
    code = load_compiled((_SOURCE,), _FLAGS)
    return code if code is not None and _is_right(code) else None


@lru_cache(maxsize=1)
def _is_right(code: ctypes.CDLL) -> bool:
    """Set the signatures and try a small case."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    rows: list[Any] = [pointer, number, *[size] * 5]
    code.gfviz_forward.argtypes, code.gfviz_forward.restype = [*rows, *[pointer] * 3], number
    code.gfviz_backward.argtypes, code.gfviz_backward.restype = [*rows, *[pointer] * 5], None
    logits = torch.arange(700, device="cpu", dtype=torch.float32) * 37 % 700 / 100
    values, ids, total = logits.new_empty(3), logits.new_empty(3, dtype=torch.int64), logits.new_empty(1)
    code.gfviz_forward(logits.data_ptr(), 0, 700, 700, 3, 0, 1, values.data_ptr(), ids.data_ptr(), total.data_ptr())
    right = torch.equal(values, logits.topk(3).values) and torch.equal(logits[ids], values)
    return right and abs(total.item() - torch.logsumexp(logits, 0).item()) < 1e-5
