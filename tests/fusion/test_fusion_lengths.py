"""Texts that a model's context cannot hold are named before anything runs; up to its last place they are taken."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gfviz.capture.models import load_tokenizer
from gfviz.cli import main
from gfviz.errors import GfvizError
from gfviz.fusion import evaluate, fuse
from gfviz.fusion.cache import build_cache, read_meta
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import Example, write_examples
from gfviz.fusion.prepare import prepare
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import save_tiny, sums

CONTEXT = 128


def prompt_of(model: Path, tokens: int) -> str:
    """A prompt of that many tokens, counted by the tokenizer itself."""
    tokenizer = load_tokenizer(model)
    text = "the quick brown fox jumps over the lazy dog, " * 60
    cut = text[: tokenizer(text, return_offsets_mapping=True).offset_mapping[tokens - 1][1]]
    assert len(tokenizer(cut).input_ids) == tokens
    return cut


@pytest.fixture
def learned(zoo, tmp_path: Path) -> Path:
    """A pivot with learned positions (GPT-2's), which has none beyond its context."""
    return save_tiny(tmp_path / "learned", "gpt2", "byte-level")


def config_of(zoo, tmp_path: Path, learned: Path, **changes) -> dict:
    config = settings(zoo, tmp_path, training={"steps": 1}, **changes)
    config["pivot"]["model"] = str(learned)
    config["evaluation"]["at_end"] = True
    return config


def test_evaluation_examples_that_do_not_fit_are_refused_before_training(zoo, tmp_path: Path, learned: Path) -> None:
    config = config_of(zoo, tmp_path, learned)
    config["evaluation"]["max_new_tokens"] = 20
    long = Example(prompt_of(learned, CONTEXT - 19), " -> 2", "2", "sum")
    with pytest.raises(GfvizError, match=r"^evaluation\.max_new_tokens: 1 of 5 prompts .* 109 tokens.* at most 19$"):
        fuse(config, train=sums(4), evaluation=[*sums(4), long])
    answer = Example("Solve it.", " " + prompt_of(learned, CONTEXT), "2")
    with pytest.raises(GfvizError, match=r"^data\.evaluation: 1 of 5 examples are longer than .* 128 tokens"):
        fuse(config, train=sums(4), evaluation=[*sums(4), answer])
    assert not (tmp_path / "runs").exists()
    # Of those that are not evaluated nothing is asked.
    config["evaluation"]["limit"] = 4
    prepare(parse_config(config), sums(4), [*sums(4), long])
    config["evaluation"] = {"at_start": False, "at_end": False}
    prepare(parse_config(config), sums(4), [long])


def test_the_last_place_of_the_context_is_used(zoo, tmp_path: Path, learned: Path) -> None:
    """Up to the border the model itself answers; one token more is refused, and would be no crash of the model."""
    example = Example(prompt_of(learned, CONTEXT - 10), " -> 2", "2")
    assert evaluate(learned, [example], max_new_tokens=10, device="cpu").count == 1
    with pytest.raises(GfvizError, match=r"learned: 1 of 1 prompts .* leave no room for 11 new tokens"):
        evaluate(learned, [example], max_new_tokens=11, device="cpu")
    full = replace(example, prompt=prompt_of(learned, CONTEXT))
    with pytest.raises(GfvizError, match="learned: 1 of 1 examples are longer"):
        evaluate(learned, [full], max_new_tokens=1, device="cpu")


@pytest.mark.parametrize("data", [{"answers_from": "other"}, {"answers_from": "pivot", "on_policy": True}])
def test_answers_need_room_too(zoo, tmp_path: Path, data: dict) -> None:
    config = settings(zoo, tmp_path, data={**data, "max_answer_tokens": 127})
    with pytest.raises(GfvizError, match=r"^data\.max_answer_tokens: .* leave no room for 127 new tokens"):
        fuse(config, train=sums(4))
    assert not (tmp_path / "runs").exists()


def test_a_cache_takes_no_text_beyond_the_context(zoo, tmp_path: Path) -> None:
    long = Example("Solve it.", " " + prompt_of(zoo["twin"], CONTEXT), "2")
    with pytest.raises(GfvizError, match="twin: 1 of 25 examples are longer than the model's context of 128"):
        build_cache(zoo["twin"], [*sums(), long], tmp_path / "c", k=8)
    assert not (tmp_path / "c").exists()


def test_a_cached_teacher_has_its_models_context(zoo, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    build_cache(zoo["other"], sums(), cache, k=16)
    assert read_meta(cache).context == CONTEXT
    wide = tmp_path / "wide"
    shutil.copytree(zoo["pivot"], wide)
    described = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(described | {"max_position_embeddings": 4096}))
    config = settings({**zoo, "pivot": wide}, tmp_path, data={"max_length": 200})
    refused = r"data\.max_length: 200 exceeds the shortest context of the models \(128\)"
    for where in (None, str(cache)):
        config["teachers"][0]["cache"] = where
        with pytest.raises(GfvizError, match=refused):
            prepare(parse_config(config), sums(), [])
    # A cache from before it was noted is read as before, and goes on.
    told = json.loads((cache / "cache.json").read_text())
    del told["context"]
    (cache / "cache.json").write_text(json.dumps(told))
    assert len(prepare(parse_config(config), sums(), []).train) == 24
    assert build_cache(zoo["other"], sums(), cache, k=16).reused_shards == 1
    for wrong in ("long", 0, True, 1.5):
        (cache / "cache.json").write_text(json.dumps(told | {"context": wrong}))
        with pytest.raises(GfvizError, match="cannot be right"):
            read_meta(cache)


@pytest.mark.parametrize("command", ["cache", "eval"])
def test_commands_say_it_in_one_line(zoo, tmp_path: Path, learned: Path, capsys, monkeypatch, command: str) -> None:
    write_examples(tmp_path / "long.jsonl", [Example("Solve it.", " " + prompt_of(learned, CONTEXT), "2")])
    out = ["--out", str(tmp_path / "c")] if command == "cache" else []
    data = ["--data", str(tmp_path / "long.jsonl"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["gfviz", command, str(learned), *data, *out])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    # Before it a progress bar may have been drawn.
    said = capsys.readouterr().err.strip().splitlines()
    assert "1 of 1 examples are longer than the model's context of 128 tokens" in said[-1]
