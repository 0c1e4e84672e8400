"""Who writes a run: a process told by pid *and* creation time, and the lock that dies with it."""

import contextlib
import os
import platform
import socket
import sys
from pathlib import Path
from typing import IO, Any, NamedTuple

from gfviz.errors import GfvizError

_held: set[Path] = set()


class ProcessIdentity(NamedTuple):
    """One process of one boot of one host; equal pids of another time or boot are another process.

    `created` is psutil's creation time (seconds since 1970). It is derived from the boot time, which moves when the
    clock is set, so on Linux `ticks` (start time in clock ticks since boot) decides.
    """

    pid: int
    created: float
    ticks: int | None
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int | None = None) -> "ProcessIdentity":
        """Identity of a live process (this one by default). Raises `GfvizError` where there is none."""
        import psutil  # here, because reading runs does not need what importing it costs

        pid = os.getpid() if pid is None else pid
        try:
            created = psutil.Process(pid).create_time()
        except psutil.Error as error:
            raise GfvizError(f"no process {pid}: {error}") from error
        return cls(pid, created, _start_ticks(pid), boot_id(), socket.gethostname())

    @classmethod
    def from_json(cls, record: Any) -> "ProcessIdentity | None":
        """Read what `_asdict` wrote; None where it is absent or not of that form."""
        if not isinstance(record, dict):
            return None
        pid, created, ticks = record.get("pid"), record.get("created"), record.get("ticks")
        # 0 and negative numbers name groups of processes to the kernel, among them all that there are.
        if type(pid) is not int or not 0 < pid < 2**31:
            return None
        if isinstance(created, bool) or not isinstance(created, int | float) or not 0 <= created < 1e12:
            return None
        boot, host = record.get("boot"), record.get("host")
        return cls(
            pid,
            float(created),
            ticks if type(ticks) is int else None,
            boot if isinstance(boot, str) else "",
            host if isinstance(host, str) else "",
        )

    def alive(self) -> bool | None:
        """Whether that very process still runs; None where it belongs to another host, of which nothing is known.

        A zombie is dead: it runs no more, its parent has not asked for it yet.

        >>> ProcessIdentity.of().alive()
        True
        >>> ProcessIdentity.of()._replace(ticks=1, created=1.0).alive()
        False
        """
        if self.host != socket.gethostname():
            return None
        if self.boot != boot_id():
            return False
        import psutil

        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            ticks = _start_ticks(self.pid)
            if ticks is not None and self.ticks is not None:
                return ticks == self.ticks
            return abs(process.create_time() - self.created) < 1.0
        except psutil.Error:
            return False


def boot_id() -> str:
    """Name of this boot: the kernel's on Linux, the boot time to ten seconds elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return f"{platform.node()}-{round(psutil.boot_time(), -1):.0f}"


def _start_ticks(pid: int) -> int | None:
    try:
        # The command may hold spaces and brackets; after its last bracket the fields are plain. Start time is no. 22.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


class WriterLock:
    """An exclusive lock on a file, held by this process and gone with it, however it ends.

    POSIX record locks and not `flock`: those of a data loader's forked worker would outlive the trainer. They belong to
    the process, so a second writer in the same process is told apart by a set.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock; False where another writer holds it. Raises `GfvizError` where the file cannot be opened."""
        if self.path in _held:
            return False
        try:
            handle = open(self.path, "a+b")  # noqa: SIM115 - held open until release
        except OSError as error:
            raise GfvizError(f"cannot write {self.path}: {error.strerror or error}") from error
        if not _lock_file(handle):
            handle.close()
            return False
        self._file = handle
        _held.add(self.path)
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._file is not None:
            _held.discard(self.path)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


if sys.platform == "win32":
    import msvcrt

    def _lock_file(handle: IO[bytes]) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock_file(handle: IO[bytes]) -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
