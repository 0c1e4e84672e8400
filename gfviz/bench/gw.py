"""Gromov–Wasserstein: the closed form and the certified ladder beside POT and OTT, and bounds of many pairs at once."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from gfviz.bench import inner
from gfviz.bench.measure import Row, copy_bandwidth, make_row, ratio, times
from gfviz.graph import CoactivationGraph
from gfviz.gromov import gromov_wasserstein, sorted_gw
from gfviz.gromov.batched import KINDS, GraphSummary, lower_bound, sorted_upper_bound
from gfviz.signals import TopKLogits

_CPU = torch.device("cpu")


def run(device: torch.device, size: str) -> list[Row]:
    """`sorted_gw` and the fast ladder against POT and OTT over n; then all pairs of two sets of rank graphs, k = 64."""
    sizes, rounds, graphs = ((64, 128, 256, 512), 5, 64) if size == "full" else ((8,), 1, 2)
    bandwidth = copy_bandwidth(_CPU, 1 << 26 if size == "full" else 1 << 12)
    rows = [row for n in sizes for row in _sizes(n, rounds, bandwidth, n == sizes[-1])]
    at_vocabulary = ((512, 152_000, "<= 1"), (4000, 152_000, "<= 10")) if size == "full" else ((16, 2_000, "<= 10"),)
    rows += [_vocabulary(*each) for each in at_vocabulary]
    rows += inner.run(sizes, (16, 32) if size == "full" else (8,), rounds)
    return [*rows, _many(graphs, 64 if size == "full" else 4, device, rounds)]


def token_graph_of(positions: int, vocabulary: int, seed: int, k: int = 64) -> CoactivationGraph:
    """A token graph of random probabilities, k tokens a position, drawn without repeats by Zipf's frequencies."""
    rng = np.random.default_rng(seed)
    frequency = -np.log(np.arange(1, vocabulary + 1, dtype=np.float32))
    kept = np.empty((positions, k), dtype=np.int64)
    for row in kept:  # the k largest of Gumbel noise plus log frequency are k draws without repeats
        waits = np.maximum(rng.standard_exponential(vocabulary, dtype=np.float32), 1e-30)
        row[:] = np.argpartition(frequency - np.log(waits), -k)[-k:]
    values = torch.from_numpy(rng.standard_normal((positions, k)) * 2).log_softmax(-1).sort(-1, descending=True).values
    mask = torch.ones(positions, dtype=torch.bool)
    signal = TopKLogits(values, torch.from_numpy(kept), torch.zeros(positions, dtype=torch.float64), mask, vocabulary)
    return CoactivationGraph.from_signal(signal)


def _vocabulary(positions: int, vocabulary: int, target: str) -> Row:
    a, b = (token_graph_of(positions, vocabulary, seed) for seed in (1, 2))
    seconds = times({"standard": lambda: gromov_wasserstein(a, b)}, _CPU, 3)["standard"]
    name = f"gw · certified interval, budget standard, token graphs of {a.n} and {b.n} nodes"
    return make_row(f"{name} (V = {vocabulary}, T = {positions})", statistics.median(seconds), "s", target=target)


def _signals(count: int, positions: int, k: int, seed: int) -> torch.Tensor:
    """Sorted softmaxes of normal logits: the factors of rank graphs of probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, positions, k, generator=generator, dtype=torch.float64) * 3
    return logits.softmax(-1).sort(-1, descending=True).values


def graph_of(n: int, seed: int, positions: int = 64) -> CoactivationGraph:
    """A rank graph of n nodes."""
    logits = _signals(1, positions, n, seed)[0].log()
    return CoactivationGraph.from_signal(TopKLogits.from_logits(logits, n), nodes="rank")


# The closed form is over before a clock's tick is: this many calls are timed together.
REPEATS = 20


def repeated(work: Callable[[], object]) -> Callable[[], object]:
    """`REPEATS` calls as one."""

    def many() -> None:
        for _ in range(REPEATS):
            work()

    return many


def _sizes(n: int, rounds: int, bandwidth: float, last: bool) -> list[Row]:
    graphs = graph_of(n, 1), graph_of(n, 2)
    a, b = (graph.dense() for graph in graphs)
    work: dict[str, Callable[[], object]] = {
        "graphs": repeated(lambda: sorted_gw(*graphs, p=2)),
        "arrays": repeated(lambda: sorted_gw(a, b, p=2)),
        "fast": lambda: gromov_wasserstein(a, b, budget="fast"),
        "POT": pot(a, b),
    }
    other = ott(a, b)
    if other is not None:
        work["OTT"] = other
    seconds = times(work, _CPU, rounds)
    for name in ("graphs", "arrays"):
        seconds[name] = [value / REPEATS for value in seconds[name]]
    # Bytes that must be read: of the graphs' factors (64 positions), of the matrices.
    bytes_read = {"graphs": 2 * 64 * n * 8, "arrays": 2 * a.nbytes, "fast": 2 * a.nbytes}
    what = {
        "graphs": f"sorted_gw of two graphs of {n} nodes",
        "arrays": f"sorted_gw of two arrays of {n} × {n}",
        "fast": f"certified interval of two arrays, budget fast, n = {n}",
    }
    peers = {"POT": "POT's gromov_wasserstein", "OTT": "OTT's entropic solver"}
    rows = []
    for ours, label in what.items():
        for theirs, named in peers.items():
            if theirs in seconds:
                rows.append(
                    make_row(
                        f"gw · {label} against {named} (ratio: {theirs} / ours)",
                        1000 * statistics.median(seconds[ours]),
                        "ms",
                        floor=1000 * bytes_read[ours] / bandwidth,
                        peer=1000 * statistics.median(seconds[theirs]),
                        ratio=ratio(seconds[theirs], seconds[ours]),
                        target=">= 1000" if last and theirs == "POT" and ours != "fast" else None,
                    )
                )
    return rows


def pot(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """POT's solver at its defaults, on the pair brought to entries of at most 1."""
    import ot

    # Its tolerance is absolute: without this a graph of small entries is left at the first iterate.
    scale = max(np.abs(a).max(), np.abs(b).max())
    first, second = a / scale, b / scale
    p, q = ot.unif(len(a)), ot.unif(len(b))
    return lambda: ot.gromov.gromov_wasserstein(first, second, p, q, "square_loss")


def ott(a: np.ndarray, b: np.ndarray) -> Callable[[], object] | None:
    """OTT's solver (entropic, compiled, float32: no certificate) on the same pair; None where it is not installed."""
    # jax would take every core, and the machine's memory on a GPU.
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
        from ott.geometry.geometry import Geometry
        from ott.problems.quadratic.quadratic_problem import QuadraticProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn
        from ott.solvers.quadratic.gromov_wasserstein import GromovWasserstein
    except ImportError:
        return None
    solver = GromovWasserstein(Sinkhorn(), epsilon=0.05, relative_epsilon="mean")
    solve = jax.jit(lambda x, y: solver(QuadraticProblem(Geometry(cost_matrix=x), Geometry(cost_matrix=y))).primal_cost)
    scale = max(np.abs(a).max(), np.abs(b).max())
    first, second = (jax.numpy.asarray(each / scale, dtype="float32") for each in (a, b))
    return lambda: solve(first, second).block_until_ready()


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
    # Every pair reads both matrices in their sorted order and both lists of sorted entries.
    moved = 4 * 4 * k * k
    return make_row(
        name, count * count / seconds, "pairs/s", floor=copy_bandwidth(device, 1 << 26) / moved, target=target
    )


def _rows(found: GraphSummary, part: slice) -> GraphSummary:
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    cut: dict[str, Any] = {name: None if field is None else field[part] for name, field in fields.items()}
    return GraphSummary(**cut)
