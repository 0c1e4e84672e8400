"""Any value in any key of a configuration: refused in one line, or good for all that a run makes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, parse_config
from tests.faults.parsers import use_config
from tests.faults.test_fault_parsers import QUICK, VALUES


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all the inputs of a property."""
    return tmp_path_factory.mktemp("shared")


def assert_one_line(attempt: Callable[[], object]) -> None:
    said = ""
    try:
        attempt()
    except GfvizError as error:
        said = str(error)
    assert "\n" not in said


def _keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the configuration, those of sections too; that of a teacher is told by the first one's number."""
    found = []
    for name, field in model.model_fields.items():
        key = (*prefix, field.alias or name)
        sections = [one for one in _classes(field.annotation) if issubclass(one, BaseModel)]
        found += [key, *(inner for one in sections for inner in _keys(one, (*key, "0") if name == "teachers" else key))]
    return found


def _classes(annotation: Any) -> list[type]:
    """The classes in an annotation."""
    inner = [one for part in get_args(annotation) for one in _classes(part)]
    return [annotation, *inner] if isinstance(annotation, type) and get_origin(annotation) is None else inner


KEYS = _keys(FusionConfig)
EXTREMES: list[Any] = [
    0, 1, -1, 1e23, 10**21, 2**31, 2**63, 1e300, 1e308, 1e-320, "", "x", "a\0b", "a\ud800", "x" * 5000, "nonsense",
    "full_shard", "../x", "-", True, None, [], [1], ["nonsense"], ["wandb"], ["a\0b"], {}, {"start": 1e300, "end": 0},
    {"version": [1]}, {"xla": True, "xla_fsdp_settings": 3},
]  # fmt: skip
BASE: dict[str, Any] = {
    "pivot": {"model": "x", "lora": {}}, "teachers": [{"name": "a", "model": "y"}, {"name": "b", "model": "y"}],
    "training": {"steps": 1},
}  # fmt: skip


def changed_at(data: dict, key: tuple[str, ...], value: object) -> dict:
    """A copy of `data` with `value` in the place of `key`."""
    made = json.loads(json.dumps(data))
    place = made
    for part in key[:-1]:
        if isinstance(place, list):
            place = place[0] if place else None
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
    if isinstance(place, dict):
        place[key[-1]] = value
    return made


@pytest.mark.parametrize(
    "more", [{}, pytest.param({"fsdp": "full_shard"}, marks=pytest.mark.long)], ids=["plain", "fsdp"]
)
def test_extreme_values_in_every_key_of_a_configuration(shared: Path, more: dict) -> None:
    """Refused in one line, or good for all that a run makes of it before it loads a model."""
    base = {**BASE, "training": {**BASE["training"], **more}}
    assert_one_line(lambda: use_config(parse_config(base), shared))
    for key in KEYS:
        for value in EXTREMES:
            data = changed_at(base, key, value)
            try:
                assert_one_line(lambda data=data: use_config(parse_config(data), shared))
            except Exception as error:
                raise AssertionError(f"{'.'.join(key)} = {str(value)[:80]!a}") from error


@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
@QUICK
def test_any_value_in_any_key_of_a_configuration(shared: Path, changes: list) -> None:
    data = BASE
    for key, value in changes:
        data = changed_at(data, key, value)
    assert_one_line(lambda: use_config(parse_config(data), shared))


def test_the_keys_that_are_disturbed_are_all_there_are() -> None:
    some = {("seed",), ("teachers", "0", "weight"), ("loss", "lambda", "start"), ("training", "fsdp_config")}
    assert some <= set(KEYS)
    assert len(KEYS) > 80


@given(st.text())
@QUICK
def test_any_override(text: str) -> None:
    assert_one_line(lambda: parse_config({"pivot": {"model": "x"}, "training": {"steps": 1}}, [text]))
    assert_one_line(lambda: parse_config({"pivot": {"model": "x"}, "training": {"steps": 1}}, [f"loss.k={text}"]))
