"""Two processes, planted alignment, teacher's answers, pairwise merge, balancing, adapters."""

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from gfviz.errors import GfvizError
from gfviz.fusion import evaluate, fuse
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import Example, read_examples, write_examples
from gfviz.fusion.launch import worker_command
from gfviz.fusion.losses import AnswerSignal, ForwardKL, UniversalLogitDistillation
from gfviz.fusion.objective import Objective, TeacherTerm
from gfviz.fusion.prepare import prepare
from gfviz.fusion.session import create_run
from gfviz.runs import RunDirectory, list_runs
from gfviz.signals import TopKLogits
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import KINDS, save_tiny, sums

TRICKY = [
    Example("Solve it.", " naïve café 😀👍🏽 done"),
    Example("Solve it.", " e\u0301 next\r\n\tline"),
    Example("Solve it.", " 3+5=8, 8*2=16 -> 16"),
    Example("Solve it.", " the lazy dog, again </s> over"),
]


def planted(tokenizer, ids: torch.Tensor, width: int) -> torch.Tensor:
    """Logits that encode how many bytes of text stand before the predicted token, which only decoding can tell."""
    logits = torch.zeros(*ids.shape, width)
    for row, sequence in enumerate(ids.tolist()):
        for index in range(len(sequence)):
            text = tokenizer.decode(
                sequence[: index + 1], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            # The bytes without white space, which WordPiece cannot write, decide how peaked the position is.
            logits[row, index, 0] = 0.37 * (len("".join(text.split()).encode()) % 17)
    return logits


@pytest.mark.parametrize("second", KINDS)
def test_a_teacher_that_is_right_only_where_positions_are_aligned_right(tmp_path: Path, zoo, second: str) -> None:
    """Student and teacher both write the place into their logits: the loss is zero iff every pair is at one place."""
    save_tiny(tmp_path / "t", "llama", second)
    config = parse_config(
        settings(zoo, tmp_path, teachers=()) | {"teachers": [{"name": "t", "model": str(tmp_path / "t")}]}
    )
    # Trainers of tokenizers number pieces as they please: the teacher's own, as it was saved, is the one to ask.
    other = AutoTokenizer.from_pretrained(tmp_path / "t")
    examples = [example for example in TRICKY if writable(other, example)]
    prepared = prepare(config, examples, [])
    batch = prepared.collator(prepared.train)
    part = batch["teachers"]["t"]
    found = []
    for tokens, inputs in ((prepared.pivot.tokenizer, batch["student"]), (other, part["model"])):
        # Left padding: the padding is written out before the text, so it is cut off.
        window = inputs["mask"].shape[1]
        logits = torch.zeros(*inputs["mask"].shape, 40)
        for row in range(len(inputs["input_ids"])):
            keep = inputs["attention_mask"][row].bool()
            whole = planted(tokens, inputs["input_ids"][row][keep][None], 40)[0]
            size = min(window, len(whole))
            logits[row, window - size :] = whole[len(whole) - size :]
        signal = TopKLogits.from_logits(logits, 8, inputs["mask"])
        found.append(AnswerSignal(signal, torch.zeros(inputs["mask"].shape)))
    from gfviz.fusion.objective import make_pair

    pair = make_pair(found[0], found[1], part)
    assert int(part["aligned"].sum()) >= 2 * len(examples)
    assert UniversalLogitDistillation()(pair).total.item() == pytest.approx(0, abs=1e-5)
    moved = dict(part)
    moved["teacher_at"] = torch.where(part["aligned"], (part["teacher_at"] - 1).clamp_min(0), part["teacher_at"])
    off_by_one = make_pair(found[0], found[1], moved)
    assert UniversalLogitDistillation()(off_by_one).total.item() > 0.1


def writable(tokenizer, example: Example) -> bool:
    text = tokenizer.decode(tokenizer(example.prompt + example.answer, add_special_tokens=False).input_ids)
    return "<unk>" not in text and "".join(text.split()) == "".join((example.prompt + example.answer).split())


@pytest.mark.long
def test_two_processes_train_as_one(zoo, tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", sums())
    common = {"data": {"train": [str(tmp_path / "train.jsonl")]}, "loss": {"structure": "spectral", "beta": 1.0}}
    runs = []
    for processes, size in ((1, 8), (2, 4)):
        training = {"steps": 3, "batch_size": size, "log_every": 1, "checkpoint_every": 2}
        run = create_run(parse_config(settings(zoo, tmp_path, training=training, **common)))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            worker_command(run, processes), capture_output=True, text=True, timeout=140, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert run.status().state == "finished"
        runs.append(run)
    assert runs[1].record().facts["world_size"] == 2
    for name in ("loss/total", "loss/sft", "loss/other/token", "loss/other/structure", "grad_norm"):
        first, second = (run.reader().series(name).values for run in runs)
        np.testing.assert_allclose(first, second, rtol=2e-4, err_msg=name)
    weights = [load_file(run.model_path / "model.safetensors") for run in runs]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=2e-4)


def test_resume_with_another_number_of_processes_is_refused(zoo, tmp_path: Path) -> None:
    import json

    run = fuse(settings(zoo, tmp_path, training={"steps": 2, "checkpoint_every": 1}), train=sums())
    writer = run.writer()
    writer.close()
    state = run.checkpoints()[-1][1] / "fusion.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "world_size": 4}) + "\n")
    from gfviz.fusion import resume

    with pytest.raises(GfvizError, match="written by 4 processes"):
        resume(run)


def test_training_on_the_teachers_answers(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path, data={"answers_from": "other", "max_answer_tokens": 6})
    run = fuse(config, train=sums(8))
    written = read_examples([run.path / "data" / "answers.jsonl"])
    from gfviz.capture.models import load_model
    from gfviz.fusion.evaluation import generate
    from gfviz.fusion.tokenise import ExampleEncoder

    loaded = load_model(zoo["other"], "cpu")
    expected = generate(loaded.model, ExampleEncoder(loaded.tokenizer), [e.prompt for e in sums(8)], 8, 6)
    # The teacher's tokenizer drops the space before a text's first token; the data's own answers begin with it.
    assert all(example.answer.startswith(" ") for example in sums(8))
    assert [e.answer for e in written] == [f" {answer.strip()}" for answer in expected if answer.strip()]


def test_pairwise_fusion_merges_the_weights(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path, teachers=("other", "twin"), mode="pairwise", training={"steps": 2})
    config["teachers"][0]["weight"] = 3
    config["evaluation"]["at_end"] = True
    run = fuse(config, train=sums(), evaluation=sums(4))
    assert run.status().state == "finished"
    pairs = {
        pair.record().name: load_file(pair.model_path / "model.safetensors") for pair in list_runs(run.path / "pairs")
    }
    merged = load_file(run.model_path / "model.safetensors")
    for name, value in merged.items():
        expected = 0.75 * pairs["other"][name].double() + 0.25 * pairs["twin"][name].double()
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-7)
    assert "eval/exact_match" in run.reader().latest()
    assert evaluate(run, sums(4), max_new_tokens=4).count == 4


def test_balancing_makes_the_gradients_equally_long(zoo, tmp_path: Path) -> None:
    config = parse_config(settings(zoo, tmp_path, loss={"structure": "spectral", "beta": 7.0, "balance": "gradient"}))
    prepared = prepare(config, sums(8), [])
    batch = prepared.collator(prepared.train)
    from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits

    objective, model = prepared.objective, prepared.pivot.model
    logits = window_logits(model, batch["student"], forward_arguments(model))
    signal = answer_signal(logits, batch["student"], prepared.k)
    counts = objective.counts([batch])
    objective(signal, signal.token_log_prob, logits, batch, counts, 0.0, measure=True)
    objective.rebalance(0.0)
    term = objective.terms[0]
    lengths = []
    for token, structure, beta in ((term.token, None, 0.0), (None, term.structure, 7.0 * objective.scales["other"])):
        alone = Objective(1.0, [TeacherTerm(term.source, 1.0, token, structure, beta)])
        value = alone(signal, signal.token_log_prob, logits, batch, counts, 0.0).total
        lengths.append(torch.autograd.grad(value, logits, retain_graph=True)[0].norm().item())
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)
    fuse(config.to_mapping(), train=sums())


def test_kl_with_an_equal_tokenizer(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path, teachers=("twin",), loss={"token": "kl", "structure": "none", "lambda": 1.0})
    config["training"]["steps"] = 30
    run = fuse(config, train=sums())
    values = run.reader().series("loss/twin/token").values
    assert values[-1] < 0.8 * values[0]
    assert ForwardKL().unit == "pairs"


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed (extra `lora`)")
def test_adapters_train_and_are_merged(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path)
    config["pivot"]["lora"] = {"rank": 4}
    run = fuse(config, train=sums())
    before, after = load_file(zoo["pivot"] / "model.safetensors"), load_file(run.model_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before if "proj" in name)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert RunDirectory.open(run.path).status().state == "finished"


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed (extra `lora`)")
def test_adapters_begin_as_the_seed_says(zoo, tmp_path: Path) -> None:
    """Whatever was drawn before; and nothing that is drawn after them has moved."""
    found = []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        config = settings(zoo, tmp_path, seed=seed)
        config["pivot"]["lora"] = {"rank": 4}
        torch.manual_seed(before)
        expected = torch.get_rng_state()
        trained = prepare(parse_config(config), sums(4), []).trained
        assert torch.equal(torch.get_rng_state(), expected)
        found.append({name: value for name, value in trained.named_parameters() if "lora_A" in name})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert not any(torch.equal(value, found[2][name]) for name, value in found[0].items())
