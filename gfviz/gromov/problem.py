"""The pair to be compared, on a common scale, and the objective of the p-th power of GW at a coupling."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.gromov.network import EPS, MeasureNetwork, bilinear, weighted_gram
from gfviz.gromov.sources import Source
from gfviz.gromov.transport import Cheapest, Plan
from gfviz.lazy import sparse as sp

LARGEST_P = 64
_BLOCK = 1 << 21  # entries handled at once in the pairwise objective: 16 MB


class Problem:
    """Two networks scaled by one power of two to a largest entry in [1/4, 1), so that no bound depends on the scale.

    Pairs whose entries are whole multiples of one number (0/1 graphs, counts, at any scale) are divided by it first:
    their ties then are exact, and do not fall another way at every scale.

    Everything inside works on GW_p^p of the scaled pair; `value` turns such a number into GW_p of the original pair.
    """

    def __init__(self, a: Source, b: Source, p: float = 2, weights: Any = None) -> None:
        if not (isinstance(p, (int, float)) and 1 <= p <= LARGEST_P):
            raise GfvizError(f"p = {p!r} is not a number in 1..{LARGEST_P} (higher powers underflow): pass p=2 or p=1")
        if weights is None:
            first, second = None, None
        else:
            try:
                first, second = weights
            except (TypeError, ValueError) as error:
                raise GfvizError("weights must be a pair (p, q), one vector a graph") from error
        raw_a, raw_b = MeasureNetwork.of(a, first, "first"), MeasureNetwork.of(b, second, "second")
        self.unit = common_unit(raw_a, raw_b)
        if self.unit != 1.0:
            raw_a, raw_b = raw_a.divided(self.unit), raw_b.divided(self.unit)
        top = max(raw_a.magnitude, raw_b.magnitude)
        exponent = math.frexp(top)[1] if top > 0 else 0
        self.exponent = exponent + (exponent % 2)
        self.a, self.b = raw_a.scaled(self.exponent), raw_b.scaled(self.exponent)
        self.p = float(p)

    @property
    def dense(self) -> bool:
        return self.a.is_dense and self.b.is_dense

    @cached_property
    def square(self) -> bool:
        """n = m and both weightings uniform."""
        return self.a.n == self.b.n and self.a.uniform and self.b.uniform

    @cached_property
    def psd(self) -> bool:
        return self.a.psd and self.b.psd

    def cheapest(self) -> Cheapest:
        """A solver of transports between the two weightings."""
        return Cheapest(self.a.weights, self.b.weights, self.square)

    @cached_property
    def assignable(self) -> bool:
        """Whether some optimal coupling is a permutation: p = 2, both PSD, n = m, uniform (MATH.md, section 3)."""
        return self.p == 2 and self.square and self.psd

    @cached_property
    def margin(self) -> float:
        """What rounding may have done to a bound on GW_p^p that was computed through cancelling sums."""
        if self.p == 2:
            size = self.a.square_norm + self.b.square_norm
        else:
            size = 2.0 * self.p * max(self.a.magnitude, self.b.magnitude) ** self.p
        # Where weights differ, the steps of quantile functions end at rounded sums: ε of the largest product.
        ends = 0.0 if self.square else 8 * EPS * self.a.magnitude * self.b.magnitude
        return (32 + 4 * math.sqrt(self.a.n + self.b.n)) * EPS * size + ends

    def value(self, power: float) -> float:
        """GW_p in the units of the input from a value of GW_p^p of the scaled pair."""
        if power <= 0:
            return 0.0
        return math.ldexp(math.sqrt(power) if self.p == 2 else power ** (1.0 / self.p), self.exponent) * self.unit

    def power(self, value: float) -> float:
        """Inverse of `value`."""
        return math.ldexp(value / self.unit, -self.exponent) ** self.p

    @cached_property
    def shift(self) -> float:
        """What the root of a bound over permutations loses because arrays are positive semidefinite to rounding only.

        δ on both diagonals makes them so; it changes no permutation's objective, and GW_2 by at most 2δ·‖I‖ = 2δ/√n.
        """
        if not self.assignable:
            return 0.0
        return 2.0 * max(side.psd_shortfall or 0.0 for side in (self.a, self.b)) / math.sqrt(self.a.n)

    def outward_lower(self, power: float) -> float:
        """A lower bound on GW_p^p less what rounding may have done to it."""
        kept = max(0.0, power - self.margin)
        return max(0.0, math.sqrt(kept) - self.shift) ** 2 if self.shift else kept

    # -- the objective -------------------------------------------------------------------------------------------

    def objective(self, plan: Plan) -> tuple[float, float]:
        """(objective of GW_p^p at a sparse coupling, the same rounded up by its own error).

        From the differences themselves where the matrices are dense and the plan has at most 8192 cells (relative
        error of a few ε); else, for p = 2, from the cross Gram with the absolute `margin`.
        """
        if self.dense and (len(plan.rows) <= 8192 or self.p != 2):
            total = self._pairwise(plan)
            return total, total * (1 + 64 * EPS)
        if self.p != 2:
            raise GfvizError(f"p = {self.p:g} needs the matrices themselves, and one has too many nodes: use p = 2")
        total = max(0.0, self.a.square_norm + self.b.square_norm - 2 * self.overlap(plan))
        return total, total + self.margin

    def _pairwise(self, plan: Plan) -> float:
        c, d, power = self.a.dense, self.b.dense, self.p
        step = max(1, _BLOCK // len(plan.rows))
        parts, differs = [], False
        for start in range(0, len(plan.rows), step):
            some = slice(start, start + step)
            gap = c[plan.rows[some]][:, plan.rows] - d[plan.cols[some]][:, plan.cols]
            differs = differs or bool(gap.any())
            gap = gap * gap if power == 2 else np.abs(gap) ** power
            parts.append(float(plan.mass[some] @ (gap @ plan.mass)))
        # Differences too small for their power are not equality: only equal entries give 0.
        return math.fsum(parts) or (sys.float_info.min if differs else 0.0)

    def overlap(self, plan: Plan) -> float:
        """tr(Cᵀ π D πᵀ) = Σ C_ik D_jl π_ij π_kl of a sparse coupling, through factors where there are any."""
        pi = plan.matrix(self.a.n, self.b.n)
        left, right = self.a.z, self.b.z
        if left is not None and right is not None:
            moved = sp.csr_array(left @ pi)
            cross = weighted_gram(moved, np.ones(self.b.n), right)
            return float(np.einsum("tu,tu->", cross, cross))
        if left is not None:
            return _through(_as_sparse(self.b), sp.csr_array(pi.T @ left.T))
        if right is not None:
            return _through(_as_sparse(self.a), sp.csr_array(pi @ right.T))
        carried = sp.csr_array(pi.T @ sp.csr_array(_as_sparse(self.a) @ pi))
        return float((carried * _as_sparse(self.b)).sum())

    def field(self, plan: Plan) -> np.ndarray:
        """(C π D)_ij at the cells of a plan [S], for p = 2."""
        pi = plan.matrix(self.a.n, self.b.n)
        if self.dense:
            return (self.a.dense @ (pi @ self.b.dense))[plan.rows, plan.cols]
        left, right = self.a.z, self.b.z
        if left is not None and right is not None:
            cross = weighted_gram(sp.csr_array(left @ pi), np.ones(self.b.n), right)
            return bilinear(left, plan.rows, cross, right, plan.cols)
        if right is not None:  # (C π Yᵀ) Y
            carried = sp.csr_array(_as_sparse(self.a) @ sp.csr_array(pi @ right.T))
            return _cellwise(carried, plan.rows, sp.csc_array(right), plan.cols)
        if left is not None:  # Zᵀ (Z π D)
            carried = sp.csr_array(sp.csr_array(left @ pi) @ _as_sparse(self.b))
            return _cellwise(sp.csr_array(left.T), plan.rows, sp.csc_array(carried), plan.cols)
        carried = sp.csr_array(sp.csr_array(_as_sparse(self.a) @ pi) @ _as_sparse(self.b))
        return np.asarray(carried[plan.rows, plan.cols]).ravel()

    def misplaced(self, plan: Plan) -> float:
        """Σ |marginals of a plan − weights| over both sides, infinite where it has negative mass or none.

        An external solver at its iteration limit may return any plan, and masses carry rounding.
        """
        if not len(plan.mass) or not (plan.mass >= 0).all():
            return math.inf
        whole = self.square and len(plan.mass) == self.a.n
        if whole and (plan.mass == 1.0 / self.a.n).all() and plan.match() is not None:
            return 0.0  # uniform weights are 1/n by definition
        off = 0.0
        for cells, network in ((plan.rows, self.a), (plan.cols, self.b)):
            off += float(np.abs(np.bincount(cells, plan.mass, network.n) - network.weights).sum())
        return off

    def surcharge(self, misplaced: float) -> float:
        """How much more a true coupling may cost than a plan whose marginals are that much off.

        One lies within 2·misplaced of it (Altschuler, Weed, Rigollet 2017, Lemma 7), so the objective grows by at most
        that mass, twice, times the largest cost of a cell, plus a square: C_ik² <= C_ii C_kk bounds it on PSD graphs.
        """
        if misplaced == 0.0:
            return 0.0
        largest = (self.a.magnitude + self.b.magnitude) ** self.p
        cell = min(largest, 2.0 * sum(side.largest_row for side in (self.a, self.b))) if self.p == 2 else largest
        moved = 2.0 * misplaced
        return moved * (2.0 * cell + moved * largest)


def common_unit(a: MeasureNetwork, b: MeasureNetwork) -> float:
    """The number of which all entries of both matrices are multiples by whole numbers up to 2048, exactly; 1 if none.

    >>> third = MeasureNetwork.of([[0.0, 0.1], [0.1, 0.0]])
    >>> common_unit(third, third), common_unit(third, MeasureNetwork.of([[1.0, 0.25], [0.25, 1.0]]))
    (0.1, 1.0)
    """
    if a.matrix is None or b.matrix is None or not (_commensurable(a.matrix) and _commensurable(b.matrix)):
        return 1.0
    smallest = min((float(np.abs(x[x != 0]).min()) for x in (a.matrix, b.matrix) if x.any()), default=1.0)
    for matrix in (a.matrix, b.matrix):
        if float(np.abs(matrix).max()) > 2048.5 * smallest:
            return 1.0
        # 11 bits times 53 bits are exact in the 64 bits of long double; where it has no more than 53, few products are
        if not (np.rint(matrix / smallest).astype(np.longdouble) * np.longdouble(smallest) == matrix).all():
            return 1.0
    return smallest


def _commensurable(matrix: np.ndarray) -> bool:
    """Whether the first and last entries of the first rows are to each other as whole numbers up to 2048.

    Few other numbers are: a handful of ratios tells without a pass over the matrix.
    """
    for row in matrix[:4]:
        entries = np.abs(row[row != 0])
        if len(entries) > 1:
            ratio = float(min(entries[0], entries[-1]) / max(entries[0], entries[-1]))
            if abs(float(Fraction(ratio).limit_denominator(2048)) - ratio) > 8 * EPS:
                return False
    return True


def _through(matrix: Any, w: sp.csr_array) -> float:
    """Σ_t w_tᵀ M w_t over the columns w_t of [n, T]."""
    return float((sp.csr_array(matrix @ w) * w).sum())


def _cellwise(left: sp.csr_array, rows: np.ndarray, right: sp.csc_array, cols: np.ndarray) -> np.ndarray:
    """left[rows[s], :] · right[:, cols[s]] for each s [S], some thousand at a time."""
    parts = []
    for start in range(0, len(rows), 4096):
        some = slice(start, start + 4096)
        parts.append(np.asarray(left[rows[some]].multiply(sp.csr_array(right[:, cols[some]].T)).sum(axis=1)).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _as_sparse(network: MeasureNetwork) -> Any:
    """C as a sparse matrix; never asked of a network that is held as factors."""
    if network.matrix is not None:
        return sp.csr_array(network.matrix)
    return network.sparse_matrix


@dataclass
class State:
    """What the rungs have found so far; bounds are on GW_p^p of the scaled pair."""

    lower: float = 0.0
    upper: float = math.inf
    lower_rung: str = ""
    upper_rung: str = ""
    plan: Plan | None = None
    proof: str | None = None
    starts: list[Plan] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    deadline: float = math.inf
