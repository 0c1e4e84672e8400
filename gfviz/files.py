"""Writing files so that a reader sees the old content or the new, never half of either."""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gfviz.errors import GfvizError

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `target`; on leaving without error, fsync it and rename it to `target`.

    On an error the temporary file is removed and `target` is as it was. What a killed process left of an earlier
    attempt at the same target is removed first. Missing parent folders are made.
    Raises `GfvizError` where the folder cannot be written.

    >>> import tempfile, pathlib
    >>> folder = tempfile.mkdtemp()
    >>> with atomic_path(pathlib.Path(folder) / "a.txt") as scratch:
    ...     _ = scratch.write_text("whole")
    >>> (pathlib.Path(folder) / "a.txt").read_text()
    'whole'
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, f".{target.name}.")
        handle, scratch = _locked_scratch(target)
    except OSError as error:
        raise GfvizError(f"cannot write {target}: {error.strerror or error}") from error
    try:
        yield scratch
        # mkstemp makes private files; the user's umask decides about the finished one.
        umask = os.umask(0)
        os.umask(umask)
        scratch.chmod(0o666 & ~umask)
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, target)
        sync_folder(target.parent)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise GfvizError(f"cannot write {target}: {error.strerror or error}") from error
        raise
    finally:
        os.close(handle)


def atomic_write_bytes(target: str | Path, content: bytes) -> None:
    """Write `content` to `target` whole or not at all."""
    with atomic_path(target) as scratch:
        scratch.write_bytes(content)


def atomic_write_text(target: str | Path, content: str) -> None:
    """Write `content` as UTF-8 to `target` whole or not at all."""
    atomic_write_bytes(target, content.encode("utf-8"))


def read_small_text(path: Path, most: int = 64 << 20, links: bool = True) -> str:
    """The UTF-8 text of an ordinary file of at most `most` bytes.

    Raises `GfvizError` for a larger one, for a pipe, a device or a folder, none of which is read, and for a link where
    `links` are not wanted; `OSError`, `UnicodeDecodeError`, and `ValueError` for a path with a null byte as
    `Path.read_text`.
    """
    # A pipe is opened without waiting for its writer; only then can be told what it is.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not links and path.is_symlink():
        raise GfvizError(f"{path} is a link: put the file itself there")
    handle = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise GfvizError(f"{path} is no ordinary file but a folder, a pipe or a device: it is not read")
        content = _read_up_to(handle, most + 1) if facts.st_size <= most else b""
        if len(content) > most or facts.st_size > most:
            raise GfvizError(f"{path} is larger than {_size(most)}: that is no such file of gfviz")
    finally:
        os.close(handle)
    return content.decode("utf-8")


def _read_up_to(handle: int, most: int) -> bytes:
    # In pieces: room for the whole of `most` would be asked for at once.
    pieces, left = [], most
    while left > 0 and (piece := os.read(handle, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _size(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"


def is_text(value: str) -> bool:
    """Whether a text is one that files and terminals can hold: no half of a character that takes two.

    >>> is_text("é"), is_text("\\ud800")
    (True, False)
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def whole_characters(text: str, where: str) -> str:
    """`text` itself. Raises `GfvizError` beginning with `where` for half a surrogate pair, which JSON can escape.

    Tokenizers, hashes and files take UTF-8, which has no form for it.

    >>> whole_characters("caf\\ud800", "a.jsonl, line 3")
    Traceback (most recent call last):
    ...
    gfviz.errors.GfvizError: a.jsonl, line 3: holds \\ud800, half of a surrogate pair, which is no text: remove it
    """
    if not is_text(text):
        half = next(character for character in text if not is_text(character))
        raise GfvizError(f"{where}: holds \\u{ord(half):04x}, half of a surrogate pair, which is no text: remove it")
    return text


def remove_whatever(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link (never what it leads to), where there is one."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def fresh_folder(path: Path) -> Path:
    """An empty folder in the place of whatever was there. Raises `OSError` where it cannot be made."""
    remove_whatever(path)
    path.mkdir(parents=True)
    return path


def sync_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk: without it a rename may be lost in a power cut."""
    # Windows cannot open folders.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, prefix: str = ".") -> None:
    """Remove the temporary files `prefix`*.tmp of processes that are dead; those of live ones are locked and stay."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".tmp") and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), claimed(Path(entry.path)) as mine:
                    if mine:
                        os.unlink(entry.path)


@contextlib.contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold an existing file or folder until it is left or the process dies; False where somebody else holds it.

    True also says that `path` still is what was locked: one that was removed meanwhile is nobody's. Always False on
    Windows, which has no such locks. Raises `OSError` where the path cannot be opened or its disk has no locks.
    """
    if sys.platform == "win32":
        yield False
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield _locked(handle, wait) and _is_still(path, handle)
    finally:
        os.close(handle)


def _locked_scratch(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        # A disk without locks is never swept either.
        with contextlib.suppress(OSError):
            _locked(handle, wait=True)
        # Between making and locking it, another process's sweep may have taken it for a dead one's.
        if _is_still(Path(name), handle):
            return handle, Path(name)
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _locked(handle: int, wait: bool) -> bool:
    # flock belongs to the open file, not to the process: whoever writes to the scratch file may open and close it.
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
