"""Models that give NaN: the step is dropped whatever the losses, the probe says so, and nothing else is touched."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gfviz.errors import GfvizError
from gfviz.fusion import fuse
from gfviz.fusion.config import parse_config
from gfviz.fusion.losses import AnswerSignal
from gfviz.fusion.prepare import prepare
from gfviz.fusion.teachers import answer_signal, forward_arguments, signal_is_finite, stand_in, window_logits
from gfviz.fusion.trainer import FusionTrainer, StepMeter, spoiler
from gfviz.runs import RunDirectory
from gfviz.signals import TopKLogits
from tests.fusion.test_fusion_trainer import poison, settings
from tests.fusion.tiny import sums

STRUCTURES = ("sorted", "centred", "spectral", "entries", "anchored")


@pytest.fixture(scope="module")
def bad(zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poison(zoo["twin"], tmp_path_factory.mktemp("bad") / "bad")


def with_bad(zoo, tmp_path: Path, bad: Path, **changes) -> dict:
    """A sound teacher for all examples, and one that gives NaN for every second of them."""
    config = settings(zoo, tmp_path, **changes)
    config["teachers"].append({"name": "bad", "model": str(bad), "domains": ["sum"]})
    return config


@pytest.mark.parametrize(
    ("token", "structure"), [*(("uld", kind) for kind in STRUCTURES), ("alm", "none"), ("kl", "spectral")]
)
def test_a_step_with_a_teacher_of_nan_is_dropped_for_every_loss(
    zoo, tmp_path: Path, bad: Path, token: str, structure: str
) -> None:
    training = {"steps": 2, "batch_size": 4, "log_every": 1, "max_bad_steps": 2}
    loss = {"token": token, "structure": structure, "beta": 1.0, "balance": "gradient", "balance_every": 1}
    config = with_bad(zoo, tmp_path, bad, teachers=("pivot",), loss=loss, training=training)
    run = fuse(config, train=sums(8))
    reader = run.reader()
    assert reader.series("bad_steps").values.tolist() == [1, 2]
    assert np.isnan(reader.series("loss/total").values).all()
    role = "token" if structure == "none" else "structure"
    assert np.isnan(reader.series(f"loss/bad/{role}").values).all()
    # What the other teacher gave is told as it is.
    assert np.isfinite(reader.series(f"loss/pivot/{role}").values).all()
    texts = [event.text for event in reader.events() if event.kind == "warning"]
    assert [text for text in texts if "skipped" in text] == [
        f"step {step} skipped: teacher bad gave NaN or infinity ({step} so far)" for step in (1, 2)
    ]
    before, after = (load_file(folder / "model.safetensors") for folder in (zoo["pivot"], run.model_path))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_pivot_of_nan_is_dropped_too(zoo, tmp_path: Path) -> None:
    lost = poison(zoo["pivot"], tmp_path / "lost")
    config = settings(zoo, tmp_path, loss={"structure": "spectral"}, training={"max_bad_steps": 1})
    config["pivot"]["model"] = str(lost)
    with pytest.raises(GfvizError, match="the pivot's loss gave NaN or infinity"):
        fuse(config, train=sums(8))


def test_gradients_of_the_other_teacher_stay_its_own(zoo, tmp_path: Path, bad: Path) -> None:
    """The stand-in is finite and has gradients: whoever adds the losses up sees no NaN."""
    config = with_bad(zoo, tmp_path, bad, loss={"structure": "spectral", "beta": 1.0})
    prepared = prepare(parse_config(config), sums(4), [])
    batch, model = prepared.collator(prepared.train), prepared.pivot.model
    logits = window_logits(model, batch["student"], forward_arguments(model))
    signal = answer_signal(logits, batch["student"], prepared.k)
    objective = prepared.objective
    value = objective(signal, signal.token_log_prob, logits, batch, objective.counts([batch]), 0.0)
    assert {name: bool(sound) for name, sound in value.finite.items()} == {
        "teacher other": True, "teacher bad": False, "the pivot's loss": True,
    }  # fmt: skip
    value.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert torch.isnan(value.parts["loss/total"])


def test_who_was_not_finite() -> None:
    meter = StepMeter()
    sound, unsound = torch.tensor(True), torch.tensor(False)
    meter.add({}, {"teacher a": unsound, "teacher b": sound, "teacher c": unsound, "the pivot's loss": sound}, 1)
    assert meter.culprits() == "teacher a and teacher c"
    meter.add({}, {"teacher a": sound, "the pivot's loss": unsound}, 1)
    assert meter.culprits() == "teacher a and teacher c and the pivot's loss"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_a_sound_signal(value: float) -> None:
    mask = torch.tensor([[True, False]])
    log_probs = torch.tensor([[[0.5, 0.25], [0.5, 0.25]]]).log()

    def signal(place: int, token: bool) -> AnswerSignal:
        values, own = log_probs.clone(), log_probs[..., 0].clone()
        (own if token else values[..., 1])[0, place] = value
        return AnswerSignal(TopKLogits(values, torch.zeros(1, 2, 2).long(), torch.zeros(1, 2), mask, 4), own)

    for token in (False, True):
        counted, masked = signal(0, token), signal(1, token)
        # A probability of 0 is one, and what is masked says nothing.
        assert bool(signal_is_finite(counted)) is (value == -float("inf"))
        assert bool(signal_is_finite(masked))
        harmless = stand_in(counted, torch.tensor(False))
        assert torch.isfinite(harmless.token_log_prob).all()
        np.testing.assert_allclose(harmless.signal.probs()[0, 0], [0.5, 0.5], rtol=1e-6)
        same = stand_in(counted, torch.tensor(True))
        np.testing.assert_array_equal(same.signal.log_probs(), counted.signal.log_probs())


def test_the_probe_warns_of_a_teacher_and_goes_on(zoo, tmp_path: Path, bad: Path) -> None:
    training = {"steps": 2, "log_every": 1, "max_bad_steps": 2}
    run = fuse(with_bad(zoo, tmp_path, bad, graph={"every": 1, "examples": 4}, training=training), train=sums(8))
    assert run.status().state == "finished"
    reader = run.reader()
    assert np.isfinite(reader.series("graph/other/upper").values).all()
    assert reader.series("graph/other/upper").steps.tolist() == [0, 1, 2]
    assert not [name for name in reader.names() if name.startswith("graph/bad")]
    texts = [event.text for event in reader.events() if event.kind == "warning" and "graph distance" in event.text]
    # The teacher does not change: it is said once.
    assert len(texts) == 1
    assert texts[0].startswith("no graph distance of bad: ")
    assert not (run.path / "graphs" / "bad.safetensors").exists()


def test_the_probe_warns_of_a_pivot(zoo, tmp_path: Path) -> None:
    lost = poison(zoo["pivot"], tmp_path / "lost")
    config = settings(zoo, tmp_path, graph={"every": 1, "examples": 4}, training={"steps": 1, "max_bad_steps": 0})
    config["pivot"]["model"] = str(lost)
    with pytest.raises(GfvizError, match="the pivot's loss gave NaN"):
        fuse(config, train=sums(8))
    (run,) = (RunDirectory.open(path) for path in (tmp_path / "runs").iterdir())
    texts = [event.text for event in run.reader().events()]
    assert any(text.startswith("no graph distance of student: ") for text in texts)


def test_the_spoiler_spoils_every_gradient() -> None:
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    for sound in (True, False):
        loss = (weight * 5).sum() * spoiler({"teacher a": torch.tensor(True), "b": torch.tensor(sound)})
        (gradient,) = torch.autograd.grad(loss, weight)
        assert gradient.tolist() == [5.0, 5.0] if sound else torch.isnan(gradient).all()


def test_a_bad_step_that_an_engine_applied_ends_the_run() -> None:
    for applied in (True, False):
        engine = SimpleNamespace(was_step_applied=lambda applied=applied: applied)
        trainer = SimpleNamespace(_engine=engine, state=SimpleNamespace(global_step=4))
        if applied:
            with pytest.raises(GfvizError, match="step 5: DeepSpeed applied a step that was not finite"):
                FusionTrainer.drop_step(trainer)  # type: ignore[arg-type]
        else:
            FusionTrainer.drop_step(trainer)  # type: ignore[arg-type]
