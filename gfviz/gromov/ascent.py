"""Ascent over skew multipliers: `gilmore_lawler` (or `rows`) on a reformulated problem, kept cheap.

For symmetric C, D and antisymmetric A, Σ A_ik D_jl π_ij π_kl = 0 at every coupling, so C may be replaced by C + A in
the correlation of rows without changing the objective, while the bound changes. Likewise D by D − h⊕h with a linear
term 2 r_i h_j (r = C's row sums). The bound is concave in A; its supergradient is the matched entries. n(n−1)/2 + n
multipliers cost one sort and one n×n product an iteration, where the full dual of Hahn and Grant (1998) has n⁴ of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from gfviz.compiled import pointers
from gfviz.gromov import native
from gfviz.gromov.dual import solve
from gfviz.gromov.network import EPS
from gfviz.gromov.rows import off_diagonal
from gfviz.gromov.transport import Plan

_HOPELESS = 12
"""First steps that all gain nothing before an ascent ends: so on 0/1 graphs, where no later one does either."""


@dataclass
class SkewDual:
    """Where an ascent stands: multipliers of the best bound, its value (Σ over pairs, not divided by n²), the step.

    `held` holds the diagonal entry of row i on that of row j: for assignable pairs only. Without it the bound is that
    of `rows`, for any symmetric pair of equal size and uniform weights (p = 2).
    """

    c: np.ndarray
    d: np.ndarray
    skew: np.ndarray
    shift: np.ndarray
    held: bool = True
    value: float = -np.inf
    match: np.ndarray | None = None
    step: float = 0.25
    _first: float = -np.inf
    _compiled: _CompiledStep | None = None

    @classmethod
    def at_zero(cls, c: np.ndarray, d: np.ndarray, held: bool = True) -> SkewDual:
        return cls(c, d, np.zeros_like(c), np.zeros(len(c)), held)

    def evaluate(self, skew: np.ndarray, shift: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """(bound on Σ (C_ik − D_jl)², half its supergradient by skew and by shift, the matching).

        Rounded down by what sums of products of these sizes may have lost: multipliers may be larger than the matrices.
        """
        if native.library() is not None:
            self._compiled = self._compiled or _CompiledStep(self.c, self.d, self.held)
            return self._compiled.evaluate(skew, shift)
        return self.evaluate_twin(skew, shift)

    def evaluate_twin(self, skew: np.ndarray, shift: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """`evaluate` in numpy: the same bound, possibly at another (equally optimal) matching."""
        c, d, held = self.c, self.d, self.held
        n = len(c)
        x, y = c + skew, d - shift[:, None] - shift[None, :]
        if held:
            x, y = off_diagonal(x), off_diagonal(y)
        order_x, order_y = np.argsort(x, axis=1, kind="stable"), np.argsort(y, axis=1, kind="stable")
        sorted_x, sorted_y = np.take_along_axis(x, order_x, axis=1), np.take_along_axis(y, order_y, axis=1)
        dc, r = np.diagonal(c), c.sum(axis=1)
        corr = sorted_x @ sorted_y.T
        corr += np.multiply.outer(2 * r, shift)
        if held:
            corr += np.multiply.outer(dc, np.diagonal(d) - 2 * shift)
        u, v, match = solve(-corr)
        value = _rounded_down(c, d, float(u.sum() + v.sum()), (sorted_x, sorted_y), (shift, r, dc))
        back = np.empty(n, dtype=np.int64)
        back[match] = np.arange(n)
        partner = np.empty(x.shape)
        np.put_along_axis(partner, order_x, sorted_y[match], axis=1)
        skew_slope = _with_diagonal(partner) if held else partner.copy()
        skew_slope = skew_slope.T - skew_slope
        np.put_along_axis(partner, order_y, sorted_x[back], axis=1)
        pulled = _with_diagonal(partner) if held else partner
        shift_slope = pulled.sum(axis=1) + pulled.sum(axis=0) - 2 * r[back]
        if held:
            shift_slope += 2 * dc[back]
        return value, skew_slope, shift_slope, match

    def ascend(self, iterations: int, target: float, deadline: float = np.inf) -> None:
        """Polyak steps with momentum towards `target` (an upper bound on the same scale), keeping the best bound."""
        skew, shift = self.skew, self.shift
        heavy_skew, heavy_shift = np.zeros_like(skew), np.zeros_like(shift)
        stalled, patience = 0, max(3, iterations // 40)
        for made in range(iterations):
            value, slope, shift_slope, match = self.evaluate(skew, shift)
            if self.value == -np.inf:
                self._first = value
            if value > self.value:
                self.value, self.skew, self.shift, self.match = value, skew, shift, match
                stalled = 0
            else:
                stalled += 1
                if stalled >= patience:
                    self.step, stalled = 0.7 * self.step, 0
            if value >= target or time.perf_counter() > deadline:
                break
            if made + 1 == _HOPELESS and self.value == self._first:
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


class _CompiledStep:
    """`SkewDual.evaluate`, compiled: rows are sorted from the order of last time, and rows assigned from its prices."""

    def __init__(self, c: np.ndarray, d: np.ndarray, held: bool) -> None:
        n = len(c)
        self.c, self.d, self.held = np.ascontiguousarray(c), np.ascontiguousarray(d), held
        self.sums, self.diagonals = c.sum(axis=1), (np.diagonal(c).copy(), np.diagonal(d).copy())
        width = n - 1 if held else n
        self.sorted = np.empty((n, width)), np.empty((n, width))
        self.orders: tuple[np.ndarray, np.ndarray] | None = None
        self.prices, self.match = np.zeros(n), np.empty(n, dtype=np.int32)
        self.work, self.links = np.empty(n * n + 11 * n), np.empty(4 * n, dtype=np.int32)

    def _order(self, matrix: np.ndarray) -> np.ndarray:
        if self.held:
            matrix = matrix.copy()
            np.fill_diagonal(matrix, np.inf)
        order = np.argsort(matrix, axis=1, kind="stable")[:, : self.sorted[0].shape[1]]
        return np.ascontiguousarray(order, dtype=np.int32)

    def evaluate(self, skew: np.ndarray, shift: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """As `SkewDual.evaluate`."""
        library, n = native.library(), len(self.c)
        assert library is not None
        skew, shift = np.ascontiguousarray(skew), np.ascontiguousarray(shift)
        if self.orders is None:
            self.orders = self._order(self.c + skew), self._order(self.d - shift[:, None] - shift[None, :])
        rows = (self.c, self.d, skew, shift, *self.orders, *self.sorted, self.work)
        library.gfviz_skew_rows(n, int(self.held), *pointers(*rows))
        corr = self.sorted[0] @ self.sorted[1].T
        slopes = np.empty((n, n)), np.empty(n)
        known = (corr, self.sums, *self.diagonals, shift, *self.orders, *self.sorted, self.prices, self.match)
        solved = library.gfviz_skew_solve(n, int(self.held), *pointers(*known, *slopes, self.work, self.links))
        value = _rounded_down(self.c, self.d, solved, self.sorted, (shift, self.sums, self.diagonals[0]))
        return value, *slopes, self.match.astype(np.int64)


def _rounded_down(
    c: np.ndarray, d: np.ndarray, solved: float, rows: tuple[np.ndarray, ...], linear: tuple[np.ndarray, ...]
) -> float:
    x, y, shift, r, dc = (float(np.linalg.norm(each)) for each in (*rows, *linear))
    value = float(np.vdot(c, c) + np.vdot(d, d)) + 2 * solved
    return value - 2 * (len(c) + 16) * EPS * (x * y + shift * (2 * r + dc))


def _with_diagonal(off: np.ndarray) -> np.ndarray:
    n = len(off)
    full = np.zeros((n, n))
    full.ravel()[1:].reshape(n - 1, n + 1)[:, :-1] = off.reshape(n - 1, n)
    return full
