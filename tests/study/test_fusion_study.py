"""The fusion study end to end on models of some thousand weights: its loop, its files, what it refuses."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from gfviz.errors import GfvizError
from gfviz.fusion.trainer import FusionTrainer
from gfviz.study.fusion import keep_results, results, shipped_fusion_results
from gfviz.study.fusion.commands import print_plan, study_command
from gfviz.study.fusion.data import answers_of, ensure_group
from gfviz.study.fusion.loop import batches, make_streams, training_losses
from gfviz.study.fusion.models import test_examples as held_out
from gfviz.study.fusion.pages import write_report
from gfviz.study.fusion.plan import METHODS, REGIMES, SIZES, Young
from gfviz.study.fusion.runner import COLUMNS, run_fusion_study

SMALL = {"width": 16, "layers": 1, "heads": 2, "inner": 32, "steps": 4, "copying": 2, "batch": 8, "examples": 12}


def tiny(name, **changes):
    """A size with models that know nothing, so that a run takes a tenth of a second."""
    size = SIZES[name]
    models = {
        part: replace(getattr(size, part), **SMALL, vocabulary=400 if part == "teacher" else 512)
        for part in ("pivot", "teacher", "twin")
    }
    numbers = {"labelled": 3, "few": 2, "unlabelled": 2, "tests": 3, "steps": 3, "batch": 4, "k": 8, "longest": 2}
    numbers |= {"attempts": (), "young": None}
    return replace(size, **{"context": 192, **models, **numbers, "seeds": (0, 1), "fresh": (50, 51), **changes})


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "s"
    names = ("gld-anchored", *METHODS["gld-anchored"].controls, "sft")
    size = tiny("smoke", finalists=1, tiers=((names, ("unsure-noisy",)),))
    return out, size, run_fusion_study(out, size, progress=False)


def test_a_study_runs_all_its_cells_and_the_confirmation(study):
    out, _, result = study
    assert result.done == result.planned == len(list((out / "runs").iterdir()))
    assert set(result.table.columns) == set(COLUMNS)
    assert set(result.table["stage"]) == {"study", "confirm"}
    assert result.table["exact_match"].between(0, 1).all()
    assert not result.evidence
    plan = (out / "plan.csv").read_text().splitlines()
    assert len(plan) == 1 + result.table[result.table["stage"] == "study"]["method"].nunique()
    page = write_report(result).read_text("utf-8")
    assert "no evidence about any method" in page
    assert "http://" not in page.split("</style>")[1].split("<script")[0]


def test_nothing_is_made_twice_and_a_kept_run_is_the_run(study, tmp_path):
    out, size, result = study
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json") if path.parent.name in ("runs", "models")}
    again = run_fusion_study(out, size, limit=0, progress=False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.table.equals(result.table)
    # A run that is lost is made again, to the last digit.
    lost = out / "runs" / "study-unsure-noisy-gld-anchored-001.json"
    row = json.loads(lost.read_text())
    lost.unlink()
    told = []
    run_fusion_study(out, size, progress=lambda done, total, text: told.append((done, total, text)))
    made = json.loads(lost.read_text())
    assert {k: v for k, v in made.items() if "seconds" not in k} == {k: v for k, v in row.items() if "seconds" not in k}
    assert [text for _, _, text in told if text] == ["study-unsure-noisy-gld-anchored-001"]


def test_a_limit_stops_early_and_leaves_the_rest(study, tmp_path):
    out, size, _ = study
    part = tmp_path / "part"
    part.mkdir()
    (part / "models").symlink_to(out / "models")
    assert run_fusion_study(part, size, limit=1, progress=False).done == 1
    assert run_fusion_study(part, size, limit=1, progress=False).done == 2


def test_another_configuration_is_refused(study):
    out, size, _ = study
    with pytest.raises(GfvizError, match="another configuration"):
        run_fusion_study(out, replace(size, rate=0.5), progress=False)
    with pytest.raises(GfvizError, match="workers"):
        run_fusion_study(out, size, workers=0, progress=False)
    (out / "runs" / "study-unsure-noisy-sft-000.json").write_text("[]")
    with pytest.raises(GfvizError, match="not a run of this study"):
        run_fusion_study(out, size, progress=False)
    (out / "runs" / "study-unsure-noisy-sft-000.json").unlink()


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_the_other_sizes_run_on_tiny_models(name, tmp_path):
    families = SIZES[name].families[:2]
    regime = "few-clean" if name == "cpu" else "sure-noisy"
    size = tiny(name, families=families, seeds=(0,), fresh=(50,), finalists=0, tiers=(
        (("answers", "kl-same", "alm+gld-anchored", "gld-entries shuffled"), (regime,)),
    ))  # fmt: skip
    result = run_fusion_study(tmp_path, size, device="cpu", progress=False)
    assert result.done == result.planned == 5


def test_data_of_a_group(study):
    out, size, _ = study
    noisy = ensure_group(out, size, REGIMES["sure-noisy"], "study", 7, "cpu", [])
    clean = ensure_group(out, size, REGIMES["sure-clean"], "study", 7, "cpu", [])
    assert [e.prompt for e in noisy.labelled] == [e.prompt for e in clean.labelled]
    wrong = sum(a.answer != b.answer for a, b in zip(noisy.labelled, clean.labelled))
    assert wrong == round(0.4 * len(clean.labelled))
    few = ensure_group(out, size, REGIMES["few-clean"], "study", 7, "cpu", [])
    assert len(few.labelled) == 2 * len(size.families)
    assert len(few.distilled) == 4 * len(size.families)
    assert {e.prompt for e in few.labelled} <= {e.prompt for e in few.distilled}
    hedged = ensure_group(out, size, REGIMES["unsure-drawn"], "study", 7, "cpu", [])
    assert all(e.prompt.split(":")[0] in ("Surely", "Likely", "Maybe") for e in hedged.labelled)
    assert not {e.prompt for e in hedged.labelled} & {e.prompt for e in held_out(size, True)}


class _Closing(TrainerCallback):
    def __init__(self):
        self.trainer = None

    def on_step_end(self, args, state, control, **_):
        self.trainer.meter.close_step(state.global_step)


@pytest.mark.parametrize("method", ["gld-anchored", "uld+gld-spectral", "gld-sorted one-hot", "gld-anchored-t2"])
def test_the_lean_loop_has_the_losses_of_the_trainer(study, tmp_path, method):
    out, size, _ = study
    regime = REGIMES["unsure-noisy"]
    data = ensure_group(out, size, regime, "study", 0, "cpu", [METHODS[method]])
    pivot = out / "models" / "pivot-study"
    (stream,) = make_streams(size, regime, METHODS[method], 0, pivot, data)
    # All examples in every batch: the order, in which the two differ, then only moves the rounding.
    whole = replace(stream, size=len(stream.prepared.train))
    losses = list(training_losses(stream.prepared.trained, [whole], 5, 1e-2, 0, "cpu"))
    (other,) = make_streams(size, regime, METHODS[method], 0, pivot, data)
    prepared, closing = other.prepared, _Closing()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=5, per_device_train_batch_size=len(prepared.train), learning_rate=1e-2,
        lr_scheduler_type="cosine", weight_decay=0.0, max_grad_norm=1.0, use_cpu=True, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = FusionTrainer(
        prepared.trained, arguments, prepared.objective, prepared.train, prepared.collator, prepared.k,
        METHODS[method].temperature, callbacks=[closing],
    )  # fmt: skip
    closing.trainer = trainer
    trainer.train()
    expected = [values["loss/total"] for _, values in trainer.meter.read(lambda values: values)]
    assert losses[0] != pytest.approx(losses[-1], rel=1e-2)
    assert losses == pytest.approx(expected, rel=2e-5)


def test_attempts_run_after_the_list_and_have_a_pivot_of_their_own(tmp_path):
    names = ("gld-anchored", "sft", "gld-anchored-t2 shuffled", "gld-anchored-renewed", "gld-anchored-renewed one-hot")
    young = Young(replace(SIZES["cpu"].pivot, **{**SMALL, "steps": 1}), 3, 1e-3)
    size = tiny(
        "cpu", families=SIZES["cpu"].families[:2], seeds=(0,), fresh=(50,), again=(50,), finalists=0,
        tiers=((("sft",), ("sure-clean",)),), attempts=((names, ("young-clean",)),), young=young,
    )  # fmt: skip
    told = []
    result = run_fusion_study(tmp_path, size, progress=lambda done, total, text: told.append(text))
    made = [text for text in told if text.startswith("study-")]
    assert [text.startswith("study-sure-clean") for text in made] == [True] * 2 + [False] * 6
    assert result.done == result.planned == 8
    assert {f"young-{stage}" for stage in ("study", "confirm")} < {
        path.name for path in (tmp_path / "models").iterdir()
    }
    data = tmp_path / "data" / "study-young-clean-000"
    assert sorted(path.name for path in data.iterdir() if path.is_dir()) == ["teacher", "teacher-t2"]
    # Two labelled and three unlabelled prompts of either family.
    assert len((data / "distilled.jsonl").read_text().splitlines()) == 10
    assert len(result.models) == 6


def test_renewed_texts_are_what_the_pivot_writes_when_their_turn_comes(study):
    out, size, _ = study
    regime, method = REGIMES["few-clean"], replace(METHODS["gld-anchored-renewed"], renew=2)
    data = ensure_group(out, size, regime, "study", 3, "cpu", [method])
    _, stream = make_streams(size, regime, method, 3, out / "models" / "pivot-study", data)
    model, loaded = stream.prepared.trained, stream.prepared.pivot
    before = [batch["student"]["input_ids"] for batch, _ in zip(batches(replace(stream, renew=0), 3, model), range(4))]
    found = batches(stream, 3, model)
    own = [next(found)["student"]["input_ids"] for _ in range(2)]
    # The pivot is the one that wrote the first texts, in the same order.
    assert all(torch.equal(a, b) for a, b in zip(own, before))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    batch = next(found)
    assert model.training
    written = {example.prompt: example.answer for example in answers_of(loaded, data.distilled, size)}
    assert any(written[example.prompt] != example.answer for example in data.distilled)
    read = loaded.tokenizer.batch_decode(batch["student"]["input_ids"], skip_special_tokens=True)
    known = {f"{prompt}{answer}" for prompt, answer in written.items()}
    assert all(any(text.strip() == whole.strip() for whole in known) for text in read)
    with pytest.raises(GfvizError, match="the regime sure-clean has none"):
        make_streams(size, REGIMES["sure-clean"], method, 3, out / "models" / "pivot-study", data)


def test_what_ships_reads_back(study, tmp_path, monkeypatch):
    out, size, _ = study
    result = run_fusion_study(out, size, progress=False)
    keep_results(result, tmp_path)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    runs, found, facts = shipped_fusion_results("smoke")
    assert len(runs) == len(result.table) == facts["done"]
    assert found["sft"].tolist() == pytest.approx(result.verdicts["sft"].tolist(), rel=1e-4, nan_ok=True)
    assert facts["evidence"] is False
    with pytest.raises(GfvizError, match="no fusion study of the size 'gpu' ships"):
        shipped_fusion_results("gpu")


def test_the_command_prints_json_and_nothing_else(study, capsys, monkeypatch):
    out, size, _ = study
    monkeypatch.setitem(SIZES, "smoke", size)
    study_command("smoke", out, 1, None, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert {"pivot", "sft", "gld-anchored", "gld-anchored one-hot", "gld-anchored shuffled"} <= set(printed)
    assert all(list(row) == ["mean", "ci95", "seeds", "beats_sft", "beats_controls"] for row in printed.values())
    study_command("smoke", out, 1, None, as_json=False)
    assert "unsure-noisy" in capsys.readouterr().out


def test_the_plan_is_a_table(capsys):
    print_plan("cpu")
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["regime", "labels", "method"]
    assert {len(line) for line in lines} == {len(lines[0])}
