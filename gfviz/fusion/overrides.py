"""Overrides of a configuration: `key.sub=value` on a command line, before anything is checked."""

import re
from collections.abc import Mapping
from typing import Any

from gfviz.errors import GfvizError
from gfviz.runs.yamlfile import parse_yaml


def plain_copy(value: Any) -> Any:
    """The same mappings and lists, new ones all the way down: overrides must not reach into the caller's own."""
    if isinstance(value, Mapping):
        return {key: plain_copy(item) for key, item in value.items()}
    return [plain_copy(item) for item in value] if isinstance(value, list | tuple) else value


def apply_override(target: dict[str, Any], text: str) -> None:
    """Set what `text` says, `key.sub=value`, in `target` (list items by number). Raises `GfvizError` naming the fault.

    >>> values = {"teachers": [{"weight": 1}]}
    >>> apply_override(values, "teachers.0.weight=2")
    >>> values
    {'teachers': [{'weight': 2}]}
    """
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise GfvizError(f"override {text[:200]!r}: write key=value, with dots between nested keys")
    try:
        value = parse_yaml(raw) if raw.strip() else None
    except GfvizError as error:
        raise GfvizError(f"override {text[:200]!r}: the value is not readable YAML: {error}") from error
    place: Any = target
    for part in parts[:-1]:
        if isinstance(place, dict):
            if not isinstance(place.get(part), dict | list):
                place[part] = {}
            place = place[part]
        else:
            place = place[_index(place, part, text)]
    if isinstance(place, list):
        place[_index(place, parts[-1], text)] = value
    elif isinstance(place, dict):
        place[parts[-1]] = value
    else:
        raise GfvizError(f"override {text[:200]!r}: {'.'.join(parts[:-1])[:80]!r} holds a single value, not keys")


def _index(items: Any, part: str, text: str) -> int:
    if not isinstance(items, list) or not re.fullmatch(r"[0-9]{1,9}", part) or int(part) >= len(items):
        raise GfvizError(f"override {text[:200]!r}: {part[:80]!r} is no item of that list")
    return int(part)
