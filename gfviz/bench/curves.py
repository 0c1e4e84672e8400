"""What everything costs as it grows: time against nodes, positions, vocabulary, kept logits and teachers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping

import torch

from gfviz.bench.gw import REPEATS, graph_of, ott, pot, repeated
from gfviz.bench.losses import K, distil_step, once, trl_step
from gfviz.bench.measure import Row, copy_bandwidth, make_row, nbytes, times
from gfviz.figures.costs import cost_name
from gfviz.gromov import gromov_wasserstein, sorted_gw
from gfviz.kernels import topk_logsumexp, topk_logsumexp_reference

_CPU = torch.device("cpu")
_SIGNAL, _APART, _LOSS = "top-k + logsumexp", "torch's topk and logsumexp", "ULD + GLD, forward and backward"
_PEER = "TRL's ULD, forward and backward"
# TRL sorts whole vocabularies: at the last of these it takes seconds a step on one core.
_PEER_MOST = 256 * 32_000


def run(device: torch.device, size: str) -> list[Row]:
    """Rows named by `cost_name`, each in ms with the floor of what must be read and written; k = 64 unless swept."""
    tiny = size != "full"
    rounds = 1 if tiny else 3
    bandwidth = copy_bandwidth(device, 1 << 12 if tiny else 1 << 28)
    rows = [row for n in ((8,) if tiny else (32, 64, 128, 256, 512)) for row in _nodes(n, rounds, bandwidth)]
    grid: list[tuple[str, int, int, int, int]] = [("T", t, t, 32_000, 1) for t in (32, 64, 128, 256, 512)]
    grid += [("V", v, 256, v, 1) for v in (4_000, 8_000, 16_000, 32_000, 64_000, 151_936)]
    grid += [("teachers", m, 256, 32_000, m) for m in (1, 2, 4, 8)]
    for axis, x, positions, vocabulary, teachers in [("T", 8, 8, 300, 1)] if tiny else grid:
        rows += _signals(axis, x, positions, vocabulary, teachers, device, rounds, bandwidth)
    for k in (4,) if tiny else (4, 8, 16, 32, 64, 128):
        rows += _kept(k, *((8, 300) if tiny else (256, 32_000)), device, rounds, bandwidth)
    return rows


def _nodes(n: int, rounds: int, bandwidth: float) -> Iterator[Row]:
    graphs = graph_of(n, 1), graph_of(n, 2)
    a, b = (graph.dense() for graph in graphs)
    work: dict[str, Callable[[], object]] = {
        "closed form (graphs)": repeated(lambda: sorted_gw(*graphs, p=2)),
        "certified interval, fast": lambda: gromov_wasserstein(a, b, budget="fast"),
        "POT": pot(a, b),
    }
    other = ott(a, b)
    if other is not None:
        work["OTT, entropic"] = other
    seconds = times(work, _CPU, rounds)
    seconds["closed form (graphs)"] = [value / REPEATS for value in seconds["closed form (graphs)"]]
    matrices, factors = 2 * a.nbytes / bandwidth, 2 * 64 * 8 * n / bandwidth
    yield from _rows("n", n, seconds, {name: factors if "graphs" in name else matrices for name in seconds})


def _signals(
    axis: str, x: int, positions: int, vocabulary: int, teachers: int, device: torch.device, rounds: int, rate: float
) -> Iterator[Row]:
    student, *others = (torch.randn(1, positions, vocabulary, device=device).mul_(3) for _ in range(teachers + 1))
    student.requires_grad_()
    k = min(K, vocabulary)
    flat = student.detach()[0]
    work: dict[str, Callable[[], object]] = {_LOSS: distil_step(student, others)}
    if teachers == 1 and axis != "teachers":
        work |= {_SIGNAL: lambda: topk_logsumexp(flat, k), _APART: lambda: topk_logsumexp_reference(flat, k)}
    seconds = times(work, device, rounds)
    peer = trl_step(student, others[0]) if axis != "teachers" and positions * vocabulary <= _PEER_MOST else None
    if peer is not None:
        seconds[_PEER] = [once(peer, device)[0]]
    yield from _rows(axis, x, seconds, _floors(nbytes(student) / rate, teachers))


def _kept(k: int, positions: int, vocabulary: int, device: torch.device, rounds: int, rate: float) -> Iterator[Row]:
    student, teacher = (torch.randn(1, positions, vocabulary, device=device).mul_(3) for _ in range(2))
    student.requires_grad_()
    flat = student.detach()[0]
    work: dict[str, Callable[[], object]] = {
        _LOSS: distil_step(student, [teacher], k),
        _SIGNAL: lambda: topk_logsumexp(flat, k),
        _APART: lambda: topk_logsumexp_reference(flat, k),
    }
    yield from _rows("k", k, times(work, device, rounds), _floors(nbytes(student) / rate, 1))


def _floors(once_over: float, teachers: int) -> dict[str, float]:
    """Seconds of one read of a logits tensor; the student's are read twice and their gradient is written."""
    whole = (3 + teachers) * once_over
    return {_SIGNAL: once_over, _APART: once_over, _LOSS: whole, _PEER: whole}


def _rows(axis: str, x: int, seconds: Mapping[str, list[float]], floors: Mapping[str, float]) -> Iterator[Row]:
    for series, values in seconds.items():
        yield make_row(cost_name(axis, x, series), 1000 * statistics.median(values), "ms", floor=1000 * floors[series])
