"""Closed-form lower bounds on GW_p^p: `sorted`, `centred`, `spectral`, `entries` (MATH.md, section 3)."""

from __future__ import annotations

import math

import numpy as np

from gfviz.gromov.network import EPS, MeasureNetwork
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import wasserstein_power
from gfviz.lazy import sparse as sp


def sorted_bound(problem: Problem) -> float:
    """W_p^p of the row means (the paper's approximation; Jensen; Mémoli's first lower bound on mean rows)."""
    a, b = problem.a, problem.b
    return wasserstein_power(a.row_means, a.weights, b.row_means, b.weights, problem.p)


def _means_part(problem: Problem) -> float:
    a, b = problem.a, problem.b
    spread = wasserstein_power(a.centred_means, a.weights, b.centred_means, b.weights, 2)
    return (a.mean - b.mean) ** 2 + 2 * spread


def centred_bound(problem: Problem) -> float:
    """(c̄ − d̄)² + 2 W₂²(a, b) + (‖R‖ − ‖S‖)², p = 2."""
    a, b = problem.a, problem.b
    return _means_part(problem) + (np.sqrt(a.rest_square_norm) - np.sqrt(b.rest_square_norm)) ** 2


def spectral_bound(problem: Problem) -> float:
    """`centred` with Σ (λ_i − μ_i)² in place of the norm term, p = 2; see `spectrum_distance`."""
    return _means_part(problem) + spectrum_distance(problem.a, problem.b)


def spectrum_distance(a: MeasureNetwork, b: MeasureNetwork) -> float:
    """Σ (λ_i − μ_i)² of the rests' eigenvalues: positive against positive, negative against negative, zero-padded.

    Where only leading eigenvalues are known, the others enter as the distance of their norms (Cauchy–Schwarz).
    """
    (left, left_rest), (right, right_rest) = a.rest_spectrum, b.rest_spectrum
    slack = _rest_slack(a, left_rest) + _rest_slack(b, right_rest)
    if left_rest or right_rest:
        size = min(len(left) if left_rest else len(left) + 1, len(right) if right_rest else len(right) + 1)
        left, left_rest = _cut(left, left_rest, size)
        right, right_rest = _cut(right, right_rest, size)
    return _padded(left, right, 1) + _padded(left, right, -1) + max(0.0, abs(left_rest - right_rest) - slack) ** 2


def _rest_slack(network: MeasureNetwork, rest: float) -> float:
    """How far rounding may have moved a rest's norm: it is the root of a difference of squares, which cancels."""
    if rest == 0:
        return 0.0
    error = 64 * EPS * math.sqrt(network.n) * network.square_norm
    return math.sqrt(rest**2 + error) - math.sqrt(max(0.0, rest**2 - error))


def _cut(values: np.ndarray, rest: float, size: int) -> tuple[np.ndarray, float]:
    values = np.sort(values)[::-1]
    return values[:size], float(np.sqrt(rest**2 + float(values[size:] @ values[size:])))


def _padded(left: np.ndarray, right: np.ndarray, sign: int) -> float:
    x, y = (np.sort(np.maximum(sign * v, 0.0))[::-1] for v in (left, right))
    size = max(len(x), len(y))
    gap = np.pad(x, (0, size - len(x))) - np.pad(y, (0, size - len(y)))
    return float(gap @ gap)


def entries_bound(problem: Problem) -> float:
    """W_p^p of the distributions of all entries; dense assignable pairs: diagonal and off-diagonal entries apart."""
    a, b, p = problem.a, problem.b, problem.p
    if problem.assignable and problem.dense:
        n = a.n
        upper = np.triu_indices(n, 1)
        x, y = np.sort(a.dense[upper]), np.sort(b.dense[upper])
        dx, dy = np.sort(a.diagonal), np.sort(b.diagonal)
        return float((2 * ((x - y) @ (x - y)) + (dx - dy) @ (dx - dy)) / n**2)
    return wasserstein_power(*_entry_distribution(a), *_entry_distribution(b), p)


def _entry_distribution(network: MeasureNetwork) -> tuple[np.ndarray, np.ndarray]:
    w = network.weights
    if network.is_dense:
        rows, cols = np.triu_indices(network.n)
        mass = w[rows] * w[cols] * np.where(rows == cols, 1.0, 2.0)
        return network.dense[rows, cols], mass / mass.sum()
    c = network.sparse
    assert c is not None
    rows, cols, listed = sp_coo(sp.csr_array(sp.triu(c)))
    mass = w[rows] * w[cols] * np.where(rows == cols, 1.0, 2.0)
    values = np.append(listed, 0.0)
    mass = np.append(mass, max(0.0, 1.0 - float(mass.sum())))
    return values, mass / mass.sum()


def sp_coo(matrix: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, column, value) of the stored entries."""
    coo = matrix.tocoo()  # type: ignore[attr-defined]
    return coo.row, coo.col, coo.data


def apriori_excess(network: MeasureNetwork, p: float) -> float:
    """δ_p(C)^p = Σ_ik p_i p_k |C_ik − f_C(i)|^p; for p = 2 from ‖C‖² and the row means alone."""
    w, f = network.weights, network.row_means
    if p == 2:
        return max(0.0, network.square_norm - float(w @ (f * f)))
    gap = np.abs(network.dense - f[:, None]) ** p
    return float(w @ gap @ w)
