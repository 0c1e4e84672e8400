"""Gromov–Wasserstein: the closed form and the certified ladder beside POT, and bounds of many pairs at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gfviz.bench.measure import Row, copy_bandwidth, make_row, ratio, times
from gfviz.graph import CoactivationGraph
from gfviz.gromov import gromov_wasserstein, sorted_gw
from gfviz.gromov.batched import KINDS, GraphSummary, lower_bound, sorted_upper_bound
from gfviz.signals import TopKLogits

_CPU = torch.device("cpu")


def run(device: torch.device, size: str) -> list[Row]:
    """`sorted_gw` and the fast ladder against POT over n; then all pairs of two sets of rank graphs with k = 64."""
    sizes, rounds, graphs = ((64, 128, 256, 512), 5, 64) if size == "full" else ((8,), 1, 2)
    bandwidth = copy_bandwidth(_CPU, 1 << 26 if size == "full" else 1 << 12)
    rows = [row for n in sizes for row in _sizes(n, rounds, bandwidth, n == sizes[-1])]
    return [*rows, _many(graphs, 64 if size == "full" else 4, device, rounds)]


def _signals(count: int, positions: int, k: int, seed: int) -> torch.Tensor:
    """Sorted softmaxes of normal logits: the factors of rank graphs of probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, positions, k, generator=generator, dtype=torch.float64) * 3
    return logits.softmax(-1).sort(-1, descending=True).values


def _graph(n: int, seed: int, positions: int = 64) -> CoactivationGraph:
    logits = _signals(1, positions, n, seed)[0].log()
    return CoactivationGraph.from_signal(TopKLogits.from_logits(logits, n), nodes="rank")


def _sizes(n: int, rounds: int, bandwidth: float, last: bool) -> list[Row]:
    graphs = _graph(n, 1), _graph(n, 2)
    a, b = (graph.dense() for graph in graphs)
    work: dict[str, Callable[[], object]] = {
        "sorted": lambda: sorted_gw(*graphs, p=2),
        "fast": lambda: gromov_wasserstein(a, b, budget="fast"),
        "POT": _pot(a, b),
    }
    seconds = times(work, _CPU, rounds)
    middle = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    floor = 1000 * 2 * a.nbytes / bandwidth
    factors = 1000 * 2 * 64 * n * 8 / bandwidth
    target = ">= 1000" if last else None
    return [
        make_row(
            f"gw · sorted_gw of two graphs of {n} nodes against POT's gromov_wasserstein2 (ratio: POT / ours)",
            middle["sorted"],
            "ms",
            floor=factors,
            peer=middle["POT"],
            ratio=ratio(seconds["POT"], seconds["sorted"]),
            target=target,
        ),
        make_row(
            f"gw · certified interval, budget fast, n = {n} (ratio: POT / ours)",
            middle["fast"],
            "ms",
            floor=floor,
            peer=middle["POT"],
            ratio=ratio(seconds["POT"], seconds["fast"]),
        ),
    ]


def _pot(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    import ot

    # Its tolerance is absolute: without this a graph of small entries is left at the first iterate.
    scale = max(np.abs(a).max(), np.abs(b).max())
    first, second = a / scale, b / scale
    p, q = ot.unif(len(a)), ot.unif(len(b))
    return lambda: ot.gromov.gromov_wasserstein2(first, second, p, q, "square_loss")


def _many(count: int, k: int, device: torch.device, rounds: int) -> Row:
    signals = [_signals(count, 64, k, seed).to(device, torch.float32) for seed in (1, 2)]

    def all_pairs() -> None:
        ours, theirs = (GraphSummary.from_factors(z) for z in signals)
        for i, j in pairwise(range(count + 1)):
            one = _rows(ours, slice(i, j))
            for kind in KINDS[1:]:
                lower_bound(one, theirs, kind)
            sorted_upper_bound(one, theirs)

    seconds = statistics.median(times({"pairs": all_pairs}, device, rounds)["pairs"])
    target = ">= 1500" if device.type == "cpu" else ">= 100000"
    name = (
        f"gw · {count * count} pairs of k = {k} rank graphs: centred, spectral, entries, sorted coupling, {device.type}"
    )
    return make_row(name, count * count / seconds, "pairs/s", target=target)


def _rows(found: GraphSummary, part: slice) -> GraphSummary:
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    cut: dict[str, Any] = {name: None if field is None else field[part] for name, field in fields.items()}
    return GraphSummary(**cut)
