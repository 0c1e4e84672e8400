"""The ladder's inner problems beside the libraries that solve them: assignments, transports, and pairwise exchange."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch

from gfviz.bench.measure import Row, make_row, ratio, times
from gfviz.gromov.couplings import swap_match
from gfviz.gromov.transport import Basis, assignment, transport_duals

_CPU = torch.device("cpu")
_POSITIONS = 32


def run(rows: tuple[int, ...], nodes: tuple[int, ...], rounds: int) -> list[Row]:
    """Assignment and transport of one token-like graph's sorted `rows` to another's, and exchange from the identity.

    `nodes` are few: scipy's exchange values every swap from the start, in O(n²), where ours keeps all gains up to date.
    """
    found = [row for n in rows for make in (_assignments, _transports) for row in make(n, rounds)]
    return found + [row for n in nodes for row in _exchange(n, rounds)]


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


def _costs(n: int, m: int) -> np.ndarray:
    """Squared distances of sorted rows, the longer ones cut."""
    width = min(n, m)
    c, d = (-np.sort(-_graph(size, seed), axis=1)[:, :width] for size, seed in ((n, 1), (m, 2)))
    return (c * c).sum(1)[:, None] + (d * d).sum(1)[None, :] - 2 * c @ d.T


def _assignments(n: int, rounds: int) -> list[Row]:
    from scipy.optimize import linear_sum_assignment

    cost = _costs(n, n)
    work: dict[str, Callable[[], object]] = {"ours": lambda: assignment(cost)}
    work["scipy"] = lambda: linear_sum_assignment(cost)
    lap = _lapx(cost)
    if lap is not None:
        work["lapx"] = lap
    work["POT's emd"] = _emd(cost)
    return _rows(f"assignment of {n} rows", times(work, _CPU, rounds))


def _transports(n: int, rounds: int) -> list[Row]:
    """To a quarter more nodes, with weights that differ: from nothing, and from the basis of costs a hundredth off."""
    import ot

    m = n + n // 4
    cost, rng = _costs(n, m), np.random.default_rng(0)
    p, q = (w / w.sum() for w in (rng.random(n) + 0.1, rng.random(m) + 0.1))
    near = Basis()
    transport_duals(cost * (1 + 0.01 * rng.standard_normal(cost.shape)), p, q, near)
    parent, mass = near.parent, near.mass
    assert parent is not None
    assert mass is not None

    def again() -> object:
        near.parent, near.mass = parent.copy(), mass.copy()
        return transport_duals(cost, p, q, near)

    peers: dict[str, Callable[[], object]] = {"POT's emd": lambda: ot.emd(p, q, cost, log=True)}
    cold = times({"ours": lambda: transport_duals(cost, p, q), **peers}, _CPU, rounds)
    warm = times({"ours": again, **peers}, _CPU, rounds)
    label = f"transport of {n} nodes to {m}"
    return _rows(label, cold) + _rows(f"{label}, from a basis near", warm)


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
