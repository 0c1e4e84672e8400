"""The ladder's inner problems beside the libraries that solve them: assignments, and pairwise exchange."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch

from gfviz.bench.measure import Row, make_row, ratio, times
from gfviz.gromov.couplings import swap_match
from gfviz.gromov.transport import assignment

_CPU = torch.device("cpu")
_POSITIONS = 32


def run(rows: tuple[int, ...], nodes: tuple[int, ...], rounds: int) -> list[Row]:
    """Assignment of one graph's sorted `rows` to another's, and exchange from the identity, on token-like graphs.

    `nodes` are few: scipy's exchange values every swap from the start, in O(n²), where ours keeps all gains up to date.
    """
    return [row for n in rows for row in _assignments(n, rounds)] + [row for n in nodes for row in _exchange(n, rounds)]


def _graph(n: int, seed: int) -> np.ndarray:
    """Probabilities of n tokens with Zipf's frequencies at some positions, the tokens in any order."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((_POSITIONS, n)) * 2 - np.log(np.arange(1, n + 1))
    z = np.exp(logits - logits.max(1, keepdims=True))
    z = (z / z.sum(1, keepdims=True))[:, rng.permutation(n)]
    return z.T @ z / _POSITIONS


def _rows(label: str, seconds: dict[str, list[float]]) -> list[Row]:
    own = seconds.pop("ours")
    return [
        make_row(
            f"gw · {label} against {peer} (ratio: {peer} / ours)",
            1000 * statistics.median(own),
            "ms",
            peer=1000 * statistics.median(found),
            ratio=ratio(found, own),
        )
        for peer, found in seconds.items()
    ]


def _assignments(n: int, rounds: int) -> list[Row]:
    from scipy.optimize import linear_sum_assignment

    c, d = np.sort(_graph(n, 1), axis=1), np.sort(_graph(n, 2), axis=1)
    cost = (c * c).sum(1)[:, None] + (d * d).sum(1)[None, :] - 2 * c @ d.T
    work: dict[str, Callable[[], object]] = {"ours": lambda: assignment(cost)}
    work["scipy"] = lambda: linear_sum_assignment(cost)
    lap = _lapx(cost)
    if lap is not None:
        work["lapx"] = lap
    work["POT's emd"] = _emd(cost)
    return _rows(f"assignment of {n} rows", times(work, _CPU, rounds))


def _lapx(cost: np.ndarray) -> Callable[[], object] | None:
    try:
        import lap
    except ImportError:
        return None
    return lambda: lap.lapjv(cost)


def _emd(cost: np.ndarray) -> Callable[[], object]:
    import ot

    p = ot.unif(len(cost))
    return lambda: ot.emd(p, p, cost)


def _exchange(n: int, rounds: int) -> list[Row]:
    from scipy.optimize import quadratic_assignment

    c, d = _graph(n, 1), _graph(n, 2)
    start = np.arange(n)
    guess = {"maximize": True, "partial_guess": np.column_stack([start, start]), "rng": np.random.default_rng(0)}
    work: dict[str, Callable[[], object]] = {
        "ours": lambda: swap_match(c, d, start),
        "scipy's 2opt": lambda: quadratic_assignment(c, d, method="2opt", options=guess),
    }
    return _rows(f"exchange of {n} nodes until no swap gains", times(work, _CPU, rounds))
