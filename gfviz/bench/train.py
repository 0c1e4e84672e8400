"""What fusion adds to a training step: the distillation terms alone, and whole steps of `FusionTrainer`."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gfviz.bench.measure import Row, clock_for, copy_bandwidth, make_row, product_rate, ratio, times, wait
from gfviz.bench.model import products_per_token, random_text, word_tokenizer
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import Example
from gfviz.fusion.objective import make_pair, make_structure_loss, make_token_loss
from gfviz.fusion.prepare import Prepared, prepare
from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits

# Token loss, structure loss. KL asks for one vocabulary, which the other rows do not have.
TERMS = (("uld", "none"), ("alm", "none"), ("kl", "none"), ("uld", "sorted"), ("uld", "spectral"), ("uld", "entries"))
ANCHORED = ("none", "anchored")
STEPS = (("uld", "sorted"), ("alm", "anchored"))


@dataclass(frozen=True)
class _Scale:
    """Of pivot and teacher: vocabulary, width, layers; the batch: examples, words of prompt and of answer; rounds."""

    pivot: tuple[int, int, int]
    teacher: tuple[int, int, int]
    examples: int
    prompt: int
    answer: int
    rounds: int


# A large vocabulary for so small a pivot: the terms cost by position and vocabulary, the step by parameter.
_SCALES = {
    "full": _Scale((32_000, 320, 6), (24_000, 448, 8), 4, 32, 96, 5),
    "tiny": _Scale((128, 16, 1), (96, 16, 1), 2, 4, 4, 1),
}


def run(device: torch.device, size: str) -> list[Row]:
    """Seconds of a step with each distillation term, random weights, an online teacher with another vocabulary.

    First the terms themselves, forward and backward down to the logits, as a share of the step: their logits are noise,
    so that hardly two positions share a token, which is the dearest case for `anchored`. Then whole steps of the
    trainer (reading the batch, the teacher, backward, clipping, AdamW) over those of plain SFT plus the bare forward
    passes of the teacher.
    """
    scale = _SCALES[size]
    with tempfile.TemporaryDirectory(prefix="gfviz-bench-") as scratch:
        folder = Path(scratch)
        variants = {"SFT": _prepared(folder, scale, None, device)}
        variants |= {" + ".join(pair): _prepared(folder, scale, pair, device) for pair in STEPS}
        seconds = _steps(folder, variants, scale.rounds, device)
        seconds["the teacher's forward passes"] = _teacher_alone(variants[" + ".join(STEPS[0])], scale.rounds, device)
    pivot = variants["SFT"].pivot.model
    parameters = sum(p.numel() for p in pivot.parameters())
    shape = f"pivot of {parameters / 1e6:.1f}M, {scale.examples} × {scale.prompt + scale.answer} tokens, {device.type}"
    step = statistics.median(seconds["SFT"])
    tokens = scale.examples * (scale.prompt + scale.answer)
    floor = 3 * products_per_token(pivot) * tokens / product_rate(device)
    rows = [make_row(f"train · SFT step, {shape} (floor: its products alone)", step, "s", floor=floor)]
    rows += _terms(scale, step, shape, device)
    alone = seconds.pop("the teacher's forward passes")
    expected = [one + other for one, other in zip(seconds["SFT"], alone)]
    for name in list(seconds)[1:]:
        label = f"train · step with {name}, {shape} (ratio: to SFT's step and the teacher's forward passes)"
        own, over = statistics.median(seconds[name]), ratio(seconds[name], expected)
        rows.append(make_row(label, own, "s", ratio=over, target="<= 1.15"))
    return rows


def _terms(scale: _Scale, step: float, shape: str, device: torch.device) -> list[Row]:
    vocabulary, examples, length = scale.pivot[0], scale.examples, scale.answer
    k = min(64, scale.teacher[0])
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(vocabulary, (examples, length), generator=generator).to(device)
    inputs = {"mask": torch.ones_like(labels, dtype=torch.bool), "labels": labels}
    noise = [torch.randn(examples, length, vocabulary, generator=generator).to(device) for _ in range(2)]
    teacher = answer_signal(noise[1], inputs, k)
    at = torch.arange(length, device=device).expand(examples, length)
    part = {
        "rows": torch.arange(examples, device=device), "student_at": at, "teacher_at": at, "aligned": inputs["mask"],
        "student_chunks": at, "teacher_chunks": at, "chunks": torch.full((examples,), length, device=device),
    }  # fmt: skip
    # Half of the tokens are shared.
    shared = torch.where(torch.arange(vocabulary) % 2 == 0, torch.arange(vocabulary), -1)
    config = parse_config({"pivot": {"model": "-"}, "training": {"steps": 1}})

    def work(token: str, structure: str) -> Callable[[], object]:
        losses = [make_token_loss(token, config), make_structure_loss(structure, "prob", (shared, shared))]
        chosen = [loss for loss in losses if loss is not None]

        def one() -> None:
            logits = noise[0].detach().requires_grad_()
            # SFT alone needs the logsumexp and nothing beside it.
            student = answer_signal(logits, inputs, k if chosen else 1)
            total = -student.token_log_prob.sum()
            pair = make_pair(student, teacher, part)
            for found in (loss(pair) for loss in chosen):
                total = total + found.total / found.units
            total.backward()

        return one

    names = {"SFT": ("none", "none")} | {" + ".join(pair): pair for pair in (*TERMS, ANCHORED)}
    seconds = times({name: work(*pair) for name, pair in names.items()}, device, 2 * scale.rounds)
    least = noise[0].numel() * 4 / copy_bandwidth(device, 1 << 26 if scale.rounds > 1 else 1 << 12)
    rows = []
    for name in list(names)[1:]:
        added = statistics.median(a - b for a, b in zip(seconds[name], seconds["SFT"]))
        label = f"train · terms {name.replace('none + ', '').replace(' + none', '')}, {shape}: share of the step"
        floor = 100 * least / (step + least)
        rows.append(make_row(label, 100 * added / (step + added), "%", floor=floor, target="<= 5"))
    return rows


def _prepared(folder: Path, scale: _Scale, terms: tuple[str, str] | None, device: torch.device) -> Prepared:
    for name, (vocabulary, width, layers) in (("pivot", scale.pivot), ("teacher", scale.teacher)):
        if not (folder / name).is_dir():
            _save(folder / name, vocabulary, width, layers)
    words = scale.teacher[0]
    examples = [
        Example(random_text(scale.prompt, words, seed), " " + random_text(scale.answer, words, 10_000 + seed))
        for seed in range(8 * scale.examples)
    ]
    mapping: dict[str, Any] = {
        "pivot": {"model": str(folder / "pivot")},
        "teachers": [] if terms is None else [{"name": "t", "model": str(folder / "teacher")}],
        "training": {"steps": 3, "batch_size": scale.examples, "device": "cpu" if device.type == "cpu" else "auto"},
    }
    if terms is not None:
        mapping["loss"] = {"token": terms[0], "structure": terms[1], "beta": 1.0}
    return prepare(parse_config(mapping), examples, [])


def _save(folder: Path, vocabulary: int, width: int, layers: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 27 // 10, num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64), max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer(vocabulary).save_pretrained(folder)


def _steps(folder: Path, variants: Mapping[str, Prepared], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds from the end of one step to the end of the next, the variants in turn; teachers read everything anew."""
    from transformers import TrainerCallback

    from gfviz.fusion.arguments import training_arguments
    from gfviz.fusion.sharding import place_teachers
    from gfviz.fusion.trainer import FusionTrainer
    from gfviz.runs import RunDirectory

    clock = clock_for(device)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            wait(device)
            self.ends.append(clock())

    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, prepared in variants.items():
            ends = Clock()
            trainer = FusionTrainer(
                prepared.trained, training_arguments(prepared.config, RunDirectory(folder)), prepared.objective,
                prepared.train, prepared.collator, prepared.k, callbacks=[ends],
            )  # fmt: skip
            place_teachers(prepared.config, prepared.online, trainer.accelerator)
            for teacher in prepared.online:
                teacher.forget()
            trainer.train()
            found[name] += [after - before for before, after in zip(ends.ends, ends.ends[1:])]
    return found


def _teacher_alone(prepared: Prepared, rounds: int, device: torch.device) -> list[float]:
    """Seconds of the bare forward pass of the teacher over a padded batch, twice a round as the steps are."""
    model = prepared.online[0].model
    accepts = forward_arguments(model)
    inputs = prepared.collator(prepared.train[: prepared.config.training.batch_size])["teachers"]["t"]["model"]
    inputs = {key: value.to(device) for key, value in inputs.items()}

    @torch.no_grad()
    def read() -> None:
        window_logits(model, inputs, accepts)

    return times({"read": read}, device, 2 * rounds)["read"]
