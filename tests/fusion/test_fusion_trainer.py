"""The trainer: the same gradient however the batch is cut or padded, exact resume, faults that lose nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from gfviz.errors import GfvizError
from gfviz.fusion import fuse, resume
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import Example
from gfviz.fusion.launch import launch_detached, launch_resume, stop
from gfviz.fusion.prepare import prepare
from gfviz.fusion.session import create_run, execute, training_arguments
from gfviz.fusion.trainer import FusionTrainer
from gfviz.runs import RunDirectory
from tests.fusion.tiny import sums


def settings(zoo: dict[str, Path], tmp_path: Path, teachers=("other",), **changes) -> dict:
    training = {"steps": 6, "batch_size": 4, "learning_rate": 3e-3, "log_every": 2, "device": "cpu"}
    return {
        "runs": str(tmp_path / "runs"),
        "pivot": {"model": str(zoo["pivot"])},
        "teachers": [{"name": name, "model": str(zoo[name])} for name in teachers],
        "training": {**training, **changes.pop("training", {})},
        "loss": {"k": 16, **changes.pop("loss", {})},
        "evaluation": {"at_start": False, "at_end": False, "max_new_tokens": 4},
        **changes,
    }


class Catch(TrainerCallback):
    """Keeps the gradients of the first step."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, **others) -> None:
        found = {name: p.grad.clone() for name, p in others["model"].named_parameters() if p.grad is not None}
        self.gradients = self.gradients or found


def gradients(zoo, tmp_path, model_path=None, **changes) -> dict[str, torch.Tensor]:
    config = parse_config(settings(zoo, tmp_path, **changes))
    if model_path is not None:
        config.pivot.model = str(model_path)
    prepared = prepare(config, sums(), [])
    run = create_run(config)
    catch = Catch()
    arguments = training_arguments(config, run)
    arguments.max_steps, arguments.max_grad_norm = 1, 0.0
    FusionTrainer(
        prepared.pivot.model, arguments, prepared.objective, prepared.train, prepared.collator, prepared.k,
        config.loss.temperature, callbacks=[catch],
    ).train()  # fmt: skip
    return catch.gradients


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    scale = max(float(value.norm()) for value in first.values())
    for name, value in first.items():
        other = second[name]
        if other.shape != value.shape:
            other = other[: len(value)]
        assert float((value - other).norm()) <= 2e-5 * scale, name


LOSSES = [
    {"token": "uld", "structure": "sorted"},
    {"token": "alm", "structure": "spectral", "beta": 1.0},
    {"token": "none", "structure": "anchored", "beta": 1.0},
    {"token": "uld", "structure": "entries", "beta": 1.0, "temperature": 2.0},
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss['token']}-{loss['structure']}")
def test_gradient_does_not_depend_on_how_the_batch_is_cut_or_padded(zoo, tmp_path: Path, loss: dict) -> None:
    whole = gradients(zoo, tmp_path, loss=loss, training={"batch_size": 8})
    assert max(float(value.abs().max()) for value in whole.values()) > 0
    for training in (
        {"batch_size": 2, "accumulation": 4},
        {"batch_size": 8, "padding_side": "right"},
        {"batch_size": 4, "accumulation": 2, "pad_multiple": 64},
    ):
        assert_same(whole, gradients(zoo, tmp_path, loss=loss, training=training))


def test_gradient_does_not_depend_on_vocabulary_padding(zoo, tmp_path: Path) -> None:
    """Rows of the output that no token uses, far below the others, change nothing."""
    wide = tmp_path / "wide"
    wide.mkdir()
    for path in zoo["pivot"].iterdir():
        (wide / path.name).write_bytes(path.read_bytes())
    config = json.loads((wide / "config.json").read_text())
    extra = 37
    weights = load_file(wide / "model.safetensors")
    head, inner = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    config["vocab_size"] += extra
    weights["lm_head.weight"] = torch.cat([head, torch.zeros(extra, head.shape[1])])
    weights["model.embed_tokens.weight"] = torch.cat([inner, torch.zeros(extra, inner.shape[1])])
    (wide / "config.json").write_text(json.dumps(config))
    save_file(weights, wide / "model.safetensors", {"format": "pt"})
    narrow = parse_config(settings(zoo, tmp_path))
    found = []
    for where in (zoo["pivot"], wide):
        narrow.pivot.model = str(where)
        prepared = prepare(narrow, sums(8), [])
        batch = prepared.collator(prepared.train)
        from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits

        model = prepared.pivot.model
        logits = window_logits(model, batch["student"], forward_arguments(model))
        logits = torch.cat([logits[..., : head.shape[0]], torch.full_like(logits[..., head.shape[0] :], -1e4)], -1)
        signal = answer_signal(logits, batch["student"], prepared.k)
        counts = prepared.objective.counts([batch])
        value = prepared.objective(signal, signal.token_log_prob, logits, batch, counts, 0.0)
        value.total.backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert_same(found[0], found[1])


def curve(run: RunDirectory) -> dict[str, np.ndarray]:
    reader = run.reader()
    names = [name for name in reader.names() if name.startswith(("loss/", "grad_norm", "lr", "graph/"))]
    return {name: reader.series(name).values for name in names}


def test_resume_is_exact_to_the_last_digit(zoo, tmp_path: Path) -> None:
    changes = {
        "training": {"steps": 8, "checkpoint_every": 3, "accumulation": 2}, "graph": {"every": 4, "examples": 6},
        "pivot": {"model": str(save_dropout(tmp_path))},
    }  # fmt: skip
    whole = fuse(settings(zoo, tmp_path, **changes), train=sums())
    broken = create_run(parse_config(settings(zoo, tmp_path, **changes)), sums())
    code = (
        "import os, signal, sys, torch; torch.set_num_threads(1)\n"
        "from gfviz.fusion.session import execute\nfrom gfviz.runs import RunDirectory\n"
        "def die(event):\n"
        "    if event.kind == 'step' and event.step >= 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "execute(RunDirectory.open(sys.argv[1]), die)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(broken.path)], capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert broken.status().state == "killed"
    assert [step for step, _ in broken.checkpoints()] == [3]
    (broken.checkpoints_path / "checkpoint-4").mkdir()
    resume(broken)
    assert broken.status().state == "finished"
    first, second = curve(whole), curve(broken)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
    weights = [load_file(run.model_path / "model.safetensors") for run in (whole, broken)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    with pytest.raises(GfvizError, match="has finished"):
        resume(broken)


def save_dropout(tmp_path: Path) -> Path:
    from tests.fusion.tiny import save_tiny

    return save_tiny(tmp_path / "dropout", "gpt2", "byte-level", dropout=0.2)


def test_repeats_to_the_last_digit(zoo, tmp_path: Path) -> None:
    runs = [fuse(settings(zoo, tmp_path), train=sums()) for _ in range(2)]
    first, second = map(curve, runs)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_detached_stop_and_resume(zoo, tmp_path: Path, ends_workers) -> None:
    from gfviz.fusion.data import write_examples

    write_examples(tmp_path / "train.jsonl", sums())
    config = settings(zoo, tmp_path, training={"steps": 100000}, data={"train": [str(tmp_path / "train.jsonl")]})
    run = launch_detached(config)
    wait(lambda: run.status().step >= 4)
    with pytest.raises(GfvizError, match=r"being written|stop it first"):
        execute(run)
    with pytest.raises(GfvizError, match="stop it first"):
        launch_resume(run)
    assert stop(run, timeout=60)
    status = run.status()
    assert status.state == "stopped", (status, run.log_path.read_text())
    reached = run.checkpoints()[-1][0]
    assert status.step == reached
    launch_resume(run)
    wait(lambda: run.status().step > reached)
    os.kill(run.status().pid, signal.SIGKILL)
    wait(lambda: run.status().state == "killed")
    with pytest.raises(GfvizError, match="not running"):
        stop(run)


def wait(condition, seconds: float = 90) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def poison(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(target / "model.safetensors")
    name = next(key for key in weights if "ln_f.weight" in key or key.endswith("model.norm.weight"))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def test_a_teacher_that_returns_nan_is_skipped_counted_and_at_last_stops_the_run(zoo, tmp_path: Path) -> None:
    bad = poison(zoo["other"], tmp_path / "bad")
    config = settings(zoo, tmp_path, teachers=(), training={"steps": 3, "max_bad_steps": 3})
    config["teachers"] = [{"name": "bad", "model": str(bad)}]
    run = fuse(config, train=sums())
    assert run.reader().series("bad_steps").values.tolist() == [1, 2, 3]
    before, after = load_file(zoo["pivot"] / "model.safetensors"), load_file(run.model_path / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    config["training"] |= {"steps": 10, "max_bad_steps": 2}
    with pytest.raises(GfvizError, match="teacher bad gave NaN"):
        fuse(config, train=sums())
    failed = max(RunDirectory.open(path) for path in (tmp_path / "runs").iterdir() if path.name != run.id)
    assert failed.status().state == "failed"
    assert "max_bad_steps" in failed.status().reason


def test_one_hot_control_holds_nothing_of_the_teacher(zoo, tmp_path: Path) -> None:
    """Two different teachers with one tokenizer give the same gradient under the control, and not without it."""
    config = {"teachers": ("twin",)}
    other = {"teachers": ("pivot",)}
    for control, same in (("one-hot", True), ("none", False)):
        found = []
        for choice in (config, other):
            changes = settings(zoo, tmp_path, **choice)
            changes["teachers"][0]["control"] = control
            found.append(_controlled(zoo, tmp_path, changes))
        difference = max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0])
        assert (difference == 0) is same


def _controlled(zoo, tmp_path, mapping: dict) -> dict[str, torch.Tensor]:
    config = parse_config(mapping)
    config.teachers[0].name = "t"
    prepared = prepare(config, sums(8), [])
    batch = prepared.collator(prepared.train)
    from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits

    model = prepared.pivot.model
    logits = window_logits(model, batch["student"], forward_arguments(model))
    signal = answer_signal(logits, batch["student"], prepared.k)
    counts = prepared.objective.counts([batch])
    prepared.objective(signal, signal.token_log_prob, logits, batch, counts, 0.0).total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_shuffled_control_uses_each_other_example_once(zoo, tmp_path: Path) -> None:
    mapping = settings(zoo, tmp_path)
    mapping["teachers"][0]["control"] = "shuffled"
    prepared = prepare(parse_config(mapping), sums(), [])
    sources = [example.teachers["other"].index for example in prepared.train]
    assert sorted(sources) == list(range(24))
    assert all(source != row for row, source in enumerate(sources))


def test_routing_by_domain(zoo, tmp_path: Path) -> None:
    mapping = settings(zoo, tmp_path, teachers=("other", "twin"))
    mapping["teachers"][0] |= {"domains": ["sum"], "weight": 3}
    mapping["evaluation"]["at_end"] = True
    prepared = prepare(parse_config(mapping), sums(), [])
    assert prepared.coverage["other"].examples == 12
    assert prepared.coverage["twin"].examples == 24
    assert [term.weight for term in prepared.objective.terms] == [0.75, 0.25]
    run = fuse(mapping, train=sums(), evaluation=sums(4))
    assert np.isfinite(run.reader().series("loss/other/token").values).all()
    assert run.reader().latest()["eval/exact_match"][0] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"max_length": 10}}, "data.max_length: 24 of 24"),
        ({"data": {"max_length": 4096}}, "data.max_length: 4096 exceeds"),
        ({"loss": {"k": 100000}}, "loss.k"),
        ({"loss": {"token": "kl"}}, "kl' needs the pivot's own tokenizer"),
        ({"data": {"chat_template": True}}, "data.chat_template"),
        ({"pivot": {"model": "/no/such/model"}}, "pivot.model"),
    ],
)
def test_bad_input_names_its_key_and_leaves_nothing(zoo, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(GfvizError, match=message.replace("(", r"\(")) as caught:
        fuse(settings(zoo, tmp_path, **change), train=sums())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_empty_answers_and_unknown_domains(zoo, tmp_path: Path) -> None:
    with pytest.raises(GfvizError, match="example 2: the answer is empty"):
        fuse(settings(zoo, tmp_path), train=[Example("a", "b"), {"prompt": "x", "answer": " \n"}])
    mapping = settings(zoo, tmp_path)
    mapping["teachers"][0]["domains"] = ["chess"]
    with pytest.raises(GfvizError, match=r"domains: no example of \['chess'\]"):
        fuse(mapping, train=sums())


def test_full_disk_at_a_checkpoint_keeps_the_last_one(zoo, tmp_path: Path, monkeypatch) -> None:
    config = parse_config(settings(zoo, tmp_path, training={"checkpoint_every": 2}))
    run = create_run(config, sums())
    plain = torch.save

    def full(content, where, *others, **named):
        if "checkpoint-4" in str(where):
            raise OSError(28, "No space left on device")
        plain(content, where, *others, **named)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(GfvizError, match="No space left"):
        execute(run)
    assert [step for step, _ in run.checkpoints()] == [2]
    assert run.status().state == "failed"
    assert "No space left" in run.status().reason
    monkeypatch.undo()
    resume(run)
    assert run.status().state == "finished"
