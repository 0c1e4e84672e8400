"""Children to be killed: forks of a process that has everything imported, so that a kill costs no start-up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Tell = Callable[..., None]
Body = Callable[[Tell], None]


class Ended(NamedTuple):
    """How a child ended: `code` as of `subprocess` (−9 where it was killed), what it had told, what it printed."""

    code: int
    told: list[Any]
    printed: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def run_child(body: Body, log: Path, kill_after: float | None = None, limit: float = 400.0) -> Ended:
    """Fork, run `body(tell)` in a session of its own, and kill its group `kill_after` seconds after it has begun.

    `tell(value)` sends a JSON value to this process by one write to a pipe: what was told was told before the death.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(body, writing, log)
    os.close(writing)
    began = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        passed = time.monotonic() - began
        if done:
            break
        if passed >= (limit if kill_after is None else kill_after):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # not yet the leader of its group
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.0005 if kill_after is not None else 0.01)
    with open(reading, "rb") as pipe:
        told = [json.loads(line) for line in pipe.read().splitlines()]
    return Ended(os.waitstatus_to_exitcode(status), told, log.read_text("utf-8", "replace") if log.exists() else "")


def _child(body: Body, writing: int, log: Path) -> None:
    code = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - the child's for good
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115

        def tell(*values: Any) -> None:
            os.write(writing, json.dumps(values[0] if len(values) == 1 else values).encode() + b"\n")

        body(tell)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # No handler and no buffer of the parent may run in the child.
        os._exit(code)


def run_command(command: Sequence[str], log: Path, kill_after: float | None, environment: dict[str, str]) -> int:
    """A real process in a session of its own, killed with its group; its exit code (−9 where it was killed)."""
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env=environment,
        )  # fmt: skip
    try:
        return process.wait(kill_after if kill_after is not None else 400)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
