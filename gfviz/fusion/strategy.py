"""How the devices of a fusion share its work, as its configuration and that of its launcher say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig
from gfviz.fusion.launcher import find_launcher, read_json_file

Strategy = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3"]


def strategy_of(
    config: FusionConfig, processes: int | None = None, accelerate_config: str | Path | None = None
) -> tuple[Strategy, int]:
    """How the devices share the work, and how many there are. Raises `GfvizError` for an unreadable file."""
    launcher, training = find_launcher(processes, accelerate_config), config.training
    count = launcher.processes
    if launcher.kind == "FSDP":
        return "fsdp", count
    if launcher.kind == "DEEPSPEED":
        options = launcher.settings.get("deepspeed_config")
        stage = options.get("zero_stage", 2) if isinstance(options, dict) else 2
        if launcher.deepspeed is not None:
            stage = _zero_stage(launcher.deepspeed, f"{launcher.path}: deepspeed_config_file")
        return _zero(stage, count, str(launcher.path)), count
    if training.deepspeed is not None:
        return _zero(_zero_stage(Path(training.deepspeed), "training.deepspeed"), count, training.deepspeed), count
    if training.fsdp:
        return "fsdp", count
    return ("ddp" if count > 1 else "single"), count


def _zero_stage(path: Path, key: str) -> Any:
    options = read_json_file(path, key).get("zero_optimization", {})
    return options.get("stage", 0) if isinstance(options, dict) else options


def _zero(stage: Any, count: int, source: str) -> Strategy:
    plain: Strategy = "ddp" if count > 1 else "single"
    stages: dict[str, Strategy] = {"0": plain, "1": "zero1", "2": "zero2", "3": "zero3"}
    if str(stage) not in stages:
        raise GfvizError(f"{source}: ZeRO's stage is {str(stage)[:40]}: set a number from 0 to 3")
    return stages[str(stage)]
