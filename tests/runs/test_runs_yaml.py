"""Configurations: what is read, what is refused, and that what is written can be read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory, list_runs
from gfviz.runs.yamlfile import MAX_BYTES, dump_mapping, parse_yaml, read_mapping


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("text, key, lines", [
    ("name: a\nx: 1\nname: b\n", "name", "1 and 3"),
    ("a:\n  b: 1\n  'b': 2\n", "b", "2 and 3"),
    ("a: {b: 1, b: 1}", "b", "1 and 1"),
    ("1: a\n0x1: b", "1", "1 and 2"),
    ('{"a": 1,\n "a": 2}', "a", "1 and 2"),
])  # fmt: skip
def test_a_key_that_stands_twice_is_named_with_file_and_lines(tmp_path: Path, text: str, key: str, lines: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(GfvizError) as caught:
        read_mapping(path)
    assert str(path) in str(caught.value)
    assert f"'{key}' stands in lines {lines}" in str(caught.value)


def test_keys_that_are_no_duplicates() -> None:
    assert parse_yaml("a: {x: 1}\nb: {x: 1}\n'1': s\n1: i") == {"a": {"x": 1}, "b": {"x": 1}, "1": "s", 1: "i"}
    assert parse_yaml("<<: {a: 1, b: 2}\na: 3") == {"a": 3, "b": 2}


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\udfff": 1', 'a: ["\\ud83d"]'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(GfvizError, match="line 1 holds half a character"):
        parse_yaml(text)


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "-0b" + "1" * 1025, "1" * 4000, "1:" * 400 + "1", "1" * 5000])
def test_a_number_that_nothing_can_write_out_is_refused(number: str) -> None:
    for text in (f"a: {number}", f"a: [{number}]", f"{number}: a"):
        with pytest.raises(GfvizError) as caught:
            parse_yaml(text)
        assert len(str(caught.value)) <= 300
    assert parse_yaml("a: 0x" + "f" * 256) == {"a": 2**1024 - 1}


def test_json_with_a_character_of_two_escapes_is_read() -> None:
    assert parse_yaml(json.dumps({"a": "😀"})) == {"a": "😀"}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read_back(values: dict) -> None:
    assert parse_yaml(dump_mapping(values)) == values


def test_lists_that_keys_share_are_written_out() -> None:
    shared = [1, 2]
    assert parse_yaml(dump_mapping({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("value, reason", [
    (deep(32), "deep"),
    (deep(5000), "deep"),
    ({"a": "x" * MAX_BYTES}, "256 KB"),
    ({str(key): key for key in range(60_000)}, "256 KB"),
    ({"a": "\ud800"}, "half a character"),
])  # fmt: skip
def test_what_could_not_be_read_again_makes_no_run(tmp_path: Path, value: dict, reason: str) -> None:
    with pytest.raises(GfvizError, match=reason):
        RunDirectory.create(tmp_path, value)
    assert list_runs(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_the_deepest_configuration_that_is_written_is_read(tmp_path: Path) -> None:
    assert RunDirectory.create(tmp_path, deep(31)).config == deep(31)


def test_lists_in_themselves_end() -> None:
    endless: list = []
    endless.append(endless)
    with pytest.raises(GfvizError, match="deep"):
        dump_mapping({"a": endless})
    wide: Any = 1
    for _ in range(28):
        wide = [wide, wide]
    with pytest.raises(GfvizError, match="256 KB"):
        dump_mapping({"a": wide})
