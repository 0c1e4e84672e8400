"""How the distance, the dropped tail and the cost depend on k and on the number of positions T."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from gfviz.study.validate.families import Pair, distance
from gfviz.study.validate.models import WIDTH, Trace

VOCABULARY = 2000


def synthetic_traces(positions: int, seed: int) -> list[Trace]:
    """Two made-up models over a Zipf vocabulary of 2000, for where no trained ones are at hand."""
    found = []
    for side, spread in enumerate((2.0, 2.6)):
        rng = np.random.default_rng([seed, side, positions])
        logits = spread * rng.standard_normal((positions, VOCABULARY)) - np.log(np.arange(1, VOCABULARY + 1))
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        z = e / e.sum(axis=1, keepdims=True)
        ids = np.argsort(-z, axis=1)[:, :WIDTH]
        offsets = np.array([0, positions])
        found.append(Trace(f"synthetic-{side + 1}", "synthetic", np.take_along_axis(z, ids, 1), ids, offsets))
    return found


def width_pairs(traces: Sequence[Trace]) -> list[tuple[Trace, Trace]]:
    """Pairs of models that read the same texts, or all pairs where no two did."""
    pairs = list(combinations(traces, 2))
    alike = [(a, b) for a, b in pairs if a.kind == b.kind]
    return alike or pairs


def measure_width(first: Trace, second: Trace, positions: int, ks: Sequence[int]) -> list[dict[str, Any]]:
    """One row a k: the tails that it drops, the certified distance of the rank graphs, and what both cost.

    With uniform weights 1/k each, GW_2 of rank graphs falls like 1/k while k·GW_2 (the Frobenius distance at the best
    match) settles once the dropped entries no longer matter; both are given.
    """
    rows = []
    count = min(positions, len(first.values), len(second.values))
    for k in ks:
        if k > min(first.width, second.width):
            continue
        begun = time.perf_counter()
        graphs = [trace.rank_graph(k, slice(0, count)) for trace in (first, second)]
        built = time.perf_counter() - begun
        result = distance(Pair(graphs[0], graphs[1]), 2, "standard")
        tails = [1 - trace.values[:count, :k].sum(axis=1) for trace in (first, second)]
        rows.append(
            {
                "first": first.name,
                "second": second.name,
                "k": k,
                "positions": count,
                "tail_first": float(np.clip(tails[0], 0, None).mean()),
                "tail_second": float(np.clip(tails[1], 0, None).mean()),
                "lower": result.lower,
                "upper": result.upper,
                "gap": result.gap,
                "k_times_lower": k * result.lower,
                "k_times_upper": k * result.upper,
                "build_seconds": built,
                "distance_seconds": result.seconds,
                "token_nodes_first": len(np.unique(first.ids[:count, :k])),
                "token_nodes_second": len(np.unique(second.ids[:count, :k])),
                "factor_bytes": float(2 * count * k * 12),
                "proof": result.proof or "",
            }
        )
    return rows


def advice(rows: Sequence[dict[str, Any]], tolerance: float = 0.05) -> int | None:
    """Smallest k whose k·GW interval, at the most positions, is within `tolerance` of the widest k's on every pair."""
    most: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        most.setdefault((row["first"], row["second"]), []).append(row)
    needed = []
    for found in most.values():
        last = max(row["positions"] for row in found)
        curve = sorted((row for row in found if row["positions"] == last), key=lambda row: row["k"])
        end = _middle(curve[-1])
        near = [row["k"] for row in curve if math.isclose(_middle(row), end, rel_tol=tolerance)]
        needed.append(min(near, default=curve[-1]["k"]))
    return max(needed, default=None)


def _middle(row: dict[str, Any]) -> float:
    return (row["k_times_lower"] + row["k_times_upper"]) / 2
