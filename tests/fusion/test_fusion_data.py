"""Examples that no tokenizer could take are refused where they stand."""

import json
from pathlib import Path

import pytest

from gfviz.errors import GfvizError
from gfviz.fusion.data import as_examples, read_examples

WHOLE = {"prompt": "a", "answer": "b", "target": "c", "family": "d"}


@pytest.mark.parametrize("key", WHOLE)
def test_half_a_character_is_refused_with_file_and_line(tmp_path: Path, key: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(f"{json.dumps(WHOLE)}\n\n{json.dumps({**WHOLE, key: 'x' + chr(0xD800)})}\n")
    with pytest.raises(GfvizError) as caught:
        read_examples([path])
    assert str(caught.value).startswith(f"{path}:3: `{key}`: holds \\ud800, half of a surrogate pair")
    assert str(caught.value).isprintable()
    with pytest.raises(GfvizError, match="example 2"):
        as_examples([WHOLE, {**WHOLE, key: "\udfff"}])


def test_a_character_of_two_escapes_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00", "answer": "b"}\n')
    assert read_examples([path])[0].prompt == "😀"
