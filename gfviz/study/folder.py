"""The folder of a study: one configuration a folder, so that a study that was stopped goes on as it began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text, read_small_text


def claim_folder(out: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that holds another study; write the configuration where there is none."""
    path = out / "study.json"
    if not path.exists():
        if out.exists() and not out.is_dir():
            raise GfvizError(f"{out} is a file: give a folder for the study")
        atomic_write_text(path, json.dumps(config, indent=2) + "\n")
        return
    try:
        found = json.loads(read_small_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise GfvizError(f"{path}: cannot be read ({error}): choose another folder") from error
    kept = found if isinstance(found, dict) else {}
    changed = [key for key in config if kept.get(key) != config[key]]
    if changed:
        key = changed[0]
        raise GfvizError(
            f"{out} holds a study of another configuration ({key}: {kept.get(key)!r}, now {config[key]!r}): "
            "give another folder, or delete this one to start again"
        )
