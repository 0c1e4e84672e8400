"""Ascent over skew multipliers: Gilmore–Lawler on a reformulated problem, kept cheap.

For symmetric C, D and antisymmetric A, Σ A_ik D_jl π_ij π_kl = 0 at every coupling, so C may be replaced by C + A in
the correlation of rows without changing the objective, while the bound changes. Likewise D by D − h⊕h with a linear
term 2 r_i h_j (r = C's row means). The bound is concave in A; its supergradient is the matched entries. n(n−1)/2 + n
multipliers cost one sort and one n×n product an iteration, where the full dual of Hahn and Grant (1998) has n⁴ of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from gfviz.gromov.rows import off_diagonal
from gfviz.gromov.transport import Plan, assignment


@dataclass
class SkewDual:
    """Where an ascent stands: multipliers of the best bound, its value (Σ over pairs, not divided by n²), the step."""

    c: np.ndarray
    d: np.ndarray
    skew: np.ndarray
    shift: np.ndarray
    value: float = -np.inf
    match: np.ndarray | None = None
    step: float = 0.25

    @classmethod
    def at_zero(cls, c: np.ndarray, d: np.ndarray) -> SkewDual:
        return cls(c, d, np.zeros_like(c), np.zeros(len(c)))

    def evaluate(self, skew: np.ndarray, shift: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """(bound on Σ (C_ik − D_jl)², its supergradient by skew and by shift, the matching) on an assignable pair."""
        c, d = self.c, self.d
        n = len(c)
        x, y = off_diagonal(c + skew), off_diagonal(d - shift[:, None] - shift[None, :])
        base = np.arange(n)[:, None] * (n - 1)
        order_x, order_y = np.argsort(x, axis=1), np.argsort(y, axis=1)
        order_x += base
        order_y += base
        sorted_x, sorted_y = x.ravel()[order_x], y.ravel()[order_y]
        dc, r = np.diagonal(c), c.sum(axis=1)
        corr = sorted_x @ sorted_y.T
        corr += np.outer(dc, np.diagonal(d) - 2 * shift)
        corr += np.outer(2 * r, shift)
        match = assignment(-corr)
        value = float((c * c).sum() + (d * d).sum() - 2 * corr[np.arange(n), match].sum())
        back = np.empty(n, dtype=np.int64)
        back[match] = np.arange(n)
        partner = np.empty((n, n - 1))
        partner.ravel()[order_x] = sorted_y[match]
        skew_slope = _with_diagonal(partner)
        skew_slope = skew_slope.T - skew_slope
        partner.ravel()[order_y] = sorted_x[back]
        pulled = _with_diagonal(partner)
        shift_slope = pulled.sum(axis=1) + pulled.sum(axis=0) + 2 * dc[back] - 2 * r[back]
        return value, skew_slope, shift_slope, match

    def ascend(self, iterations: int, target: float, deadline: float = np.inf) -> None:
        """Polyak steps with momentum towards `target` (an upper bound on the same scale), keeping the best bound."""
        skew, shift = self.skew, self.shift
        heavy_skew, heavy_shift = np.zeros_like(skew), np.zeros_like(shift)
        stalled = 0
        for _ in range(iterations):
            value, slope, shift_slope, match = self.evaluate(skew, shift)
            if value > self.value:
                self.value, self.skew, self.shift, self.match = value, skew, shift, match
                stalled = 0
            else:
                stalled += 1
                if stalled >= 4:
                    self.step, stalled = 0.7 * self.step, 0
            if value >= target or time.perf_counter() > deadline:
                break
            heavy_skew = 0.6 * heavy_skew + slope
            heavy_shift = 0.6 * heavy_shift + shift_slope
            length = float(np.vdot(heavy_skew, heavy_skew) + heavy_shift @ heavy_shift)
            if length == 0.0:
                break
            pace = self.step * (target - value) / length
            skew = skew + pace * heavy_skew
            shift = shift + pace * heavy_shift

    def plan(self) -> Plan | None:
        return None if self.match is None else Plan.permutation(self.match)


def _with_diagonal(off: np.ndarray) -> np.ndarray:
    n = len(off)
    full = np.zeros((n, n))
    full.ravel()[1:].reshape(n - 1, n + 1)[:, :-1] = off.reshape(n - 1, n)
    return full
