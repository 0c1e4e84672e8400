"""Reading a YAML mapping from a file that a stranger may have written, and writing one that can be read again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gfviz.errors import GfvizError
from gfviz.files import is_text, read_small_text

# PyYAML reads some 100 KB a second, and takes quadratic time over brackets in brackets.
MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
# No float is larger than 2 to this, and Python writes no integer of more than 4300 digits out, in a message or a file.
MAX_BITS = 1024
_TOO_LONG = f"it takes more than the {MAX_BYTES >> 10} KB that are read"
_MERGE = "tag:yaml.org,2002:merge"


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

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if not isinstance(value, str) or is_text(value):
            return value
        try:
            # JSON, which is YAML too, writes a character beyond the first 65 536 as two escapes.
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise yaml.YAMLError(
                f"line {node.start_mark.line + 1} holds half a character (\\ud800 to \\udfff)"
            ) from error

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if value.bit_length() > MAX_BITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} holds a number of more than {MAX_BITS} bits")
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        # Before what `<<` brings in is merged: a key beside it replaces one of those, which is what `<<` is for.
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == _MERGE or not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(f"the key {str(key)[:60]!r} stands in lines {lines[key]} and {line}: keep one")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        # A list that two keys share would be written as an alias, which is not read.
        return True

    def represent_str(self, data: str) -> Any:
        # PyYAML breaks lines at these too, and joins them with spaces when it reads them.
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text: no tags that make objects, no aliases, no key twice.

    Raises `GfvizError` with the reason alone.

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
        text = read_small_text(path, MAX_BYTES)
    except OSError as error:
        raise GfvizError(f"cannot read {what} {str(path)[:300]}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise GfvizError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    try:
        loaded = parse_yaml(text)
    except GfvizError as error:
        raise GfvizError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise GfvizError(f"{path} does not hold a mapping of keys")
    return loaded


def dump_mapping(values: Mapping[str, Any]) -> str:
    """A mapping as YAML that `read_mapping` reads back. Raises `GfvizError` with the reason alone where it cannot."""
    try:
        _check_extent(values)
        text = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        size = len(text.encode("utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise GfvizError(" ".join(str(error).split())[:300]) from error
    if size > MAX_BYTES:
        raise GfvizError(_TOO_LONG)
    parse_yaml(text)
    return text


def _check_extent(values: Any) -> None:
    """Refuse by depth and by a size that no YAML of it goes below: writing it out may take seconds, or never end."""
    level, depth, size = [values], 0, 0
    while level:
        depth += 1
        below: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                below += one.values()
                size += sum(len(str(key)) + 2 for key in one)
            elif isinstance(one, list | tuple):
                below += one
                size += 2 * len(one)
            else:
                size += len(one) if isinstance(one, str) else 1
            if size > MAX_BYTES:
                raise GfvizError(_TOO_LONG)
        if depth > MAX_DEPTH:
            raise GfvizError(f"it is nested more than {MAX_DEPTH} deep")
        level = below
