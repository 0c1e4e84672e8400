"""Ascent over skew multipliers: `gilmore_lawler` (or `rows`) on a reformulated problem, kept cheap.

For symmetric C, D and antisymmetric A, Σ A_ik D_jl π_ij π_kl = 0 at every coupling, so C may be replaced by C + A in
the correlation of rows without changing the objective, while the bound changes. Likewise D by D − h⊕h with a linear
term 2 r_i h_j (r = C's row sums). The bound is concave in A; its supergradient is the matched entries. n(n−1)/2 + n
multipliers cost one sort and one n×n product an iteration, where the full dual of Hahn and Grant (1998) has n⁴ of them.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field

import numpy as np

from gfviz.gromov import native
from gfviz.gromov.dual import solve
from gfviz.gromov.network import EPS
from gfviz.gromov.rows import off_diagonal
from gfviz.gromov.transport import Plan


class RowSorter:
    """Sorts the rows of matrices that change little from call to call (compiled: insertion from the last order)."""

    def __init__(self) -> None:
        self.order: np.ndarray | None = None

    def sort(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(order into each row, sorted rows)."""
        library = native.library()
        if library is None or self.order is None or self.order.shape != values.shape:
            self.order = np.argsort(values, axis=1, kind="stable").astype(np.int32)
            return self.order, np.take_along_axis(values, self.order, axis=1)
        values = np.ascontiguousarray(values)
        found = np.empty_like(values)
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (values, self.order, found)]
        library.gfviz_resort(*values.shape, *pointers)
        return self.order, found


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
    _sort_x: RowSorter = field(default_factory=RowSorter)
    _sort_y: RowSorter = field(default_factory=RowSorter)

    @classmethod
    def at_zero(cls, c: np.ndarray, d: np.ndarray, held: bool = True) -> SkewDual:
        return cls(c, d, np.zeros_like(c), np.zeros(len(c)), held)

    def evaluate(self, skew: np.ndarray, shift: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """(bound on Σ (C_ik − D_jl)², half its supergradient by skew and by shift, the matching).

        Rounded down by what sums of products of these sizes may have lost: multipliers may be larger than the matrices.
        """
        c, d, held = self.c, self.d, self.held
        n = len(c)
        x, y = c + skew, d - shift[:, None] - shift[None, :]
        if held:
            x, y = off_diagonal(x), off_diagonal(y)
        base = np.arange(n, dtype=np.int32)[:, None] * x.shape[1]
        order_x, sorted_x = self._sort_x.sort(x)
        order_y, sorted_y = self._sort_y.sort(y)
        dc, r = np.diagonal(c), c.sum(axis=1)
        corr = sorted_x @ sorted_y.T
        corr += np.multiply.outer(2 * r, shift)
        if held:
            corr += np.multiply.outer(dc, np.diagonal(d) - 2 * shift)
        u, v, match = solve(-corr)
        value = float(np.vdot(c, c) + np.vdot(d, d) + 2 * (u.sum() + v.sum()))
        sizes = np.linalg.norm(x) * np.linalg.norm(y) + np.linalg.norm(shift) * (
            2 * np.linalg.norm(r) + np.linalg.norm(dc)
        )
        value -= 2 * (n + 16) * EPS * float(sizes)
        back = np.empty(n, dtype=np.int64)
        back[match] = np.arange(n)
        partner = np.empty(x.shape)
        partner.ravel()[order_x + base] = sorted_y[match]
        skew_slope = _with_diagonal(partner) if held else partner.copy()
        skew_slope = skew_slope.T - skew_slope
        partner.ravel()[order_y + base] = sorted_x[back]
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
        for _ in range(iterations):
            value, slope, shift_slope, match = self.evaluate(skew, shift)
            if value > self.value:
                self.value, self.skew, self.shift, self.match = value, skew, shift, match
                stalled = 0
            else:
                stalled += 1
                if stalled >= patience:
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
