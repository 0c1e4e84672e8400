"""Families of graph pairs made from nothing but a seed: what each looks like, and whether it is PSD."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfviz.gromov import GromovResult, gromov_wasserstein

NOISE_LEVELS = (0.0, 0.01, 0.1, 0.5)
"""Noise of the perturbed pairs, relative to each factor entry; 0 is a permuted copy."""


@dataclass(frozen=True)
class Pair:
    """Two graphs to compare: sources for the distance (graphs or arrays), their weights, and how they were made.

    `weights` is None for uniform weights of arrays and the graphs' own; `level` is the noise of a perturbed pair;
    `about` says what the two sides are.
    """

    a: Any
    b: Any
    weights: tuple[np.ndarray, np.ndarray] | None = None
    level: float | None = None
    about: str = ""

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Both matrices, dense."""
        first, second = (x if isinstance(x, np.ndarray) else x.dense() for x in (self.a, self.b))
        return first, second

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Both weight vectors."""
        if self.weights is not None:
            return self.weights
        first, second = (
            np.full(len(x), 1.0 / len(x)) if isinstance(x, np.ndarray) else x.weights for x in (self.a, self.b)
        )
        return first, second


@dataclass(frozen=True)
class Family:
    """A family: its name, what it is in a line, whether its matrices are PSD, and how the i-th pair of size n is made.

    `assignable` families have n = m and uniform weights and are PSD: only there is a permutation optimal.
    """

    name: str
    about: str
    psd: bool
    assignable: bool
    make: Callable[[int, np.random.Generator, int], Pair]
    kind: str = "synthetic"

    def pair(self, n: int, index: int, seed: int) -> Pair:
        """The pair of this number and size: the same for the same seed, whatever else is run."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), n, index])
        return self.make(n, rng, index)


def distance(pair: Pair, p: float, budget: str | float) -> GromovResult:
    """`gromov_wasserstein` of a pair; an interrupt inside it goes on as one."""
    result = gromov_wasserstein(pair.a, pair.b, p=p, budget=budget, weights=pair.weights)
    # The ladder answers an interrupt with what it has; a study must end then.
    if result.note.startswith("interrupted"):
        raise KeyboardInterrupt
    return result


def _gram(z: np.ndarray) -> np.ndarray:
    c = z.T @ z / len(z)
    return (c + c.T) / 2


def _sides(one: Callable[[int, np.random.Generator], np.ndarray]) -> Callable[[int, np.random.Generator, int], Pair]:
    return lambda n, rng, index: Pair(one(n, rng), one(n, rng))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _rank_logits(n: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted logits of 24 positions over a vocabulary of 3n, each position with its own spread."""
    spread = rng.uniform(0.5, 2.0, (24, 1)) * rng.uniform(0.7, 1.4)
    return _gram(-np.sort(-rng.standard_normal((24, 3 * n)) * spread, axis=1)[:, :n])


def _rank_probabilities(n: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted probabilities of 64 positions over a vocabulary of 8n: what "prob" rank graphs hold."""
    spread = np.exp(0.4 * rng.standard_normal((64, 1))) * np.exp(rng.uniform(np.log(1.0), np.log(3.5)))
    return _gram(-np.sort(-_probabilities(rng.standard_normal((64, 8 * n)) * spread), axis=1)[:, :n])


def token_factors(n: int, rng: np.random.Generator, positions: int = 24) -> np.ndarray:
    """[positions, n]: the n // 3 largest probabilities of each position, tokens with Zipf's frequencies, shuffled."""
    logits = rng.standard_normal((positions, n)) * rng.uniform(1.0, 2.5) - np.log(np.arange(1, n + 1))
    z = _probabilities(logits)
    kept = max(2, n // 3)
    smallest = np.argsort(-z, axis=1)[:, kept:]
    np.put_along_axis(z, smallest, 0.0, axis=1)
    return z[:, rng.permutation(n)]


def _dirichlet(n: int, rng: np.random.Generator) -> np.ndarray:
    return _gram(rng.dirichlet(np.full(n, np.exp(rng.uniform(np.log(0.1), np.log(2.0)))), size=2 * n))


def _low_rank(n: int, rng: np.random.Generator) -> np.ndarray:
    return _gram(rng.standard_normal((3, n)) * rng.uniform(0.5, 1.5, (3, 1)))


def _heavy_tailed(n: int, rng: np.random.Generator) -> np.ndarray:
    return _gram(rng.standard_t(2.5, size=(2 * n, n)))


def _blocks(n: int, rng: np.random.Generator) -> np.ndarray:
    """0/1 adjacency of a stochastic block model with two to four groups."""
    groups = int(rng.integers(2, 5))
    member = rng.integers(groups, size=n)
    inside, outside = rng.uniform(0.5, 0.9), rng.uniform(0.05, 0.3)
    chance = np.where(member[:, None] == member[None, :], inside, outside)
    upper = np.triu(rng.random((n, n)) < chance, 1).astype(np.float64)
    return upper + upper.T


def _distances(n: int, rng: np.random.Generator) -> np.ndarray:
    """Euclidean distances of n points around three centres, in two or three dimensions."""
    width = int(rng.integers(2, 4))
    centres = rng.standard_normal((3, width)) * 2
    points = centres[rng.integers(3, size=n)] + rng.standard_normal((n, width)) * rng.uniform(0.2, 1.0)
    gaps = np.sqrt(((points[:, None] - points[None, :]) ** 2).sum(-1))
    return (gaps + gaps.T) / 2


def _perturbed(n: int, rng: np.random.Generator, index: int) -> Pair:
    level = NOISE_LEVELS[index % len(NOISE_LEVELS)]
    z = token_factors(n, rng)
    other = (z * (1 + level * rng.standard_normal(z.shape)))[:, rng.permutation(n)]
    return Pair(_gram(z), _gram(other), level=level, about=f"noise {level:g}")


def _unequal(n: int, rng: np.random.Generator, index: int) -> Pair:
    m = n + max(1, n // 4)
    sides = [_gram(token_factors(size, rng)) for size in (n, m)]
    roots = [np.sqrt(np.diagonal(c)) + 1e-3 for c in sides]
    first, second = (root / root.sum() for root in roots)
    return Pair(sides[0], sides[1], weights=(first, second), about=f"{n} and {m} nodes, weights by mass")


def _token(n: int, rng: np.random.Generator) -> np.ndarray:
    return _gram(token_factors(n, rng))


SYNTHETIC: dict[str, Family] = {
    family.name: family
    for family in (
        Family("rank-logits", "rank graphs of sorted Gaussian logits", True, True, _sides(_rank_logits)),
        Family("rank-probabilities", "rank graphs of sorted probabilities", True, True, _sides(_rank_probabilities)),
        Family("token", "token graphs: sparse Zipf probabilities, shuffled", True, True, _sides(_token)),
        Family(
            "probability", "dense Dirichlet probabilities, every node like every other", True, True, _sides(_dirichlet)
        ),
        Family("low-rank", "Gaussian graphs of rank three", True, True, _sides(_low_rank)),
        Family(
            "heavy-tailed", "Student factors (2.5 degrees): few entries carry all", True, True, _sides(_heavy_tailed)
        ),
        Family("perturbed", "a token graph against its permuted, noisy copy", True, True, _perturbed),
        Family("unequal", "token graphs of unequal size, weighted by mass", True, False, _unequal),
        Family("blocks", "0/1 graphs of a stochastic block model, indefinite", False, False, _sides(_blocks)),
        Family("distances", "Euclidean distances of point clouds, indefinite", False, False, _sides(_distances)),
    )
}
