"""Schedules in a real run, precisions of the pivot, and data that changed while a run was stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gfviz.errors import GfvizError
from gfviz.fusion import fuse, resume
from gfviz.fusion.config import Schedule, parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.loading import load_pivot
from gfviz.fusion.measured import reason_not_to
from gfviz.fusion.session import create_run, execute
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import power_cut, sums


def test_a_schedule_by_hand() -> None:
    linear = Schedule(start=1, end=0, over=0.5)
    assert [linear.at(progress) for progress in (0, 0.125, 0.25, 0.5, 0.75, 1)] == [1, 0.75, 0.5, 0, 0, 0]
    cosine = Schedule(start=0, end=2, shape="cosine")
    np.testing.assert_allclose([cosine.at(p) for p in (0, 0.25, 1 / 3, 0.5, 1)], [0, 1 - 0.5**0.5, 0.5, 1, 2])


def test_scheduled_weights_are_those_of_the_step(zoo, tmp_path: Path) -> None:
    """The logged parts add up, at each step, with λ and β of the optimizer steps done so far; also after a stop."""
    loss = {"lambda": {"start": 0.9, "end": 0.1, "over": 0.5}, "beta": {"start": 0, "end": 8, "shape": "cosine"}}
    training = {"steps": 8, "log_every": 1, "accumulation": 2, "checkpoint_every": 3}
    config = settings(zoo, tmp_path, loss={**loss, "structure": "spectral"}, training=training)
    run = create_run(parse_config(config), sums())

    with pytest.raises(RuntimeError, match="power"):
        execute(run, power_cut(5))
    resume(run)
    names = ("loss/total", "loss/sft", "loss/other/token", "loss/other/structure")
    total, sft, token, structure = (run.reader().series(name).values for name in names)
    done = np.arange(8) / 8
    lam = np.maximum(0.1, 0.9 - 0.8 * done / 0.5)
    beta = 8 * (0.5 - 0.5 * np.cos(np.pi * done))
    np.testing.assert_allclose(total, (1 - lam) * sft + lam * (token + beta * structure), rtol=1e-5)


def half(zoo, folder: Path) -> Path:
    AutoModelForCausalLM.from_pretrained(zoo["pivot"], dtype=torch.float16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(zoo["pivot"]).save_pretrained(folder)
    return folder


def test_a_pivot_stored_in_half_precision_learns_in_single(zoo, tmp_path: Path) -> None:
    stored = half(zoo, tmp_path / "half")
    config = settings(zoo, tmp_path, pivot={"model": str(stored)}, training={"steps": 3, "log_every": 1})
    assert load_pivot(parse_config(config)).model.dtype == torch.float32
    run = fuse(config, train=sums(8))
    plain = fuse(settings(zoo, tmp_path, training={"steps": 3, "log_every": 1}), train=sums(8))
    values, expected = (one.reader().series("loss/total").values for one in (run, plain))
    # The weights' own rounding to 11 bits, and no more.
    np.testing.assert_allclose(values, expected, rtol=2 * torch.finfo(torch.float16).eps)
    assert {value.dtype for value in load_file(run.model_path / "model.safetensors").values()} == {torch.float32}


def test_half_precision_that_would_not_train_is_refused(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path)
    config["pivot"]["dtype"] = "float16"
    with pytest.raises(GfvizError, match=r"pivot\.dtype: weights in float16 cannot be trained"):
        parse_config(config)
    config = settings(zoo, tmp_path, training={"precision": "float16"})
    with pytest.raises(GfvizError, match=r"training\.precision: float16 is for GPUs") as caught:
        fuse(config, train=sums(4))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    assert reason_not_to(parse_config(config), sums(4), lambda: 0) == "a CPU does not compute in float16"


def test_adapters_learn_over_weights_in_half_precision(zoo, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed (extra `lora`)")
    config = settings(zoo, tmp_path, training={"steps": 12, "log_every": 1}, loss={"lambda": 0.0})
    config["pivot"] = {"model": str(half(zoo, tmp_path / "half")), "dtype": "float16", "lora": {"rank": 4}}
    values = fuse(config, train=sums(8)).reader().series("loss/total").values
    assert np.isfinite(values).all()
    assert values[-3:].mean() < values[:3].mean()


def test_a_run_whose_data_changed_does_not_go_on_and_loses_nothing(zoo, tmp_path: Path) -> None:
    files = {"train": tmp_path / "train.jsonl", "evaluation": tmp_path / "eval.jsonl"}
    write_examples(files["train"], sums())
    write_examples(files["evaluation"], sums(4))
    data = {name: [str(path)] for name, path in files.items()}
    run = create_run(parse_config(settings(zoo, tmp_path, data=data, training={"checkpoint_every": 2, "log_every": 1})))

    with pytest.raises(RuntimeError, match="power"):
        execute(run, power_cut(5))
    before = run.reader().series("loss/total").values.tolist()
    facts, checkpoints = run.record().facts, run.checkpoints()
    assert [step for step, _ in checkpoints] == [2, 4]
    for name in files:
        kept = files[name].read_bytes()
        # As many examples of as many words, one of them with another answer.
        files[name].write_bytes(kept.replace(b"-> 3", b"-> 4", 1))
        assert files[name].read_bytes() != kept
        with pytest.raises(GfvizError, match=f"run {run.id} cannot go on: its data changed since it began") as caught:
            resume(run)
        assert "\n" not in str(caught.value)
        assert facts["data"][name] in str(caught.value)
        assert run.status().state == "failed"
        assert run.record().facts == facts
        assert run.checkpoints() == checkpoints
        assert run.reader().series("loss/total").values.tolist() == before
        files[name].write_bytes(kept)
    resume(run)
    assert run.status().state == "finished"
    assert run.reader().series("loss/total").values.tolist()[:4] == before[:4]
    files["train"].unlink()
    with pytest.raises(GfvizError, match="has finished"):
        resume(run)
