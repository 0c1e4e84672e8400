"""Teachers' signals and evaluation's likelihood without [B, W, V]: against the whole logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gfviz.capture import forward, load_model
from gfviz.fusion.arguments import training_arguments
from gfviz.fusion.batch import pad_model
from gfviz.fusion.config import parse_config
from gfviz.fusion.evaluation import likelihood
from gfviz.fusion.prepare import prepare
from gfviz.fusion.rows import to_rows
from gfviz.fusion.teachers import OnlineTeacher, answer_signal, forward_arguments, window_logits
from gfviz.fusion.tokenise import ExampleEncoder
from gfviz.fusion.trainer import FusionTrainer
from gfviz.runs import RunDirectory
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums


def encoded(loaded) -> list:
    return [ExampleEncoder(loaded.tokenizer, False).encode(example) for example in sums(7)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 1.3])
@pytest.mark.parametrize("name", ["pivot", "other"])
def test_a_teachers_rows_are_those_of_its_logits(zoo: dict[str, Path], name: str, temperature: float) -> None:
    loaded = load_model(zoo[name], "cpu")
    teacher = OnlineTeacher("t", loaded.model, 12, temperature, "float32")
    inputs = pad_model(encoded(loaded), 0, "left")
    found = teacher.rows_of(inputs)
    with torch.no_grad():
        logits = window_logits(loaded.model, inputs, forward_arguments(loaded.model))
    wanted = to_rows(answer_signal(logits, inputs, 12, temperature), "float32")
    assert len(found) == len(wanted) == 7
    for mine, whole in zip(found, wanted):
        assert mine.log_probs.dtype == torch.float32
        torch.testing.assert_close(mine.log_probs, whole.log_probs, rtol=0, atol=2e-6)
        torch.testing.assert_close(mine.token_log_prob, whole.token_log_prob, rtol=0, atol=2e-6)
        # Ids where the next value is not as near as rounding.
        gaps = whole.log_probs.diff(dim=1).abs()
        clear = torch.nn.functional.pad(gaps, (1, 0), value=1) * torch.nn.functional.pad(gaps, (0, 1)) > 1e-10
        assert torch.equal(mine.ids[clear], whole.ids[clear])


def test_batches_together_give_the_rows_of_each_alone(zoo: dict[str, Path]) -> None:
    """As on a GPU, where examples run padded in one batch: to the rounding of the sums, and each row its own memory."""
    loaded = load_model(zoo["pivot"], "cpu")
    teacher = OnlineTeacher("t", loaded.model, 12, dtype="float32")
    inputs = pad_model(encoded(loaded), 0, "left")
    together, alone = teacher._run(inputs), teacher.rows_of(inputs)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=5e-6)
        torch.testing.assert_close(one.token_log_prob, other.token_log_prob, rtol=0, atol=5e-6)
        assert not one.log_probs.requires_grad
        assert not one.log_probs.is_inference()


def test_scores_of_tokens_are_those_of_the_logits(zoo: dict[str, Path]) -> None:
    loaded = load_model(zoo["pivot"], "cpu")
    encoder, examples = ExampleEncoder(loaded.tokenizer, False), sums(7)
    found = likelihood(loaded.model, encoder, examples, 3)
    log_prob, confidence, correct, owner = [], [], [], []
    for number, example in enumerate(examples):
        item = encoder.encode(example)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([item.ids])).logits[0, item.start - 1 : -1].double()
        answer = torch.tensor(item.ids[item.start :])
        log_probs = logits.log_softmax(-1)
        log_prob += log_probs.gather(1, answer.unsqueeze(1)).flatten().tolist()
        owner += [number] * len(answer)
        best = log_probs.max(-1)
        confidence += best.values.exp().tolist()
        correct += (best.indices == answer).tolist()
    # In the batches' order, longest first: example by example, each in its own.
    order = np.argsort(found.example, kind="stable")
    np.testing.assert_array_equal(found.example[order], owner)
    np.testing.assert_allclose(found.log_prob[order], log_prob, rtol=0, atol=3e-6)
    np.testing.assert_allclose(found.confidence[order], confidence, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(found.correct[order], correct)


class Largest(TorchDispatchMode):
    """The most numbers in one result as wide as the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.numbers = vocabulary, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for item in tree_leaves(made):
            # The head's own weights, seen from the side, are no logits.
            if isinstance(item, torch.Tensor) and item.shape[-1:] == (self.vocabulary,) and item.is_contiguous():
                self.numbers = max(self.numbers, item.numel())
        return made


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_probe_reads_the_student_without_its_logits(
    zoo: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Two rows of logits at a time, in mixed precision too; as many as the batch has where the model gives them."""
    monkeypatch.setattr(forward, "ROWS", 2)
    config = parse_config(settings(zoo, tmp_path, training={"precision": precision}))
    prepared = prepare(config, sums(7), [])
    trainer = FusionTrainer(
        prepared.trained, training_arguments(config, RunDirectory(tmp_path / "run")), prepared.objective,
        prepared.train, prepared.collator, prepared.k,
    )  # fmt: skip
    model = trainer.accelerator.prepare(trainer.model)
    trainer.model = model
    batch = prepared.collator(prepared.train)["student"]
    width = prepared.pivot.model.get_output_embeddings().weight.shape[0]
    with Largest(width) as ours, torch.no_grad():
        model.train()
        found = trainer.probe_signal(batch)
    assert model.training
    with Largest(width) as plain, torch.no_grad():
        prepared.pivot.model.eval()
        whole = answer_signal(window_logits(model, batch, forward_arguments(model)), batch, prepared.k)
    assert ours.numbers <= 2 * width
    assert plain.numbers >= batch["mask"].numel() * width
    near = 1e-5 if precision == "float32" else 2e-2
    torch.testing.assert_close(found.signal.log_probs().float(), whole.signal.log_probs().float(), rtol=0, atol=near)
    torch.testing.assert_close(found.token_log_prob.float(), whole.token_log_prob.float(), rtol=0, atol=near)
