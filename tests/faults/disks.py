"""Disks that fail: one that fills up, one that cannot be written, one that is slow, and errors put in by hand."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A real file system of that size (tmpfs); skips the test where it cannot be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder as on a disk that was mounted read-only: root is refused too."""
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True).returncode
    ):
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill the disk but for `leave` bytes; the file that does it, to be removed to make room again."""
    ballast = disk / "ballast"
    with open(ballast, "ab", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(b"\0" * 4096)
    if leave:
        os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


@contextlib.contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int, part: str = "") -> Iterator[None]:
    """`os.fsync` or `os.replace` raises the error of that number (for paths that hold `part`)."""
    plain = getattr(os, call)

    def broken(*arguments, **named):
        if part in str(arguments):
            raise OSError(number, os.strerror(number))
        return plain(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, broken)
        yield


@contextlib.contextmanager
def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """Every fsync takes that long."""
    plain = os.fsync

    def late(handle: int) -> None:
        time.sleep(seconds)
        plain(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", late)
        yield


def slow_disk() -> None:
    """In a child: every fsync and rename takes 15 ms, so that many a kill falls between two writes."""
    for name in ("fsync", "replace", "rename"):
        plain = getattr(os, name)

        def slow(*arguments: Any, plain: Any = plain) -> Any:
            time.sleep(0.015)
            return plain(*arguments)

        setattr(os, name, slow)
