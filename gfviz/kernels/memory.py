"""Fresh memory for results as large as the logits."""

import ctypes
import sys
from functools import lru_cache

import torch
from torch import Tensor

# Below this the C library's allocator hands out memory that was used before.
_LARGE_BYTES = 1 << 23
_PAGE = 4096
_MADV_HUGEPAGE = 14


def fresh_like(tensor: Tensor) -> Tensor:
    """Uninitialised contiguous memory of a tensor's shape and dtype, under large pages where the system grants them.

    Filling fresh memory is mostly page faults (at 311 MB 5 times the writing itself); with large pages there are 512
    times fewer. A hint: where it is not taken the memory is the same.

    >>> fresh_like(torch.zeros(2, 3).T).stride()
    (2, 1)
    """
    fresh = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    size = fresh.numel() * fresh.element_size()
    # Subclasses (fake, distributed tensors) have no memory of their own.
    if size >= _LARGE_BYTES and fresh.device.type == "cpu" and type(fresh) is Tensor:
        advise = _madvise()
        if advise is not None:
            start = -(-fresh.data_ptr() // _PAGE) * _PAGE
            advise(start, (fresh.data_ptr() + size - start) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    return fresh


@lru_cache(maxsize=1)
def _madvise():
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function
