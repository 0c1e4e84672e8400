"""Synthetic graphs of several families, brute-force oracles, and a minimal graph object for the distance's tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


def rank_matrix(n: int, rng: np.random.Generator, positions: int = 24) -> np.ndarray:
    """C of sorted logits, "zscore" in spirit: dense, smooth, nearly ordered."""
    logits = -np.sort(-rng.standard_normal((positions, 3 * n)) * rng.uniform(0.5, 2.0, (positions, 1)), axis=1)[:, :n]
    return logits.T @ logits / positions


def token_factors(n: int, rng: np.random.Generator, positions: int = 24, k: int | None = None) -> np.ndarray:
    """Z [T, n] of probabilities with k non-zeros a row, Zipf-like columns."""
    k = k or max(1, n // 3)
    logits = rng.standard_normal((positions, n)) * 1.5 - np.log(np.arange(1, n + 1))
    kept = np.argsort(-logits, axis=1)[:, :k]
    z = np.zeros((positions, n))
    e = np.exp(logits)
    np.put_along_axis(z, kept, np.take_along_axis(e / e.sum(1, keepdims=True), kept, 1), 1)
    return z


def token_matrix(n: int, rng: np.random.Generator) -> np.ndarray:
    z = token_factors(n, rng)
    permutation = rng.permutation(n)
    return (z.T @ z / len(z))[np.ix_(permutation, permutation)]


def probability_matrix(n: int, rng: np.random.Generator) -> np.ndarray:
    z = rng.dirichlet(np.ones(n) * 0.4, size=2 * n)
    return z.T @ z / (2 * n)


FAMILIES = {"rank": rank_matrix, "token": token_matrix, "probability": probability_matrix}


def psd(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random PSD matrix of any rank from 1 to n, of one of the families or plain Gaussian."""
    pick = int(rng.integers(4))
    if pick < 3:
        return list(FAMILIES.values())[pick](n, rng)
    z = rng.standard_normal((int(rng.integers(1, n + 2)), n))
    return z.T @ z


def symmetric(n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((n, n))
    return x + x.T


def brute_force(c: np.ndarray, d: np.ndarray, p: float = 2) -> float:
    """GW_p restricted to permutations, from the definition."""
    n = len(c)
    every = np.array(list(itertools.permutations(range(n))))
    moved = d[every[:, :, None], every[:, None, :]]
    return float(((np.abs(c - moved) ** p).sum(axis=(1, 2)).min() / n**2) ** (1 / p))


def definition(c: np.ndarray, d: np.ndarray, plan: np.ndarray, p: float = 2) -> float:
    """Σ |C_ik − D_jl|^p π_ij π_kl, term by term."""
    tensor = np.abs(c[:, None, :, None] - d[None, :, None, :]) ** p
    return float(np.einsum("ijkl,ij,kl->", tensor, plan, plan))


def replicate(c: np.ndarray, counts: list[int]) -> np.ndarray:
    at = np.repeat(np.arange(len(c)), counts)
    return c[np.ix_(at, at)]


def random_plan(p: np.ndarray, q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A coupling of p and q by Sinkhorn scaling of a random matrix."""
    plan = rng.random((len(p), len(q))) + 0.05
    for _ in range(500):
        plan *= (p / plan.sum(1))[:, None]
        plan *= (q / plan.sum(0))[None, :]
    return plan


@dataclass
class FactorGraph:
    """The graph interface that distances read, and nothing else."""

    factors: sp.csr_array | None
    weights: np.ndarray
    positions: int
    accumulated: sp.csr_array | None = None

    @property
    def n(self) -> int:
        return len(self.weights)

    def row_means(self) -> np.ndarray:
        return self.dense() @ self.weights

    def dense(self) -> np.ndarray:
        if self.factors is not None:
            return (self.factors.T @ self.factors).toarray() / self.positions
        return self.accumulated.toarray()


def factor_graph(n: int, rng: np.random.Generator, positions: int = 24, mass: bool = False) -> FactorGraph:
    z = sp.csr_array(token_factors(n, rng, positions))
    w = np.asarray(np.sqrt((z * z).sum(axis=0))).ravel() if mass else np.ones(n)
    w = w + (w == 0) * 1e-3
    return FactorGraph(z, w / w.sum(), positions)
