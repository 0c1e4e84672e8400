"""How the processes of a run are started: which launcher, how many, on which machines; and the run's record of it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_bytes, atomic_write_text, read_small_text
from gfviz.fusion.recipes import accelerate_path
from gfviz.runs.yamlfile import read_mapping

if TYPE_CHECKING:
    from gfviz.fusion.config import FusionConfig
    from gfviz.runs import RunDirectory

RECORD, ACCELERATE, DEEPSPEED = "launch.json", "accelerate.yaml", "deepspeed.json"
_MOST = 1_000_000
_MANY_A_CORE = 16
# What of an Accelerate configuration concerns processes of this Python on the machines that take part.
_LOCAL_KEYS = {
    "compute_environment", "debug", "deepspeed_config", "distributed_type", "downcast_bf16", "dynamo_config",
    "enable_cpu_affinity", "fsdp_config", "gpu_ids", "machine_rank", "main_process_ip", "main_process_port",
    "main_training_function", "mixed_precision", "num_machines", "num_processes", "parallelism_config", "rdzv_backend",
    "same_network", "use_cpu",
}  # fmt: skip


@dataclass(frozen=True)
class Launcher:
    """`processes` over all machines, `machines` of them, of which this is number `machine`.

    `path` and `settings`: an Accelerate configuration and what it holds, None and empty without one. `deepspeed`: the
    DeepSpeed file that it names, wherever that lies now.
    """

    processes: int = 1
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    machines: int = 1
    machine: int = 0
    deepspeed: Path | None = None

    @property
    def kind(self) -> str:
        """Accelerate's word for how devices share the work: NO, MULTI_GPU, FSDP, DEEPSPEED, …"""
        return str(self.settings.get("distributed_type", "NO")).upper()

    @property
    def name(self) -> Literal["python", "torch", "accelerate"]:
        """Who starts the processes: nobody, torch's launcher, or `accelerate launch`."""
        if self.path is None:
            if self.processes == 1:
                return "python"
            return "accelerate" if _has_gpus(self.processes) else "torch"
        # On CPUs `accelerate launch` starts a single process unless mpirun is there; torch's launcher starts them all,
        # and Accelerate finds them (gloo) through the environment.
        on_cpus = self.kind == "MULTI_CPU" or (self.settings.get("use_cpu") is True and self.processes > 1)
        return "torch" if on_cpus and not self.settings.get("mpirun_config") else "accelerate"

    def command(self, worker: Sequence[str]) -> list[str]:
        """The argument list that runs this Python on `worker`, on this machine."""
        if self.name == "python":
            return [sys.executable, *worker]
        if self.name == "torch":
            where = ["--standalone"]
            if self.machines > 1:
                address, port = self.settings["main_process_ip"], self.settings["main_process_port"]
                where = ["--nnodes", str(self.machines), "--node-rank", str(self.machine)]
                where += ["--master-addr", str(address), "--master-port", str(port)]
            here = str(self.processes // self.machines)
            return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", here, *worker]
        command = [sys.executable, "-m", "accelerate.commands.launch"]
        if self.path is not None:
            command += ["--config_file", str(self.path)]
        command += ["--num_processes", str(self.processes), *(["--multi_gpu"] if self.path is None else [])]
        if self.deepspeed is not None:
            command += ["--deepspeed_config_file", str(self.deepspeed)]
        return [*command, *worker]

    def environment(self) -> dict[str, str]:
        """What `accelerate launch` would tell the processes where torch's launcher starts them."""
        if self.path is None or self.name != "torch":
            return {}
        precision = str(self.settings.get("mixed_precision") or "no").lower()
        return {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": precision}

    def check(self, config: FusionConfig) -> None:
        """Raise `GfvizError` for what would end the processes before they could say a word in the run."""
        check_frameworks(config, self)
        if self.path is not None:
            _check_with_accelerate(self.path)
        if self.name != "accelerate" or config.training.device == "cpu":
            return
        import torch

        here, have = self.processes // self.machines, torch.cuda.device_count()
        if 0 < have < here:
            raise GfvizError(f"{here} processes need a GPU each, and this machine has {have}: pass --processes {have}")

    def record(self, folder: Path) -> None:
        """Write it into a run's folder: the count, and copies of the files, which may be changed or gone later."""
        copies = {ACCELERATE: self.path, DEEPSPEED: self.deepspeed}
        contents = {name: None if path is None else path.read_bytes() for name, path in copies.items()}
        for name, content in contents.items():
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                atomic_write_bytes(folder / name, content)
        said = {"version": 1, "launcher": self.name, "processes": self.processes, "machines": self.machines}
        atomic_write_text(folder / RECORD, json.dumps(said) + "\n")


def find_launcher(processes: int | None = None, accelerate_config: str | Path | None = None) -> Launcher:
    """The launcher for so many processes (None: what the configuration says, else one).

    `accelerate_config` is an Accelerate configuration file, or a shipped one's name. Raises `GfvizError` for one that
    cannot be read, and for numbers of processes and machines that do not fit.
    """
    if processes is not None and processes < 1:
        raise GfvizError(f"processes = {processes}: at least one is needed")
    if accelerate_config is None:
        return Launcher(processes or 1)
    path = accelerate_path(accelerate_config)
    settings = read_mapping(path, "the Accelerate configuration")
    single = 1 if str(settings.get("distributed_type", "NO")).upper() == "NO" else None
    count = processes if processes is not None else settings.get("num_processes", single)
    if not _is_count(count, 1):
        raise GfvizError(f"{path}: num_processes is {str(count)[:40]}: pass --processes")
    machines, machine = settings.get("num_machines", 1), settings.get("machine_rank", 0)
    if not _is_count(machines, 1) or not _is_count(machine, 0) or machine >= machines:
        raise GfvizError(
            f"{path}: num_machines {str(machines)[:40]} and machine_rank {str(machine)[:40]}: machines are numbered "
            "from 0 up to one less than their number"
        )
    if machines > 1:
        _check_machines(path, settings, count, machines)
    return Launcher(count, path, settings, machines, machine, _deepspeed_file(settings))


def recorded_launcher(run: RunDirectory) -> Launcher:
    """How the run was launched: one process where nothing was noted. Raises `GfvizError` for a broken record."""
    path = run.path / RECORD
    if not path.is_file():
        return Launcher()
    count = read_json_file(path, "the record of how the run was launched").get("processes")
    if not _is_count(count, 1):
        raise GfvizError(f"{path}: processes is {str(count)[:40]}: remove the file and pass --processes")
    if count > _MANY_A_CORE * (os.cpu_count() or 1):
        raise GfvizError(f"{path}: {count} processes are more than this machine should start: pass --processes")
    copy, deepspeed = run.path / ACCELERATE, run.path / DEEPSPEED
    found = find_launcher(count, copy if copy.is_file() else None)
    elsewhere = [key for key in found.settings if key not in _LOCAL_KEYS and found.settings[key]]
    if elsewhere:
        # A run may come from anybody, and these start programs of another kind, or on other machines.
        raise GfvizError(f"{copy}: {elsewhere[0][:60]} is not taken from a run: pass --accelerate-config with your own")
    if found.deepspeed is None or not deepspeed.is_file():
        return found
    return Launcher(count, found.path, found.settings, found.machines, found.machine, deepspeed)


def check_frameworks(config: FusionConfig, launcher: Launcher | None = None) -> None:
    """Raise `GfvizError` where DeepSpeed is asked for and is missing, or its file cannot be read."""
    files = [] if config.training.deepspeed is None else [("training.deepspeed", Path(config.training.deepspeed))]
    if launcher is not None and launcher.deepspeed is not None:
        files.append((f"{launcher.path}: deepspeed_config_file", launcher.deepspeed))
    for key, path in files:
        read_json_file(path, key)
    if not files and (launcher is None or launcher.kind != "DEEPSPEED"):
        return
    if importlib.util.find_spec("deepspeed") is None:
        asked = "training.deepspeed" if launcher is None or launcher.path is None else launcher.path
        raise GfvizError(f"{asked}: DeepSpeed is not installed: pip install deepspeed, or shard with fsdp2")


def read_json_file(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a small JSON file. Raises `GfvizError` that begins with `what`."""
    try:
        found = json.loads(read_small_text(path))
    except GfvizError:
        raise
    except OSError as error:
        raise GfvizError(f"{what}: cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise GfvizError(f"{what}: {path} is not JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise GfvizError(f"{what}: {path} does not hold a mapping of keys")
    return found


def _check_machines(path: Path, settings: Mapping[str, Any], count: int, machines: int) -> None:
    missing = [key for key in ("main_process_ip", "main_process_port") if settings.get(key) is None]
    if missing:
        raise GfvizError(f"{path}: {machines} machines find each other by {' and '.join(missing)}: set it")
    if count % machines:
        raise GfvizError(f"{path}: {count} processes cannot be shared evenly by {machines} machines: change either")
    options = settings.get("deepspeed_config")
    through = options.get("deepspeed_multinode_launcher", "pdsh") if isinstance(options, dict) else "standard"
    if str(settings.get("distributed_type")).upper() == "DEEPSPEED" and through != "standard":
        raise GfvizError(
            f"{path}: deepspeed_multinode_launcher is {str(through)[:40]}, which starts the other machines itself: set "
            "standard, and have them join the run"
        )


def _check_with_accelerate(path: Path) -> None:
    from accelerate.commands.config.config_args import SageMakerConfig, load_config_from_file

    try:
        found = load_config_from_file(str(path))
    except Exception as error:
        raise GfvizError(f"{path}: Accelerate refuses it: {' '.join(str(error).split())[:200]}") from error
    if isinstance(found, SageMakerConfig):
        raise GfvizError(f"{path}: compute_environment: runs are started on machines of your own: set LOCAL_MACHINE")


def _deepspeed_file(settings: Mapping[str, Any]) -> Path | None:
    options = settings.get("deepspeed_config")
    named = options.get("deepspeed_config_file") if isinstance(options, dict) else None
    return Path(named) if isinstance(named, str) and named.lower() != "none" else None


def _is_count(value: Any, least: int) -> TypeGuard[int]:
    return type(value) is int and least <= value < _MOST


def _has_gpus(count: int) -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    import torch

    return torch.cuda.device_count() >= count
