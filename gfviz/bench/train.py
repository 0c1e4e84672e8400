"""What the distillation terms add to a training step."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from gfviz.bench.measure import Row, copy_bandwidth, make_row, nbytes, product_rate, ratio, times
from gfviz.bench.model import products_per_token, random_model
from gfviz.fusion.losses import (
    BOUNDS,
    AnswerSignal,
    DenseGLD,
    SignalPair,
    SortedGLD,
    UniversalLogitDistillation,
    masked_sum,
)
from gfviz.fusion.losses.base import DistillationLoss
from gfviz.fusion.teachers import answer_signal


def run(device: torch.device, size: str) -> list[Row]:
    """Forward and backward of a model on one batch: SFT alone, then with ULD and structure losses of a cached teacher.

    The value is the share of the step that the terms take; the teacher's own forward pass is not in it.
    """
    full = size == "full"
    model = random_model("100M" if full else "tiny", device)
    batch, length = (2, 256) if full else (2, 8)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=generator).to(device)
    inputs = {"mask": torch.ones_like(ids, dtype=torch.bool), "labels": ids.roll(-1, 1)}
    k = min(64, model.config.vocab_size)
    noise = torch.randn(batch, length, model.config.vocab_size, generator=generator).to(device)
    teacher = answer_signal(noise, inputs, k)
    variants: dict[str, list[DistillationLoss]] = {"SFT": [], "ULD": [UniversalLogitDistillation()]}
    variants["ULD + GLD sorted"] = [*variants["ULD"], SortedGLD()]
    for bound in ("spectral", "entries"):
        variants[f"ULD + GLD {bound}"] = [*variants["ULD"], DenseGLD(BOUNDS[bound])]

    def step(losses: list[DistillationLoss]) -> Callable[[], object]:
        def one() -> None:
            student = answer_signal(model(input_ids=ids, use_cache=False).logits, inputs, k)
            total = -masked_sum(student.token_log_prob, inputs["mask"]) / ids.numel()
            pair = _pair(student, teacher, ids)
            for loss in losses:
                found = loss(pair)
                total = total + found.total / found.units
            total.backward()
            model.zero_grad(set_to_none=True)

        return one

    work = {name: step(losses) for name, losses in variants.items()}
    seconds = times(work, device, 3 if full else 1)
    # forward, and both gradients of each product
    step_floor = 3 * products_per_token(model) * ids.numel() / product_rate(device)
    # The terms share the student's pass over its logits with SFT; the gradient they write is one more.
    terms_floor = nbytes(noise) / copy_bandwidth(device, 1 << 26 if full else 1 << 12)
    rows = []
    for name in list(variants)[1:]:
        of = ratio(seconds[name], seconds["SFT"])
        label = (
            f"train · {name}, {batch} × {length} tokens, {device.type}: share of the step (ratio: step to SFT's step)"
        )
        floor = 100 * terms_floor / (terms_floor + statistics.median(seconds["SFT"]))
        rows.append(make_row(label, 100 * (1 - 1 / of), "%", floor=floor, ratio=of))
    sft = statistics.median(seconds["SFT"])
    rows.insert(0, make_row(f"train · SFT step, {device.type} (floor: products alone)", sft, "s", floor=step_floor))
    return rows


def _pair(student: AnswerSignal, teacher: AnswerSignal, ids: Tensor) -> SignalPair:
    at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    chunks = torch.full((len(ids),), ids.shape[1], device=ids.device)
    return SignalPair(
        student, teacher, at, at, torch.ones_like(at, dtype=torch.bool), at, at, chunks, lambda found: found
    )
