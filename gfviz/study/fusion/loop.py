"""One short run: the library's own preparation, batches and objective in a plain loop, then the held-out score.

`FusionTrainer` takes a second to start and some milliseconds a step, which would be half of a run of seconds; a test
holds that this loop gives its losses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfviz.fusion.config import FusionConfig, parse_config
from gfviz.fusion.data import Example
from gfviz.fusion.evaluation import EvaluationReport, evaluate_loaded
from gfviz.fusion.prepare import Prepared, move_model, prepare
from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits
from gfviz.study.fusion.data import SIGNAL_DTYPE, GroupData
from gfviz.study.fusion.plan import Method, Regime, StudySize

# Teachers' names in a run's configuration.
TEACHER = "teacher"


@dataclass(frozen=True)
class Stream:
    """Examples with their objective; `share` of the loss, `size` examples of each step."""

    prepared: Prepared
    share: float
    size: int


@dataclass(frozen=True)
class RunScore:
    """What a run ended in: the held-out report, the loss at its last step, seconds of wall and processor time."""

    report: EvaluationReport
    loss: float
    seconds: float
    cpu_seconds: float


def run_method(
    size: StudySize,
    regime: Regime,
    method: Method,
    seed: int,
    pivot: Path,
    data: GroupData,
    tests: Sequence[Example],
    device: str,
) -> RunScore:
    """Train a pivot by one method and score it. A run is the same for the same arguments on one CPU thread."""
    started, began = time.perf_counter(), time.process_time()
    streams = make_streams(size, regime, method, seed, pivot, data)
    model = streams[0].prepared.trained
    loss = float("nan")
    if method.kind != "pivot":
        for value in training_losses(model, streams, size.steps, size.rate, seed, device):
            loss = value
    move_model(model, device)
    report = evaluate_loaded(
        model, streams[0].prepared.pivot.tokenizer, tests, method.name, batch_size=200, max_new_tokens=size.longest
    )
    return RunScore(report, float(loss), time.perf_counter() - started, time.process_time() - began)


def make_streams(
    size: StudySize, regime: Regime, method: Method, seed: int, pivot: Path, data: GroupData
) -> list[Stream]:
    """The parts of a method's loss: (1 − λ)·SFT on the labels, λ·(the teacher's part), on one set of texts or two."""
    if method.kind == "distil" and not regime.few:
        both = prepare(_config(size, method, seed, pivot, data, method.lam), data.distilled, [])
        return [Stream(both, 1.0, size.batch)]
    plain = prepare(_config(size, method, seed, pivot, None, 0.0), data.labelled, [])
    if method.kind in ("pivot", "sft"):
        return [Stream(plain, 1.0, size.batch)]
    if method.kind == "answers":
        other = prepare(_config(size, method, seed, pivot, None, 0.0), data.answered, [])
    else:
        other = prepare(_config(size, method, seed, pivot, data, 1.0), data.distilled, [])
    return [Stream(plain, 1 - method.lam, size.batch), Stream(other, method.lam, size.batch)]


def _config(
    size: StudySize, method: Method, seed: int, pivot: Path, data: GroupData | None, lam: float
) -> FusionConfig:
    side = "twin" if method.twin else "teacher"
    teachers: list[dict[str, Any]] = []
    if data is not None:
        files = {"model": str(data.models[side]), "cache": str(data.caches[side])}
        teachers = [{"name": TEACHER, **files, "control": method.control}]
    return parse_config({
        "name": "study", "seed": seed, "pivot": {"model": str(pivot)}, "teachers": teachers,
        "loss": {
            "lambda": lam, "token": method.token, "structure": method.structure, "beta": method.beta, "k": size.k,
            "signal_dtype": SIGNAL_DTYPE,
        },
        "training": {"steps": size.steps, "batch_size": size.batch, "learning_rate": size.rate, "device": "cpu"},
    })  # fmt: skip


def training_losses(
    model: Any, streams: Sequence[Stream], steps: int, rate: float, seed: int, device: str
) -> Iterator[float]:
    """Train in place and yield the loss of every step: AdamW without decay, cosine, norms clipped at 1, as the trainer.

    The order of examples follows from the seed alone: methods see the same prompts at the same steps.
    """
    from transformers import get_scheduler

    move_model(model, device)
    model.train()
    accepts = forward_arguments(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=0, num_training_steps=steps)
    orders = [batches(stream, seed) for stream in streams]
    for step in range(steps):
        total = torch.zeros((), device=device)
        for stream, order in zip(streams, orders):
            batch = _to(next(order), device)
            total = total + stream.share * stream_loss(model, stream, batch, step / steps, accepts)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield float(total.detach())


def stream_loss(model: Any, stream: Stream, batch: dict[str, Any], progress: float, accepts: frozenset[str]) -> Tensor:
    """The objective over one batch, as `FusionTrainer.compute_loss` has it on one process at temperature 1."""
    objective = stream.prepared.objective
    logits = window_logits(model, batch["student"], accepts)
    found = answer_signal(logits, batch["student"], stream.prepared.k)
    return objective(found, found.token_log_prob, logits, batch, objective.counts([batch]), progress).total


def batches(stream: Stream, seed: int) -> Iterator[dict[str, Any]]:
    """Batches for ever, in a new order each epoch; the last short batch of an epoch is filled from the next."""
    generator = torch.Generator().manual_seed(seed)
    examples = stream.prepared.train
    queue: list[int] = []
    while True:
        while len(queue) < stream.size:
            queue += torch.randperm(len(examples), generator=generator).tolist()
        chosen, queue = queue[: stream.size], queue[stream.size :]
        yield stream.prepared.collator([examples[place] for place in chosen])


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, dict):
        return {key: _to(value, device) for key, value in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch
