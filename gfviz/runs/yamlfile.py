"""Reading a YAML mapping from a file that a stranger may have written."""

from pathlib import Path
from typing import Any

import yaml

from gfviz.errors import GfvizError

MAX_BYTES = 4 * 1024 * 1024


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias may stand inside what it names, or a few lines of them for billions of items.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted: write the value out")
        return super().compose_node(parent, index)


def read_mapping(path: Path, what: str = "the configuration") -> dict[str, Any]:
    """The mapping in a YAML file: plain values only, no tags that make objects, no aliases, at most 4 MB.

    Raises `GfvizError` in one line for anything else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise GfvizError(f"{path} is larger than 4 MB: that is no configuration")
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except GfvizError:
        raise
    except OSError as error:
        raise GfvizError(f"cannot read {what} {path}: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise GfvizError(f"{path} is not readable YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(loaded, dict):
        raise GfvizError(f"{path} does not hold a mapping of keys")
    return loaded
