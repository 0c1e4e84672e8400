"""What would end a launch at once: models and files that are not there or cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig
from gfviz.fusion.data import read_examples
from gfviz.paths import check_model_folder
from gfvizui import cached


def path_fault(name: str, value: Any) -> str | None:
    """What is wrong with the path or paths in the field `name`, in a line; None for other fields and good paths."""
    try:
        if name == "model" and value:
            check_model_folder(value)
        elif name == "train" and not value:
            return "this is needed"
        elif name in ("train", "evaluation"):
            examples_in(value)
        elif name == "deepspeed" and value and not Path(value).is_file():
            return f"{value}: no such file"
        elif name == "cache" and value and not Path(value).is_dir():
            return f"{value}: no such folder"
    except GfvizError as error:
        return str(error)
    return None


def examples_in(paths: Sequence[str]) -> int:
    """Number of examples in data files, each read again only when it has changed. Raises `GfvizError`."""
    total = 0
    for path in paths:
        try:
            facts = Path(path).stat()
        except (OSError, ValueError) as error:
            raise GfvizError(
                f"cannot read the data file {path}: {getattr(error, 'strerror', None) or error}"
            ) from error
        found = cached.derived("examples", (path, facts.st_mtime_ns, facts.st_size), partial(_counted, path))
        if isinstance(found, str):
            raise GfvizError(found)
        total += found
    return total


def _counted(path: str) -> int | str:
    # A fault is kept like a count: what is cached may not raise.
    try:
        return len(read_examples([path]))
    except GfvizError as error:
        return str(error)


def faults(config: FusionConfig) -> list[str]:
    """All faults of a configuration's paths, each with its key."""
    fields: list[tuple[str, str, Any]] = [("pivot.model", "model", config.pivot.model)]
    for teacher in config.teachers:
        # What was cached needs no model.
        name, value = ("model", teacher.model) if teacher.cache is None else ("cache", teacher.cache)
        fields.append((f"teachers.{teacher.name}.{name}", name, value))
    fields += [(f"data.{name}", name, getattr(config.data, name)) for name in ("train", "evaluation")]
    fields.append(("training.deepspeed", "deepspeed", config.training.deepspeed))
    return [f"{key}: {wrong}" for key, name, value in fields if (wrong := path_fault(name, value))]
