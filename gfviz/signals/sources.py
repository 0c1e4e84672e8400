"""Logits from disk."""

from pathlib import Path

import torch
from torch import Tensor

from gfviz.errors import GfvizError

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_logits(path: str | Path, key: str | None = None) -> Tensor:
    """Read logits [T, V] or [B, T, V] from `.npy` or `.safetensors`; `key` names the tensor where there are several.

    `.npy` files are memory-mapped and never unpickled. Raises `GfvizError` for a missing or broken file, another
    suffix, an unknown key, a dtype that is not floating, or a shape that is not [T, V] or [B, T, V].

    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "logits.npy"
    >>> np.save(path, np.zeros((4, 7), np.float32))
    >>> list(read_logits(path).shape)
    [4, 7]
    """
    path = Path(path)
    if not path.is_file():
        raise GfvizError(f"{path}: no such file")
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise GfvizError(f"{path}: logits are read from .npy or .safetensors, not '{path.suffix}'")
    logits = reader(path, key)
    if logits.dtype not in _FLOATING or logits.dim() not in (2, 3) or 0 in logits.shape:
        raise GfvizError(
            f"{path}: expected floating logits of shape [T, V] or [B, T, V], found {logits.dtype} {list(logits.shape)}"
        )
    return logits


def _read_npy(path: Path, key: str | None) -> Tensor:
    from tokenize import TokenError

    import numpy as np

    if key is not None:
        raise GfvizError(f"{path}: a .npy file holds one unnamed array: leave out the key '{key}'")
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of several arrays")
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    # The header is a Python literal, and numpy lets through whatever its tokenizer and parser raise.
    except (ValueError, TypeError, OSError, EOFError, SyntaxError, TokenError, MemoryError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise GfvizError(f"{path}: not a readable .npy array of numbers ({text})") from error


def _read_safetensors(path: Path, key: str | None) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as archive:
            keys = sorted(archive.keys())
            if key is None:
                key = "logits" if "logits" in keys else keys[0] if len(keys) == 1 else None
            if key is None or key not in keys:
                raise GfvizError(f"{path}: name the tensor to read, one of: {', '.join(keys[:8]) or 'none is there'}")
            return archive.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise GfvizError(f"{path}: not a readable safetensors file ({error})") from error
