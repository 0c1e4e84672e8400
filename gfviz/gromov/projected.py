"""The quadratic-programming bound: `spectral` made a convex program over couplings (p = 2, any weights).

With √p R √p = U diag(λ) Uᵀ, √q S √q = W diag(μ) Wᵀ and X̃ = Uᵀ (π_ij / √(p_i q_j)) W, the identity of MATH.md section 3
reads (c̄ − d̄)² + ‖λ‖² + ‖μ‖² + 2 E_π(a_i − b_j)² − 2 Σ λ_i μ_j X̃_ij². X̃ is a contraction, so potentials s, t <= 0 with
s_i + t_j <= −2 λ_i μ_j give Σ (s_i + t_j) X̃_ij² >= Σ s + Σ t; what is left, Σ q_ij X̃_ij² with
q_ij = −2 λ_i μ_j − s_i − t_j >= 0, is convex in π. Frank–Wolfe minimises it, and each of its linearisations is a bound.
After Anstreicher and Brixius (Mathematical Programming 89, 2001), whose assignment form has equalities instead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from gfviz.gromov.network import EPS
from gfviz.gromov.problem import Problem
from gfviz.gromov.transport import Plan


def potentials(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(s, t), both <= 0: s_i + t_j <= −2 λ_i μ_j, with Σ s + Σ t the value of the best pairing of the spectra.

    That pairing is the one of `spectral`: positive against positive and negative against negative, sorted, zero-padded.
    """
    s, t = np.zeros(len(left)), np.zeros(len(right))
    for sign in (1.0, -1.0):
        x, y = np.maximum(sign * left, 0.0), np.maximum(sign * right, 0.0)
        rows, cols = np.argsort(-x, kind="stable"), np.argsort(-y, kind="stable")
        size = max(len(x), len(y)) + 1
        x, y = (np.pad(v, (0, size - len(v))) for v in (x[rows], y[cols]))
        middle_y, middle_x = y[:-1] + y[1:], x[:-1] + x[1:]
        down = -np.cumsum((middle_y * (x[:-1] - x[1:]))[::-1])[::-1]
        up = -np.cumsum((middle_x * (y[:-1] - y[1:]))[::-1])[::-1]
        s[rows] += down[: len(rows)]
        t[cols] += up[: len(cols)]
    return s, t


@dataclass
class ProjectedProgram:
    """Where the minimisation stands: the best bound on GW_2² so far, and the coupling [n, m] it linearises at next."""

    problem: Problem
    bound: float
    coupling: np.ndarray

    def __init__(self, problem: Problem) -> None:
        self.problem, self.bound = problem, -np.inf
        a, b = problem.a, problem.b
        (left, self._u), (right, self._w) = np.linalg.eigh(a.rest), np.linalg.eigh(b.rest)
        s, t = potentials(left, right)
        q = -2.0 * np.multiply.outer(left, right) - s[:, None] - t[None, :]
        short = max(0.0, -float(q.min()))  # what rounding left of q >= 0, paid for Σ X̃² <= min(n, m) times
        self._q = np.maximum(q, 0.0)
        size = min(a.n, b.n)
        norms = float(left @ left + right @ right)
        self._constant = (a.mean - b.mean) ** 2 + norms + float(s.sum() + t.sum()) - size * short
        self._constant -= 16 * EPS * size * norms
        self._linear = 2.0 * (a.centred_means[:, None] - b.centred_means[None, :]) ** 2
        self._root = np.sqrt(np.multiply.outer(a.weights, b.weights))
        self.coupling = np.multiply.outer(a.weights, b.weights)
        self._cheapest = problem.cheapest()

    def _turned(self, coupling: np.ndarray) -> np.ndarray:
        return self._u.T @ (coupling / self._root) @ self._w

    def descend(self, steps: int, target: float, deadline: float = np.inf, floor: float = -np.inf) -> Plan:
        """At least one and up to `steps` Frank–Wolfe steps: the last vertex.

        Fewer where the bound reaches `target`, or where the program's own value is down at `floor`: no bound that these
        steps could still give lies above that value.
        """
        q = self._q
        turned = self._turned(self.coupling)
        for _ in range(max(1, steps)):
            weighted = q * turned
            slope = 2.0 * (self._u @ weighted @ self._w.T) / self._root + self._linear
            low = float(slope.min())
            vertex, least = self._cheapest.solve(slope - low)
            value = float(np.vdot(weighted, turned) + np.vdot(self._linear, self.coupling))
            fall = float(np.vdot(slope, self.coupling)) - (least + low)
            self.bound = max(self.bound, self._constant + value - fall)
            if self.bound >= target or self._constant + value <= floor or time.perf_counter() > deadline:
                break
            step = -self.coupling
            step[vertex.rows, vertex.cols] += vertex.mass
            moved = self._turned(step)
            curve = float(np.vdot(q * moved, moved))
            pace = min(1.0, fall / (2.0 * curve)) if curve > 0 else 1.0
            self.coupling += pace * step
            turned += pace * moved
        return vertex
