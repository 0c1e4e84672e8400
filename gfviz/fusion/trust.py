"""Code that comes with a model runs where the person at the command says so, never because a file does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError

FLAG = "--trust-remote-code"
# How a command's word reaches the processes that it starts, through whatever launcher.
VARIABLE = "GFVIZ_TRUST_REMOTE_CODE"


def asks_for_code(config: Mapping[str, Any]) -> str | None:
    """The first key of a configuration (plain values, checked or not) that asks for a model's own code, or None.

    >>> asks_for_code({"pivot": {"model": "x"}, "teachers": [{"trust_remote_code": True}]})
    'teachers.0.trust_remote_code'
    """
    teachers = config.get("teachers")
    listed = [("pivot", config.get("pivot"))]
    listed += [(f"teachers.{at}", item) for at, item in enumerate(teachers if isinstance(teachers, list) else [])]
    for key, model in listed:
        if isinstance(model, Mapping) and model.get("trust_remote_code"):
            return f"{key}.trust_remote_code"
    return None


def refuse_pickles(checkpoint: Path, kind: str, trusted: bool = False) -> None:
    """Raise `GfvizError` before a checkpoint in shards is read, unless `trusted` or allowed at the command.

    `kind` is how its processes shared the model, in Accelerate's words (`DistributedType`).

    torch reads the index of FSDP's shards, and DeepSpeed all of its own, with pickle, which runs what a file says.
    """
    if kind in ("FSDP", "DEEPSPEED") and not trusted and not code_allowed():
        raise GfvizError(
            f"{checkpoint}: a checkpoint of {kind} is read with pickle, which can run code: add {FLAG} to the command "
            "if this run is your own"
        )


def code_allowed() -> bool:
    """Whether the command that began this process has said so."""
    return os.environ.get(VARIABLE) == "1"


def allow_code() -> None:
    """Say so for this process and those that it starts."""
    os.environ[VARIABLE] = "1"


def said(allowed: bool) -> dict[str, str]:
    """What an environment of a process needs for `code_allowed` to be so there."""
    return {VARIABLE: "1"} if allowed else {}


def refuse_code(config: Mapping[str, Any], source: str) -> None:
    """Raise `GfvizError` where what was read from `source` asks for code that nobody at the command allowed."""
    key = asks_for_code(config)
    if key is not None and not code_allowed():
        raise GfvizError(
            f"{source}: {key}: a file cannot have a model's code run: add {FLAG} to the command if you trust the "
            "model, or set it to false"
        )
