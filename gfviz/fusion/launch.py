"""Starting, stopping, resuming and joining runs that outlive whoever started them."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, parse_config
from gfviz.fusion.data import read_examples
from gfviz.fusion.launcher import Launcher, find_launcher, read_json_file, recorded_launcher
from gfviz.fusion.trust import asks_for_code, refuse_code, refuse_pickles, said
from gfviz.runs import RunDirectory, list_runs
from gfviz.runs.identity import ProcessIdentity

_POLL_SECONDS = 0.1


class Started(NamedTuple):
    """A run and the process that was started for it: the worker, or the launcher of several."""

    run: RunDirectory
    process: subprocess.Popen[bytes]


def launch_detached(
    config: str | Path | Mapping[str, Any] | FusionConfig,
    overrides: Sequence[str] = (),
    *,
    processes: int | None = None,
    accelerate_config: str | Path | None = None,
) -> RunDirectory:
    """Start a fusion as a process of its own and return its run at once; it outlives the caller.

    Several `processes` go through `accelerate launch` on GPUs and through torch's launcher (gloo) on CPUs; an
    Accelerate configuration goes through `accelerate launch` unless it is for CPUs, and says how many processes there
    are where `processes` does not. How it was launched is kept in the run, for `launch_resume`. What the process
    prints is in the run's `stdout.log`.

    Where the configuration names several machines, only number 0 makes the run; the others call `join_run`. Raises
    `GfvizError` for a configuration, data or launcher that cannot be used, before there is a run.
    """
    return start_fusion(config, overrides, processes=processes, accelerate_config=accelerate_config).run


def start_fusion(
    config: str | Path | Mapping[str, Any] | FusionConfig,
    overrides: Sequence[str] = (),
    *,
    processes: int | None = None,
    accelerate_config: str | Path | None = None,
) -> Started:
    """As `launch_detached`, with the process, for who waits for its end. Raises `GfvizError` as that does."""
    # Stopping and resuming are an app's buttons: they must not wait for transformers.
    from gfviz.fusion.session import read_config

    checked = read_config(config, overrides)
    if not checked.data.train:
        raise GfvizError("data.train: no training files: name JSONL files with prompt and answer")
    read_examples(checked.data.train)
    read_examples(checked.data.evaluation)
    launcher = find_launcher(processes, accelerate_config)
    if launcher.machine:
        raise GfvizError(
            f"{launcher.path}: machine {launcher.machine} of {launcher.machines} makes no run: start machine 0, then "
            f"here `gfviz fuse --join RUN --accelerate-config {launcher.path}`"
        )
    launcher.check(checked)
    run = RunDirectory.create(checked.runs, checked.to_mapping(), "fusion", checked.name, launcher.record)
    process = _start(run, recorded_launcher(run), asks_for_code(checked.to_mapping()) is not None)
    return Started(run, process)


def launch_resume(
    run: RunDirectory, *, processes: int | None = None, accelerate_config: str | Path | None = None
) -> RunDirectory:
    """Resume a run as a process of its own, launched as it was unless told otherwise.

    Raises `GfvizError` for one that is alive, has finished, or asks for a model's own code that nobody allowed here,
    and for a launcher that cannot be used, or starts another number of processes than wrote the checkpoint.
    """
    return start_resume(run, processes=processes, accelerate_config=accelerate_config).run


def start_resume(
    run: RunDirectory, *, processes: int | None = None, accelerate_config: str | Path | None = None
) -> Started:
    """As `launch_resume`, with the process, for who waits for its end. Raises `GfvizError` as that does."""
    refuse_code(run.config, str(run.path / "config.yaml"))
    _refuse_alive(run)
    launcher = resume_launcher(run, processes, accelerate_config)
    launcher.check(_config(run))
    _refuse_pickles(run)
    if launcher != recorded_launcher(run):
        launcher.record(run.path)
    return Started(run, _start(run, recorded_launcher(run)))


def resume_launcher(
    run: RunDirectory, processes: int | None = None, accelerate_config: str | Path | None = None
) -> Launcher:
    """The launcher with which a run would be resumed: the recorded one but for what is given.

    Raises `GfvizError` for one that cannot resume it, among others for another number of processes than wrote its
    newest checkpoint.
    """
    kept = recorded_launcher(run)
    if accelerate_config is not None:
        found = find_launcher(processes, accelerate_config)
    elif processes is None or processes == kept.processes:
        found = kept
    else:
        found = find_launcher(processes, kept.path)
        found = found if kept.deepspeed is None else replace(found, deepspeed=kept.deepspeed)
    if found.machine:
        raise GfvizError(
            f"{found.path}: run {run.id} is resumed by machine 0: resume it there, then here "
            f"`gfviz fuse --join {run.path} --accelerate-config {found.path}`"
        )
    wrote = _checkpoint_processes(run)
    if wrote is not None and wrote != found.processes:
        raise GfvizError(
            f"run {run.id}: its checkpoint was written by {wrote} process{'es' if wrote > 1 else ''} and cannot be "
            f"resumed by {found.processes}: pass --processes {wrote}"
        )
    return found


def join_run(run: RunDirectory, accelerate_config: str | Path) -> Started:
    """Start this machine's processes of a run that machine 0 of the configuration has made, on storage they share.

    None of them writes the run but its shards of a checkpoint. What they print is in the run's `stdout-N.log`. Raises
    `GfvizError` for a configuration of machine 0, or of other numbers than the run was launched with.
    """
    refuse_code(run.config, str(run.path / "config.yaml"))
    if run.record().state == "finished":
        raise GfvizError(f"run {run.id} has finished: there is nothing to join")
    launcher, made = find_launcher(None, accelerate_config), recorded_launcher(run)
    if made.machines == 1:
        raise GfvizError(f"run {run.id} was launched on one machine: there is nothing to join")
    if (launcher.processes, launcher.machines) != (made.processes, made.machines):
        raise GfvizError(
            f"{launcher.path}: {launcher.processes} processes on {launcher.machines} machines, but run {run.id} was "
            f"launched with {made.processes} on {made.machines}: make them the same"
        )
    if not launcher.machine:
        raise GfvizError(f"{launcher.path}: machine_rank is 0, the machine that made the run: number the others from 1")
    launcher.check(_config(run))
    _refuse_pickles(run)
    return Started(run, _start(run, launcher))


def join_hint(run: RunDirectory) -> str:
    """What to do on the other machines of a run, empty where there are none. Raises `GfvizError` as its record does."""
    machines = recorded_launcher(run).machines
    if machines == 1:
        return ""
    return (
        f"it waits for {machines - 1} more: on each `gfviz fuse --join {run.path.resolve()} --accelerate-config FILE` "
        "with its own machine_rank"
    )


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


def worker_command(
    run: RunDirectory, processes: int | None = None, accelerate_config: str | Path | None = None
) -> list[str]:
    """The argument list that runs `run`: this Python on the worker module, through a launcher for several processes.

    >>> worker_command(RunDirectory(Path("runs/x")))[1:]
    ['-m', 'gfviz.fusion.worker', 'runs/x']
    """
    return launch_command(_worker(run), processes, accelerate_config)


def launch_command(
    worker: list[str], processes: int | None = None, accelerate_config: str | Path | None = None
) -> list[str]:
    """The argument list that runs this Python on `worker`, through a launcher for several processes.

    Raises `GfvizError` as `find_launcher` does.

    >>> launch_command(["-m", "module"])[1:]
    ['-m', 'module']
    """
    return find_launcher(processes, accelerate_config).command(worker)


def _worker(run: RunDirectory) -> list[str]:
    return ["-m", "gfviz.fusion.worker", str(run.path)]


def _config(run: RunDirectory) -> FusionConfig:
    return parse_config(run.config, source=str(run.path / "config.yaml"))


def _refuse_alive(run: RunDirectory) -> None:
    status = run.status()
    if status.alive and status.pid is not None:
        raise GfvizError(f"run {run.id} is {status.state} in process {status.pid}: stop it first")
    if status.state == "finished":
        raise GfvizError(f"run {run.id} has finished: there is nothing to resume")


def _checkpoint_processes(run: RunDirectory) -> int | None:
    """How many processes wrote the checkpoint from which the run would go on; None without one."""
    folder = _checkpoint(run)
    if folder is None:
        return None
    found = read_json_file(folder / "fusion.json", f"{folder} is damaged, remove it to resume from the one before")
    return found["world_size"] if type(found.get("world_size")) is int else None


def _checkpoint(run: RunDirectory) -> Path | None:
    # Of a pairwise fusion it is the one of the pair that it was at.
    unfinished = [pair for pair in list_runs(run.path / "pairs") if pair.record().state != "finished"]
    return next((folder for one in (run, *unfinished) for _, folder in one.checkpoints()[-1:]), None)


def _refuse_pickles(run: RunDirectory) -> None:
    # The processes refuse them too, but where nobody reads it.
    folder = _checkpoint(run)
    if folder is not None:
        refuse_pickles(folder, str(run.record().facts.get("distributed")))


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


def _start(run: RunDirectory, launcher: Launcher, trusted: bool = False) -> subprocess.Popen[bytes]:
    log_path = run.log_path if launcher.machine == 0 else run.log_path.with_name(f"stdout-{launcher.machine}.log")
    if log_path.is_symlink():
        raise GfvizError(f"{log_path} is a link: a run is written only where its files are its own")
    told = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": _with_package_on_path(), **launcher.environment(), **said(trusted)}
    try:
        with open(log_path, "ab") as log:
            # A session of its own: closing the terminal or the app does not reach it.
            process = subprocess.Popen(
                launcher.command(_worker(run)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **told},
            )
    except OSError as error:
        raise GfvizError(f"cannot start run {run.id}: {error.strerror or error}") from error
    if launcher.machine == 0:
        run.mark_launched(process.pid)
    return process


def _with_package_on_path() -> str:
    # The worker must find the same gfviz, even where the caller found it through its own working directory.
    home = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
