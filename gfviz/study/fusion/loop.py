"""One short run: the library's own preparation, batches and objective in a plain loop, then the held-out score.

`FusionTrainer` takes a second to start and some milliseconds a step, which would be half of a run of seconds; a test
holds that this loop gives its losses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, parse_config
from gfviz.fusion.data import Example
from gfviz.fusion.evaluation import EvaluationReport, evaluate_loaded
from gfviz.fusion.prepare import Prepared, move_model, prepare
from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits
from gfviz.study.fusion.data import SIGNAL_DTYPE, GroupData, answers_of, cache_name
from gfviz.study.fusion.plan import Method, Regime, StudySize

# Teachers' names in a run's configuration.
TEACHER = "teacher"


@dataclass(frozen=True)
class Stream:
    """Examples with their objective; `share` of the loss, `size` examples of each step.

    renew: after so many batches the pivot answers the prompts of the coming ones anew (0: never), `texts` are those
    prompts; plan: how long its answers may be.
    """

    prepared: Prepared
    share: float
    size: int
    renew: int = 0
    texts: Sequence[Example] = ()
    plan: StudySize | None = None


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
    """The parts of a method's loss: (1 − λ)·SFT on the labels, λ·(the teacher's part), on one set of texts or two.

    Raises `GfvizError` for a method that renews its texts in a regime whose texts are all labelled.
    """
    if method.renew and not regime.few:
        raise GfvizError(f"{method.name} renews the pivot's own answers: the regime {regime.name} has none")
    if method.kind == "distil" and not regime.few:
        both = prepare(_config(size, method, seed, pivot, data, method.lam), data.distilled, [])
        return [Stream(both, 1.0, size.batch)]
    plain = prepare(_config(size, method, seed, pivot, None, 0.0), data.labelled, [])
    if method.kind in ("pivot", "sft"):
        return [Stream(plain, 1.0, size.batch)]
    labels = Stream(plain, 1 - method.lam, size.batch)
    if method.kind == "answers":
        other = prepare(_config(size, method, seed, pivot, None, 0.0), data.answered, [])
        return [labels, Stream(other, method.lam, size.batch)]
    other = prepare(_config(size, method, seed, pivot, data, 1.0), data.distilled, [])
    return [labels, Stream(other, method.lam, size.batch, method.renew, data.distilled, size)]


def _config(
    size: StudySize, method: Method, seed: int, pivot: Path, data: GroupData | None, lam: float
) -> FusionConfig:
    side = "twin" if method.twin else "teacher"
    teachers: list[dict[str, Any]] = []
    if data is not None:
        files = {"model": str(data.models[side])}
        if not method.renew:
            files["cache"] = str(data.caches[cache_name(method)])
        teachers = [{"name": TEACHER, **files, "control": method.control}]
    return parse_config({
        "name": "study", "seed": seed, "pivot": {"model": str(pivot)}, "teachers": teachers,
        "loss": {
            "lambda": lam, "token": method.token, "structure": method.structure, "beta": method.beta, "k": size.k,
            "signal_dtype": SIGNAL_DTYPE, "temperature": method.temperature,
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
    orders = [batches(stream, seed, model) for stream in streams]
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
    """The objective over one batch, as `FusionTrainer.compute_loss` has it on one process."""
    objective, heat = stream.prepared.objective, stream.prepared.config.loss.temperature
    logits = window_logits(model, batch["student"], accepts)
    found = answer_signal(logits, batch["student"], stream.prepared.k, heat)
    # SFT is at temperature 1, whatever the teacher is compared at.
    plain = found if heat == 1 else answer_signal(logits, batch["student"], 1)
    return objective(found, plain.token_log_prob, logits, batch, objective.counts([batch]), progress).total


def batches(stream: Stream, seed: int, model: Any) -> Iterator[dict[str, Any]]:
    """Batches for ever; where the stream renews its texts, each is in the words that `model` has when its turn comes.

    Cost of a renewal: a greedy answer to each prompt of the coming `renew` batches, and the teacher's forward passes.
    """
    prepared = stream.prepared
    turns = _places(len(prepared.train), stream.size, seed)
    while not stream.renew:
        yield prepared.collator([prepared.train[place] for place in next(turns)])
    assert stream.plan is not None
    while True:
        ahead = [next(turns) for _ in range(stream.renew)]
        wanted = sorted(set(chain.from_iterable(ahead)))
        own = replace(prepared.pivot, model=model)
        written = answers_of(own, [stream.texts[place] for place in wanted], stream.plan)
        model.train()
        made = zip(wanted, prepared.encode(written))
        fresh = {place: prepared.train[place] if example is None else example for place, example in made}
        for chosen in ahead:
            yield prepared.collator([fresh[place] for place in chosen])


def _places(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Examples of each batch, in a new order each epoch; the last short batch of an epoch is filled from the next."""
    generator = torch.Generator().manual_seed(seed)
    queue: list[int] = []
    while True:
        while len(queue) < size:
            queue += torch.randperm(count, generator=generator).tolist()
        chosen, queue = queue[:size], queue[size:]
        yield chosen


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, dict):
        return {key: _to(value, device) for key, value in batch.items()}
    return batch.to(device) if isinstance(batch, Tensor) else batch
