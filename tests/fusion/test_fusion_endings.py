"""The end of a run: the model is on the disk before its last evaluation, and the card knows what came before a stop."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gfviz.errors import GfvizError
from gfviz.fusion import evaluate, fuse, resume, session
from gfviz.fusion.config import parse_config
from gfviz.fusion.evaluation import exact_matches_at
from gfviz.fusion.session import create_run, execute
from gfviz.runs import list_runs
from gfviz.runs.identity import ProcessIdentity
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import power_cut, sums


def evaluated(zoo, tmp_path: Path, **changes) -> dict:
    config = settings(zoo, tmp_path, **changes)
    config["evaluation"] |= {"at_start": True, "at_end": True}
    return config


def rows_of(card: str) -> dict[str, list[str]]:
    lines = card.split("## Scores")[1].strip().splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("mode", ["unified", "pairwise"])
def test_a_failure_in_the_last_evaluation_loses_no_model(zoo, tmp_path: Path, monkeypatch, mode: str) -> None:
    config = settings(zoo, tmp_path, teachers=("other", "twin"), mode=mode, training={"steps": 2})
    config["evaluation"]["at_end"] = True
    whole = fuse({**config, "name": "whole"}, train=sums(8), evaluation=sums(4))

    def lost(*_arguments, **_named):
        raise RuntimeError("the device is gone")

    # The pairs of a pairwise fusion have evaluations of their own, which go well.
    where = "gfviz.fusion.session.evaluate_loaded" if mode == "unified" else "gfviz.fusion.pairwise.load_device"
    monkeypatch.setattr(where, lost)
    with pytest.raises(RuntimeError, match="the device is gone"):
        fuse({**config, "name": "broken"}, train=sums(8), evaluation=sums(4))
    monkeypatch.undo()
    (broken,) = (run for run in list_runs(tmp_path / "runs") if run.record().name == "broken")
    assert broken.status().state == "failed"
    assert "Not evaluated." in (broken.model_path / "README.md").read_text()
    weights, others = (load_file(run.model_path / "model.safetensors") for run in (whole, broken))
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert evaluate(broken, sums(4), max_new_tokens=4, device="cpu").count == 4
    assert rows_of((whole.model_path / "README.md").read_text())["all"][-1] == "4"


def test_adapters_are_scored_as_they_are_saved(zoo, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed (extra `lora`)")
    config = evaluated(zoo, tmp_path, training={"steps": 3})
    config["pivot"]["lora"] = {"rank": 4}
    run = fuse(config, train=sums(8), evaluation=sums(6))
    report = evaluate(run, sums(6), max_new_tokens=4, device="cpu")
    assert run.reader().latest()["eval/nll"][1] == pytest.approx(report.nll, rel=1e-6)


def test_a_resumed_runs_card_has_the_pivots_scores(zoo, tmp_path: Path) -> None:
    config = evaluated(zoo, tmp_path, training={"steps": 4, "checkpoint_every": 2})
    run = create_run(parse_config(config), sums(8), sums(6))

    with pytest.raises(RuntimeError, match="power"):
        execute(run, power_cut(3))
    resume(run)
    pivot = evaluate(zoo["pivot"], sums(6), max_new_tokens=4, device="cpu")
    found = rows_of((run.model_path / "README.md").read_text())
    assert found["all"][0] == f"{pivot.exact_match:.3f}"
    for family, score in pivot.families.items():
        assert found[family][0] == f"{score.exact_match:.3f}"
    assert exact_matches_at(run.reader(), 0) == pytest.approx(pivot.exact_matches)
    assert exact_matches_at(run.reader(), 3) == {}


def test_pairwise_with_one_teachers_answers_is_refused_before_anything_runs(zoo, tmp_path: Path) -> None:
    config = settings(zoo, tmp_path, teachers=("other", "twin"), mode="pairwise", data={"answers_from": "other"})
    with pytest.raises(GfvizError, match=r"data\.answers_from: in pairwise mode each pair knows its own teacher alone"):
        parse_config(config)
    config["data"] = {"answers_from": "pivot", "max_answer_tokens": 4}
    assert fuse(config | {"training": {**config["training"], "steps": 1}}, train=sums(4)).status().state == "finished"


@pytest.mark.parametrize("steps", [3, 4])  # an epoch has four
def test_a_run_that_died_at_its_last_checkpoint_trains_no_further(zoo, tmp_path: Path, steps: int) -> None:
    # With a linear schedule a step too many would not show: its learning rate is zero.
    training = {"steps": steps, "batch_size": 2, "checkpoint_every": steps, "scheduler": "constant"}
    config = settings(zoo, tmp_path, training=training)
    whole = fuse(config, train=sums(8))
    broken = create_run(parse_config(config), sums(8))

    with pytest.raises(RuntimeError, match="power"):
        execute(broken, power_cut(steps, "checkpoint"))
    resume(broken)
    for name in ("loss/total", "lr", "grad_norm"):
        first, second = (run.reader().series(name) for run in (whole, broken))
        assert second.steps.tolist() == first.steps.tolist()
        assert second.values.tolist() == first.values.tolist()
    weights = [load_file(run.model_path / "model.safetensors") for run in (whole, broken)]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


def test_a_run_names_its_process_before_that_writes_it(zoo, tmp_path: Path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(session, "execute", lambda run, *_, **__: seen.append(run.record()))
    fuse(settings(zoo, tmp_path), train=sums(4))
    assert [(record.state, record.process) for record in seen] == [("queued", ProcessIdentity.of())]
