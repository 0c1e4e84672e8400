"""Reading a YAML mapping from a file that a stranger may have written."""

from pathlib import Path
from typing import Any

import yaml

from gfviz.errors import GfvizError

# PyYAML reads some 100 KB a second, and takes quadratic time over brackets in brackets.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias may stand inside what it names, or a few lines of them for billions of items.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted: write the value out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text: no tags that make objects, no aliases. Raises `GfvizError` with the reason alone.

    >>> parse_yaml("a: [1, x]")
    {'a': [1, 'x']}
    >>> parse_yaml("a: *b")
    Traceback (most recent call last):
    ...
    gfviz.errors.GfvizError: aliases (*name) are not accepted: write the value out
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, yaml.YAMLError) as error:
        # PyYAML's resolvers trip over such texts as `2001-99-99`, `0x` or `_.`, each in its own way.
        raise GfvizError(" ".join(str(error).split())[:300] or type(error).__name__) from error
    except RecursionError as error:
        raise GfvizError("it is nested too deeply") from error


def read_mapping(path: Path, what: str = "the configuration") -> dict[str, Any]:
    """The mapping in a YAML file: plain values only, no tags that make objects, no aliases, at most 256 KB.

    Raises `GfvizError` in one line for anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise GfvizError(f"{path} is larger than 256 KB: that is no configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GfvizError(f"cannot read {what} {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise GfvizError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        loaded = parse_yaml(text)
    except GfvizError as error:
        raise GfvizError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise GfvizError(f"{path} does not hold a mapping of keys")
    return loaded
