"""Starting, stopping and resuming runs that outlive whoever started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig
from gfviz.fusion.data import read_examples
from gfviz.fusion.recipes import accelerate_path
from gfviz.runs import RunDirectory
from gfviz.runs.identity import ProcessIdentity

_POLL_SECONDS = 0.1


def launch_detached(
    config: str | Path | Mapping[str, Any] | FusionConfig,
    overrides: Sequence[str] = (),
    *,
    processes: int = 1,
    accelerate_config: str | Path | None = None,
) -> RunDirectory:
    """Start a fusion as a process of its own and return its run at once; it outlives the caller.

    Several `processes` go through `accelerate launch` on GPUs and through torch's launcher (gloo) on CPUs; an
    Accelerate configuration file goes through `accelerate launch`, for several nodes too. What the process prints is
    in the run's `stdout.log`. Raises `GfvizError` for a configuration or data that cannot be read.
    """
    # Stopping and resuming are an app's buttons: they must not wait for transformers.
    from gfviz.fusion.session import create_run, read_config

    checked = read_config(config, overrides)
    if not checked.data.train:
        raise GfvizError("data.train: no training files: name JSONL files with prompt and answer")
    read_examples(checked.data.train)
    run = create_run(checked)
    _start(run, processes, accelerate_config)
    return run


def launch_resume(
    run: RunDirectory, *, processes: int = 1, accelerate_config: str | Path | None = None
) -> RunDirectory:
    """Resume a run as a process of its own. Raises `GfvizError` for one that is alive or has finished."""
    status = run.status()
    if status.alive and status.pid is not None:
        raise GfvizError(f"run {run.id} is {status.state} in process {status.pid}: stop it first")
    if status.state == "finished":
        raise GfvizError(f"run {run.id} has finished: there is nothing to resume")
    _start(run, processes, accelerate_config)
    return run


def stop(run: RunDirectory, timeout: float | None = None) -> bool:
    """Ask a run to stop: it finishes its step, writes a checkpoint and ends. True once it has ended.

    Waits at most `timeout` seconds (None: not at all). Raises `GfvizError` for a run that is not alive, or lives on
    another host.
    """
    status = run.status()
    process = run.record().process
    if not status.alive or process is None:
        raise GfvizError(f"run {run.id} is {status.state}, not running: there is nothing to stop")
    if process.alive() is None:
        raise GfvizError(f"run {run.id} runs on {process.host}: stop it there")
    try:
        if not _terminate(process):
            return True
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise GfvizError(f"run {run.id} belongs to another user: process {process.pid} may not be stopped") from error
    deadline = time.monotonic() + (timeout or 0.0)
    while process.alive():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def worker_command(run: RunDirectory, processes: int = 1, accelerate_config: str | Path | None = None) -> list[str]:
    """The argument list that runs `run`: this Python on the worker module, through a launcher for several processes.

    >>> worker_command(RunDirectory(Path("runs/x")))[1:]
    ['-m', 'gfviz.fusion.worker', 'runs/x']
    """
    return launch_command(["-m", "gfviz.fusion.worker", str(run.path)], processes, accelerate_config)


def launch_command(worker: list[str], processes: int = 1, accelerate_config: str | Path | None = None) -> list[str]:
    """The argument list that runs this Python on `worker`, through a launcher for several processes.

    >>> launch_command(["-m", "module"])[1:]
    ['-m', 'module']
    """
    if processes < 1:
        raise GfvizError(f"processes = {processes}: at least one is needed")
    if processes == 1 and accelerate_config is None:
        return [sys.executable, *worker]
    if accelerate_config is None and not _has_gpus(processes):
        # On CPUs `accelerate launch` starts a single process unless mpirun is there; torch's launcher starts them all,
        # and Accelerate finds them (gloo) through the environment.
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            *worker,
        ]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    if accelerate_config is not None:
        command += ["--config_file", str(accelerate_path(accelerate_config))]
    if processes > 1:
        command += ["--num_processes", str(processes), *(["--multi_gpu"] if accelerate_config is None else [])]
    return [*command, *worker]


def _terminate(process: ProcessIdentity) -> bool:
    """Send SIGTERM to this very process; False where it is gone, whoever has its number now."""
    if not hasattr(os, "pidfd_open"):
        if process.alive():
            os.kill(process.pid, signal.SIGTERM)
            return True
        return False
    descriptor = os.pidfd_open(process.pid)
    try:
        # The descriptor holds on to one process: what is checked here is what gets the signal.
        if not process.alive():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        return True
    finally:
        os.close(descriptor)


def _has_gpus(count: int) -> bool:
    import torch

    return torch.cuda.device_count() >= count


def _start(run: RunDirectory, processes: int, accelerate_config: str | Path | None) -> None:
    command = worker_command(run, processes, accelerate_config)
    try:
        with open(run.log_path, "ab") as log:
            # A session of its own: closing the terminal or the app does not reach it.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _with_package_on_path()},
            )
    except OSError as error:
        raise GfvizError(f"cannot start run {run.id}: {error.strerror or error}") from error
    run.mark_launched(process.pid)


def _with_package_on_path() -> str:
    # The worker must find the same gfviz, even where the caller found it through its own working directory.
    home = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
