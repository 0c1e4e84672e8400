"""Writing files so that a reader sees the old content or the new, never half of either."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gfviz.errors import GfvizError


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `target`; on leaving without error, fsync it and rename it to `target`.

    On an error the temporary file is removed and `target` is as it was. Missing parent folders are made.
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
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise GfvizError(f"cannot write {target}: {error.strerror or error}") from error
    os.close(handle)
    scratch = Path(name)
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


def atomic_write_bytes(target: str | Path, content: bytes) -> None:
    """Write `content` to `target` whole or not at all."""
    with atomic_path(target) as scratch:
        scratch.write_bytes(content)


def atomic_write_text(target: str | Path, content: str) -> None:
    """Write `content` as UTF-8 to `target` whole or not at all."""
    atomic_write_bytes(target, content.encode("utf-8"))


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
