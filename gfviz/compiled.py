"""C files of the library, compiled once for this machine and loaded with ctypes.

The compiler is the machine's own; the result lies in the user's cache folder and nowhere else. Whoever asks has a twin
in Python for the machine where this cannot be: no compiler, an unsafe folder, GFVIZ_NO_COMPILE=1.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FORBID = "GFVIZ_NO_COMPILE"
# No fused multiply-add and no reordering of sums: they are the same on every machine that compiles this, and in Python.
EXACT_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")


def load_compiled(
    sources: tuple[Path, ...], flags: tuple[str, ...], headers: tuple[Path, ...] = ()
) -> ctypes.CDLL | None:
    """The library that `sources` of one folder compile to under `flags`, built if need be; None where it cannot be had.

    Built once for each set of sources and of the `headers` they include, flags, compiler and processor. Costs a second
    or so then, milliseconds later; the caller sets the signatures and checks a small case.

    >>> import tempfile, pathlib
    >>> load_compiled((pathlib.Path(tempfile.mkdtemp()) / "missing.c",), ()) is None
    True
    """
    return None if os.environ.get(FORBID, "0") not in ("", "0") else _load(sources, flags, headers)


def pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    """Where the arrays begin. They must be contiguous, of the type that the C function reads, and outlive the call.

    >>> import numpy as np
    >>> [type(each).__name__ for each in pointers(np.ones(2))]
    ['c_void_p']
    """
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


@lru_cache(maxsize=8)
def _load(sources: tuple[Path, ...], flags: tuple[str, ...], headers: tuple[Path, ...]) -> ctypes.CDLL | None:
    # Whatever goes wrong here (no compiler, full disk, read-only home, odd processor), the twin's answer is as right.
    try:
        compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
        folder = cache_folder()
        if compiler is None or folder is None:
            return None
        target = folder / f"{sources[0].parent.name}-{_fingerprint((*sources, *headers), flags, compiler)}.so"
        if not _is_ours(target, stat.S_ISREG):
            _compile(sources, flags, compiler, target)
        return ctypes.CDLL(str(target)) if _is_ours(target, stat.S_ISREG) else None
    except (OSError, subprocess.SubprocessError):
        return None


def cache_folder() -> Path | None:
    """The private folder for compiled code, made if need be; None where it cannot be private.

    $XDG_CACHE_HOME/gfviz/native, or ~/.cache/gfviz/native. Code is loaded from it: it must be this user's and nobody
    else may write into it.
    """
    if os.name != "posix":
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gfviz" / "native"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if _is_ours(folder, stat.S_ISDIR) else None


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    writable_by_others = stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    return is_kind(found.st_mode) and found.st_uid == os.getuid() and not writable_by_others


def _fingerprint(texts: tuple[Path, ...], flags: tuple[str, ...], compiler: str) -> str:
    """Hash of all that the machine code depends on: sources and headers, flags, compiler, processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20, check=True).stdout
    digest = hashlib.sha256()
    code = [text.read_bytes() for text in texts]
    for part in (*code, " ".join(flags).encode(), os.path.realpath(compiler).encode(), version, _processor()):
        digest.update(b"\0" + part)
    return digest.hexdigest()[:32]


def _processor() -> bytes:
    # A home folder may be shared by machines whose processors differ: -march=native code must not travel.
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
        kept = [line for line in lines if line.split(b"\t")[0] in (b"model name", b"flags", b"Features", b"CPU part")]
        return platform.machine().encode() + b"\n".join(kept)
    return f"{platform.platform()} {platform.processor()}".encode()


def _compile(sources: tuple[Path, ...], flags: tuple[str, ...], compiler: str, target: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=".build-", suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        command = [compiler, *flags, "-fPIC", "-shared", "-o", name, *map(str, sources), "-lm"]
        subprocess.run(command, capture_output=True, timeout=120, check=True, stdin=subprocess.DEVNULL)
        os.chmod(name, 0o700)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
