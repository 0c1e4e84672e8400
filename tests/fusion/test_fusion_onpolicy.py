"""Texts in the pivot's own words: each step reads what its own weights write, a resumed run writes them again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gfviz.capture.models import load_model
from gfviz.errors import GfvizError
from gfviz.fusion import fuse, resume
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import Example, in_own_words, read_examples
from gfviz.fusion.evaluation import generate
from gfviz.fusion.onpolicy import OwnAnswers
from gfviz.fusion.prepare import prepare
from gfviz.fusion.session import create_run
from gfviz.fusion.tokenise import ExampleEncoder
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

OWN = {"answers_from": "pivot", "on_policy": True, "max_answer_tokens": 5}


def own_settings(zoo: dict[str, Path], tmp_path: Path, data: dict | None = None, **changes) -> dict:
    changes = {"training": {"steps": 5, "learning_rate": 3e-2, "checkpoint_every": 2}, **changes}
    return settings(zoo, tmp_path, loss={"lambda": 1.0}, data={**OWN, **(data or {})}, **changes)


def test_each_step_reads_what_its_own_weights_write(zoo, tmp_path: Path, monkeypatch) -> None:
    seen = []
    batch_of = OwnAnswers.batch

    def watched(self, model, places):
        found = batch_of(self, model, places)
        seen.append(({name: value.clone() for name, value in model.state_dict().items()}, places, found))
        return found

    monkeypatch.setattr(OwnAnswers, "batch", watched)
    run = fuse(own_settings(zoo, tmp_path, teachers=("other", "twin")), train=sums(8))
    assert len(seen) == 5
    loaded = load_model(zoo["pivot"], "cpu")
    encoder = ExampleEncoder(loaded.tokenizer)
    first = read_examples([run.path / "data" / "answers.jsonl"])
    changed = 0
    for weights, places, batch in seen:
        loaded.model.load_state_dict(weights)
        texts = [first[place] for place in places]
        written = generate(loaded.model, encoder, [text.prompt for text in texts], 8, 5)
        for row, (text, answer) in enumerate(zip(texts, written)):
            wanted = Example(text.prompt, answer if answer.strip() else text.answer)
            changed += wanted.answer.strip() != text.answer.strip()
            seen_ids = batch["student"]["input_ids"][row][batch["student"]["attention_mask"][row].bool()]
            assert seen_ids.tolist() == encoder.encode(in_own_words(text, wanted.answer)).ids
        # Every teacher reads the same texts.
        for name in ("other", "twin"):
            assert len(batch["teachers"][name]["rows"]) == len(places)
    assert changed > 3


def test_a_resumed_run_writes_the_same_texts(zoo, tmp_path: Path) -> None:
    whole = fuse(own_settings(zoo, tmp_path), train=sums(8))
    broken = create_run(parse_config(own_settings(zoo, tmp_path)), sums(8))

    def fail(event) -> None:
        if event.kind == "step" and event.step >= 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        resume(broken, fail)
    assert [step for step, _ in broken.checkpoints()] == [2]
    resume(broken)
    for name in ("loss/total", "loss/other/token", "loss/other/structure"):
        first, second = (run.reader().series(name) for run in (whole, broken))
        np.testing.assert_array_equal(first.steps, second.steps)
        np.testing.assert_array_equal(first.values, second.values)
    weights = [load_file(run.model_path / "model.safetensors") for run in (whole, broken)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_what_cannot_be_written_anew_stays(zoo, tmp_path: Path, monkeypatch) -> None:
    config = parse_config(own_settings(zoo, tmp_path, data={"max_length": 40}))
    prepared = prepare(config, sums(4), [])
    answers = {0: " 12", 1: "", 2: " " + "9" * 60, 3: "7"}
    places = {text.prompt: place for place, text in enumerate(prepared.texts)}

    def made(model, encoder, prompts, batch_size, longest):
        return [answers[places[prompt]] for prompt in prompts]

    monkeypatch.setattr("gfviz.fusion.evaluation.generate", made)
    found = OwnAnswers(prepared).rewrite(prepared.trained, [0, 1, 2, 3])
    assert found[1] is prepared.train[1]
    assert found[2] is prepared.train[2]
    for place in (0, 3):
        text = in_own_words(prepared.texts[place], answers[place])
        assert found[place].encoded.ids == prepared.encoder.encode(text).ids


def test_shuffled_reads_another_example_of_the_same_texts(zoo, tmp_path: Path) -> None:
    mapping = own_settings(zoo, tmp_path)
    mapping["teachers"][0]["control"] = "shuffled"
    prepared = prepare(parse_config(mapping), sums(6), [])
    texts = [in_own_words(text, str(place)) for place, text in enumerate(prepared.texts)]
    other = ExampleEncoder(load_model(zoo["other"], "cpu").tokenizer)
    of_text = {tuple(other.encode(text).ids): place for place, text in enumerate(texts)}
    sources = [of_text[tuple(example.teachers["other"].encoded.ids)] for example in prepared.encode(texts)]
    assert sorted(sources) == list(range(6))
    assert all(source != place for place, source in enumerate(sources))
    # Alone there is no other example to take.
    assert prepared.encode(texts[:1]) == [None]


def test_own_answers_once(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path, data={"answers_from": "pivot", "max_answer_tokens": 5}, training={"steps": 1})
    run = fuse(config, train=sums(6))
    loaded = load_model(zoo["pivot"], "cpu")
    written = generate(loaded.model, ExampleEncoder(loaded.tokenizer), [text.prompt for text in sums(6)], 8, 5)
    kept = read_examples([run.path / "data" / "answers.jsonl"])
    assert [text.answer.strip() for text in kept] == [answer.strip() for answer in written if answer.strip()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"answers_from": "a", "on_policy": True}, "teachers": [{"name": "a", "model": "t"}]},
            "data.on_policy: the answers are the pivot's",
        ),
        ({"data": {"on_policy": True}}, "set data.answers_from to pivot"),
        ({"data": OWN, "teachers": [{"name": "a", "model": "t", "cache": "c"}]}, "teachers.a.cache: it knows no text"),
        (
            {
                "data": OWN,
                "teachers": [{"name": "a", "model": "t", "control": "shuffled"}],
                "training": {"steps": 1, "batch_size": 1},
            },
            "training.batch_size",
        ),
        ({"data": {"answers_from": "pivot"}, "teachers": [{"name": "pivot", "model": "t"}]}, "named 'pivot' too"),
    ],
)
def test_what_does_not_go_together_is_named(changes: dict, message: str) -> None:
    with pytest.raises(GfvizError, match=message):
        parse_config({"pivot": {"model": "p"}, "training": {"steps": 1}, **changes})
