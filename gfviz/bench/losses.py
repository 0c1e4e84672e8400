"""The one pass over the logits and the losses on it, beside torch's separate calls, TRL's ULDLoss and Liger's JSD."""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gfviz.bench.measure import Row, clock_for, copy_bandwidth, make_row, nbytes, peak_bytes, ratio, times, wait
from gfviz.fusion.losses import AnswerSignal, DenseGLD, SignalPair, UniversalLogitDistillation
from gfviz.fusion.losses.structure import entries_bound
from gfviz.kernels import head_topk_logsumexp, topk_logsumexp, topk_logsumexp_reference
from gfviz.kernels.topk_logsumexp import Implementation, choose_kernel
from gfviz.signals import TopKLogits

K = 64
# What each way is compared with: reading the logits once, and copying them into fresh memory, as a gradient is.
_UNDER = {"forward": "read", "backward": "fresh"}
_CPU_SWEEP = ((128, 32_000), (128, 151_936), (512, 32_000), (512, 151_936))
_GPU_SWEEP = ((512, 151_936), (1024, 151_936), (2048, 151_936), (4096, 151_936), (4096, 32_000))


def run(device: torch.device, size: str) -> list[Row]:
    """Kernel rows at the largest shape, then ULD + GLD forward and backward over T and V, time and peak memory."""
    gpu = device.type == "cuda"
    sweep = ((8, 700),) if size == "tiny" else _GPU_SWEEP if gpu else _CPU_SWEEP
    rounds = 1 if size == "tiny" else 7
    bandwidth = copy_bandwidth(device, 1 << 12 if size == "tiny" else 1 << 28)
    positions, vocabulary = max(sweep)
    rows = [make_row(f"losses · copy bandwidth, {device.type}", bandwidth / 1e9, "GB/s")]
    for dtype in (torch.float32, torch.bfloat16):
        rows += _kernel(positions, vocabulary, dtype, device, rounds, bandwidth)
    rows += _head(positions, vocabulary, 64 if size == "tiny" else 1024, device, min(rounds, 3))
    rows += _from_hidden(*min(sweep[-2:]), 16 if size == "tiny" else 640, device, min(rounds, 3))
    dtype = torch.bfloat16 if gpu else torch.float32
    for shape in sweep:
        rows += _losses(*shape, dtype, device, min(rounds, 3), bandwidth, shape == max(sweep))
    return rows if size == "tiny" else rows + _compiled(positions, device, rounds)


def _kernel(
    positions: int, vocabulary: int, dtype: torch.dtype, device: torch.device, rounds: int, bandwidth: float
) -> list[Row]:
    logits = torch.randn(positions, vocabulary, device=device).mul_(4).to(dtype).requires_grad_()
    flat, k = logits.detach(), min(K, vocabulary)
    copied = torch.empty_like(flat)
    impls: list[Implementation] = ["auto", "torch"]
    outputs = {impl: topk_logsumexp(logits, k, impl) for impl in impls}

    def backward(impl: Implementation) -> Callable[[], object]:
        values, _, total = outputs[impl]
        return lambda: torch.autograd.grad(values.sum() + total.sum(), logits, retain_graph=True)

    work: dict[str, Callable[[], object]] = {"read": lambda: flat.amax(1), "copy": lambda: copied.copy_(flat)}
    work["fresh"] = flat.clone
    work["separate"] = lambda: topk_logsumexp_reference(flat, k)
    for impl in impls:
        work[f"{impl} forward"] = lambda impl=impl: topk_logsumexp(flat, k, impl)  # type: ignore[misc]
        work[f"{impl} backward"] = backward(impl)
    seconds = times(work, device, rounds)
    middle = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    floors = {"forward": 1000 * nbytes(flat) / bandwidth, "backward": 2000 * nbytes(flat) / bandwidth}
    kind = str(dtype).removeprefix("torch.")
    shape = f"T = {positions}, V = {vocabulary}, k = {k}, {kind}, {device.type}"
    bound = 3.0 if device.type == "cpu" else 1.5
    tested = dtype == (torch.float32 if device.type == "cpu" else torch.bfloat16)
    rows = [
        make_row(f"losses · one read (amax), {shape}", middle["read"], "ms", floor=floors["forward"]),
        make_row(f"losses · copy into fresh memory (clone), {shape}", middle["fresh"], "ms", floor=floors["backward"]),
        make_row(
            f"losses · torch.topk and logsumexp apart, {shape} (ratio: to one read)",
            middle["separate"],
            "ms",
            floor=floors["forward"],
            ratio=ratio(seconds["separate"], seconds["read"]),
        ),
    ]
    for impl in impls:
        ran = choose_kernel(flat, k, impl).__name__.rsplit(".", 1)[1]  # type: ignore[attr-defined]
        for way, under in (("forward", "read"), ("backward", "clone")):
            rows.append(
                make_row(
                    f"losses · top-k + logsumexp {way}, {impl} ({ran}), {shape} (ratio: to one {under})",
                    middle[f"{impl} {way}"],
                    "ms",
                    floor=floors[way],
                    peer=middle["separate"] if way == "forward" else None,
                    ratio=ratio(seconds[f"{impl} {way}"], seconds[_UNDER[way]]),
                    target=f"<= {bound:g}" if impl == "auto" and way == "forward" and tested else None,
                )
            )
    return rows


def _head(positions: int, vocabulary: int, width: int, device: torch.device, rounds: int) -> list[Row]:
    hidden = torch.randn(positions, width, device=device)
    weight = torch.randn(vocabulary, width, device=device) / width**0.5
    k = min(K, vocabulary)
    work: dict[str, Callable[[], object]] = {
        "product": lambda: hidden @ weight.T,
        "dense": lambda: topk_logsumexp(hidden @ weight.T, k),
        "fused": lambda: head_topk_logsumexp(hidden, weight, k),
    }
    seconds = times(work, device, rounds)
    peaks = {name: peak_bytes(work[name], device) for name in ("dense", "fused")}
    shape = f"T = {positions}, V = {vocabulary}, H = {width}, {device.type}"
    middle = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return [
        make_row(
            f"losses · head fused with top-k + logsumexp, {shape} (floor: the product alone; ratio: to it)",
            middle["fused"],
            "ms",
            floor=middle["product"],
            peer=middle["dense"],
            ratio=ratio(seconds["fused"], seconds["product"]),
        ),
        _memory_row(
            f"losses · fused head, peak memory, {shape} (peer: logits kept; ratio: peer / ours)",
            peaks["fused"],
            peaks["dense"],
        ),
    ]


def _from_hidden(positions: int, vocabulary: int, width: int, device: torch.device, rounds: int) -> list[Row]:
    """Distillation from what enters the heads, with gradients of hidden states and weights: time and peak memory."""
    hidden = [torch.randn(positions, width, device=device) for _ in range(2)]
    weights = [torch.randn(vocabulary, width, device=device) / width**0.5 for _ in range(2)]
    inputs = [hidden[0].requires_grad_(), weights[0].requires_grad_()]
    k = min(K, vocabulary)

    def signal(rows: Tensor, weight: Tensor) -> TopKLogits:
        found = head_topk_logsumexp(rows, weight, k)
        mask = torch.ones(1, positions, dtype=torch.bool, device=device)
        values, ids, total = (each.unsqueeze(0) for each in (found.values, found.ids, found.logsumexp))
        return TopKLogits(values, ids, total, mask, vocabulary)

    def ours() -> None:
        with torch.no_grad():
            known = signal(hidden[1], weights[1])
        torch.autograd.grad(distilled(signal(hidden[0], weights[0]), [known]), inputs)

    work: dict[str, Callable[[], object]] = {"ours": ours}
    # The products alone: two forward, and the gradients of hidden states and weights.
    work["product"] = lambda: [hidden[0].detach() @ weights[0].detach().T for _ in range(4)]
    peer = liger_step(hidden, weights)
    if peer is not None:
        work["peer"] = peer
    seconds = times(work, device, rounds)
    peaks = {name: peak_bytes(work[name], device) for name in ("ours", "peer") if name in work}
    middle = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    shape = f"T = {positions}, V = {vocabulary}, H = {width}, {device.type}"
    return [
        make_row(
            f"losses · ULD + GLD (entries) from hidden states, forward and backward, {shape} "
            "(floor: its four products; peer: Liger's chunked JSD; ratio: peer / ours)",
            middle["ours"],
            "ms",
            floor=middle["product"],
            peer=middle.get("peer"),
            ratio=ratio(seconds["peer"], seconds["ours"]) if "peer" in seconds else None,
        ),
        _memory_row(
            f"losses · the same from hidden states, peak memory beyond inputs, {shape} (ratio: peer / ours)",
            peaks["ours"],
            peaks.get("peer"),
        ),
    ]


def _losses(
    positions: int,
    vocabulary: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    bandwidth: float,
    largest: bool,
) -> list[Row]:
    student = torch.randn(1, positions, vocabulary, device=device).mul_(3).to(dtype).requires_grad_()
    teacher = torch.randn(1, positions, vocabulary, device=device).mul_(3).to(dtype)
    ours = distil_step(student, [teacher])
    theirs = trl_step(student, teacher)
    seconds = times({"ours": ours}, device, rounds)["ours"]
    memory = peak_bytes(ours, device)
    slow, peer_memory = (None, None) if theirs is None else once(theirs, device)
    gradient = nbytes(student)
    del ours, theirs
    gc.collect()
    wait(device)
    value = 1000 * statistics.median(seconds)
    peer = None if slow is None else 1000 * slow
    shape = f"T = {positions}, V = {vocabulary}, {str(dtype).removeprefix('torch.')}, {device.type}"
    beyond = [None if m is None else max(m - gradient, 1.0) for m in (memory, peer_memory)]
    return [
        make_row(
            f"losses · ULD + GLD (entries) forward and backward, {shape} (peer: TRL ULDLoss; ratio: peer / ours)",
            value,
            "ms",
            # Both logits read forward, the student's again and its gradient written backward.
            floor=1000 * 4 * nbytes(student) / bandwidth,
            peer=peer,
            ratio=None if peer is None else peer / value,
            target=">= 50" if largest and device.type == "cpu" else None,
            compared=True,
        ),
        _memory_row(
            f"losses · the same, peak memory beyond inputs and their gradient, {shape} (ratio: peer / ours)",
            beyond[0],
            beyond[1],
            target=">= 4" if largest else None,
        ),
    ]


def _compiled(positions: int, device: torch.device, rounds: int) -> list[Row]:
    """The terms alone, from signals that are there: as they are, and through `torch.compile`; what compiling takes."""
    student, teacher = (
        TopKLogits.from_logits(4 * torch.randn(1, positions, 32 * K, device=device), K) for _ in range(2)
    )
    inputs = [student.values.requires_grad_(), student.logsumexp.requires_grad_()]

    def terms(values: Tensor, logsumexp: Tensor) -> Tensor:
        return distilled(replace(student, values=values, logsumexp=logsumexp), [teacher])

    ways: dict[str, Callable[..., Tensor]] = {"eager": terms, "compiled": torch.compile(terms)}
    work: dict[str, Callable[[], object]] = {
        name: lambda way=way: torch.autograd.grad(way(*inputs), inputs)  # type: ignore[misc]
        for name, way in ways.items()
    }
    first, _ = once(work["compiled"], device)
    seconds = times(work, device, 4 * rounds)
    shape = f"T = {positions}, k = {K}, {device.type}"
    return [
        make_row(
            f"losses · ULD + GLD (entries) from signals, through torch.compile, {shape} (peer: as they are)",
            1000 * statistics.median(seconds["compiled"]),
            "ms",
            peer=1000 * statistics.median(seconds["eager"]),
            ratio=ratio(seconds["eager"], seconds["compiled"]),
        ),
        make_row(f"losses · compiling them, {shape}", first, "s"),
    ]


def once(run: Callable[[], object], device: torch.device) -> tuple[float, float | None]:
    """Seconds and peak memory of one call: the peer's sorts take so long that warming up would change nothing."""
    seconds, clock = 0.0, clock_for(device)

    def timed() -> None:
        nonlocal seconds
        begun = clock()
        run()
        wait(device)
        seconds = clock() - begun

    if device.type == "cuda":
        run()
    memory = peak_bytes(timed, device)
    if memory is None and seconds == 0.0:
        timed()
    return seconds, memory


def _memory_row(name: str, ours: float | None, theirs: float | None, target: str | None = None) -> Row:
    of = None if ours is None or theirs is None else theirs / max(ours, 1.0)
    mb = [None if value is None else value / 1e6 for value in (ours, theirs)]
    return make_row(name, mb[0], "MB", peer=mb[1], ratio=of, target=target, compared=True)


def distilled(student: TopKLogits, teachers: Sequence[TopKLogits]) -> Tensor:
    """ULD + GLD on `entries` between a student's signal [1, T, k] and each teacher's, position by position, summed."""
    count = student.values.shape[1]
    at = torch.arange(count, device=student.values.device).unsqueeze(0)
    aligned, chunks = torch.ones_like(at, dtype=torch.bool), at.new_tensor([count])

    def answer(signal: TopKLogits) -> AnswerSignal:
        return AnswerSignal(signal, torch.zeros_like(signal.logsumexp))

    ours, found = answer(student), []
    for teacher in teachers:
        pair = SignalPair(ours, answer(teacher), at, at, aligned, at, at, chunks, lambda ids: ids)
        found += [loss(pair) for loss in (UniversalLogitDistillation(), DenseGLD(entries_bound))]
    return torch.stack([each.total / each.units for each in found]).sum()


def distil_step(student: Tensor, teachers: Sequence[Tensor], k: int = K) -> Callable[[], object]:
    """Forward and backward of `distilled` from logits [1, T, V]."""
    k = min(k, student.shape[2])

    def step() -> None:
        with torch.no_grad():
            known = [TopKLogits.from_logits(teacher, k) for teacher in teachers]
        torch.autograd.grad(distilled(TopKLogits.from_logits(student, k), known), student)

    return step


def trl_step(student: Tensor, teacher: Tensor) -> Callable[[], object] | None:
    """TRL's loss on the same logits, as its trainer calls it; None where TRL is not installed."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.gold.gold_trainer import ULDLoss
    except ImportError:
        return None
    settings: Any = SimpleNamespace(  # the part of its configuration that the loss reads
        uld_crossentropy_weight=0.0,
        uld_distillation_weight=1.0,
        uld_student_temperature=1.0,
        uld_teacher_temperature=1.0,
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        use_extended_uld=False,
        uld_token_merge_strategy="observed",
        uld_use_hybrid_loss=False,
    )
    loss = ULDLoss(settings, device=student.device)
    ids = torch.zeros(1, student.shape[1], dtype=torch.int64, device=student.device)
    return lambda: torch.autograd.grad(loss(student, teacher, ids, ids, ids, ids), student)


def liger_step(hidden: Sequence[Tensor], weights: Sequence[Tensor]) -> Callable[[], object] | None:
    """Liger's fused head and Jensen–Shannon divergence, uncompiled as ours; None where Liger is not installed."""
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    except ImportError:
        return None
    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, compiled=False)
    labels = torch.zeros(len(hidden[0]), dtype=torch.int64, device=hidden[0].device)
    (student, teacher), (own, other) = hidden, weights
    return lambda: torch.autograd.grad(loss(student, own, teacher, other, labels), (student, own))
