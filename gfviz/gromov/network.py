"""One side of a Gromov–Wasserstein problem: a symmetric matrix with node weights, however it is stored.

A graph kept as factors (C = ZᵀZ, Z = factors/√positions) is never multiplied out beyond `DENSE_NODES` nodes: all that
the bounds need then comes from Z and T×T Grams.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.graph.products import gram
from gfviz.gromov.sources import (
    Source,
    check_finite,
    check_range,
    checked_matrix,
    checked_weights,
    columns_dense,
    is_graph,
)
from gfviz.lazy import sparse as sp

EPS = float(np.finfo(np.float64).eps)
DENSE_NODES = 4096
"""Above this many active nodes a graph is handled from its factors or its sparse matrix only."""
GRAM_POSITIONS = 6000
"""Above this many positions the T×T Gram of the factors would be larger than the sparse matrix: that is used."""
FULL_SPECTRUM = 1600
"""Above this size of Gram only the leading eigenvalues are computed; the others enter through their norm."""
LEADING = 48
"""How many leading eigenvalues are computed then."""
SPARSE_PRODUCTS = 40_000_000
"""Above this many products ZᵀZ is not even formed sparsely."""


class MeasureNetwork:
    """A weighted symmetric network (C, p), validated, with lazily computed summaries.

    Nodes of zero weight are left out (they change no distance); `support` says which remain. Build it with `of`.
    Exactly one of `matrix` [n, n], `z` csr [T, n] (C = zᵀz) and `sparse_matrix` csr [n, n] is its source.
    """

    def __init__(
        self,
        *,
        size: int,
        support: np.ndarray,
        weights: np.ndarray,
        matrix: np.ndarray | None = None,
        z: sp.csr_array | None = None,
        sparse_matrix: sp.csr_array | None = None,
        psd: bool | None = None,
    ) -> None:
        self.size, self.support, self.weights = size, support, weights
        self.matrix, self.z, self.sparse_matrix = matrix, z, sparse_matrix
        self.n = len(support)
        self._psd = psd

    @classmethod
    def of(cls, source: Source, weights: Any = None, side: str = "first") -> MeasureNetwork:
        """Validate `source` (a graph or a symmetric array [n, n]) and wrap it. Raises `GfvizError` on bad input."""
        if not is_graph(source):
            matrix = checked_matrix(source, side)
            n = len(matrix)
            w = np.full(n, 1.0 / n) if weights is None else checked_weights(weights, n, side)
            keep = np.flatnonzero(w)
            return cls(size=n, support=keep, weights=w[keep], matrix=_among(matrix, keep))
        n = int(source.n)
        if n == 0:
            raise GfvizError(f"the {side} graph is empty: it needs at least one node")
        if source.factors is not None:
            check_range(source, side)
        w = checked_weights(source.weights if weights is None else weights, n, side)
        keep = np.flatnonzero(w)
        if len(keep) <= DENSE_NODES:
            # asked of the graph only where it fits: n is then small, whatever the vocabulary
            matrix = checked_matrix(source.dense() if n <= DENSE_NODES else columns_dense(source, keep), side)
            if n <= DENSE_NODES:
                matrix = _among(matrix, keep)
            # Factors make a Gram matrix; an accumulated one may come from anybody's file and is looked at.
            known = True if source.factors is not None else None
            return cls(size=n, support=keep, weights=w[keep], matrix=matrix, psd=known)
        if source.factors is not None:
            z = sp.csr_array(source.factors, dtype=np.float64)[:, keep] / np.sqrt(float(source.positions))
            check_finite(z, side)
            if z.shape[0] > GRAM_POSITIONS:
                whole = gram(z)
                return cls(size=n, support=keep, weights=w[keep], sparse_matrix=whole, psd=True)
            return cls(size=n, support=keep, weights=w[keep], z=sp.csr_array(z), psd=True)
        if source.accumulated is None:
            raise GfvizError(f"the {side} graph holds neither factors nor an accumulated matrix: build it again")
        acc = sp.csr_array(source.accumulated, dtype=np.float64)[keep][:, keep]
        check_finite(acc, side)
        return cls(size=n, support=keep, weights=w[keep], sparse_matrix=sp.csr_array(acc), psd=False)

    @cached_property
    def magnitude(self) -> float:
        """Largest |C_ik|."""
        if self.matrix is not None:
            return max(float(self.matrix.max()), -float(self.matrix.min()))
        if self.z is not None:
            return float(self.diagonal.max())
        assert self.sparse_matrix is not None
        return float(abs(self.sparse_matrix).max())

    def scaled(self, exponent: int) -> MeasureNetwork:
        """The same network with C·2**-exponent (exact; `exponent` even, so that factors scale exactly too)."""
        if exponent == 0:
            return self

        def times(x: Any, power: int) -> Any:
            return (
                None if x is None else (_times_two(x, power) if isinstance(x, np.ndarray) else _ldexp_sparse(x, power))
            )

        return MeasureNetwork(
            size=self.size,
            support=self.support,
            weights=self.weights,
            matrix=times(self.matrix, -exponent),
            z=times(self.z, -exponent // 2),
            sparse_matrix=times(self.sparse_matrix, -exponent),
            psd=self._psd,
        )

    def divided(self, unit: float) -> MeasureNetwork:
        """The same dense network in whole multiples of `unit`; only where they are (`common_unit`)."""
        whole = np.rint(self.dense / unit)
        return MeasureNetwork(size=self.size, support=self.support, weights=self.weights, matrix=whole, psd=self._psd)

    @property
    def is_dense(self) -> bool:
        return self.matrix is not None

    @property
    def dense(self) -> np.ndarray:
        """C [n, n]; only where `is_dense`."""
        if self.matrix is None:
            raise GfvizError(f"a graph of {self.n} nodes is not multiplied out: use a bound that works from factors")
        return self.matrix

    @cached_property
    def uniform(self) -> bool:
        return bool(np.ptp(self.weights) <= 8 * EPS * self.weights[0])

    @cached_property
    def psd(self) -> bool:
        """Whether C is positive semidefinite up to rounding (n·ε of the spectral norm). Factors prove it; a sparse
        matrix too large for its eigenvalues counts as indefinite, which costs bounds and proves nothing false."""
        if self._psd is not None:
            return self._psd
        return self.psd_shortfall is not None

    @cached_property
    def psd_shortfall(self) -> float | None:
        """What would have to be added to the diagonal so that C is positive semidefinite beyond the rounding of its
        eigenvalues: 0 where factors prove it, None where it is more than rounding."""
        if self._psd is not None:
            return 0.0 if self._psd else None
        # A Cholesky factorisation that runs to its end shows it (Rump 2006), several times faster than eigenvalues do.
        added = 2 * float(np.sqrt(self.n)) * EPS * float(np.linalg.norm(self.dense))
        for shift in (-added, added):
            if _factorises(self.dense, shift):
                return max(0.0, 2 * shift)
        eigenvalues = np.linalg.eigvalsh(self.dense)
        size = float(np.abs(eigenvalues).max())
        if eigenvalues[0] < -8 * self.n * EPS * size:
            return None
        return max(0.0, 8 * float(np.sqrt(self.n)) * EPS * size - float(eigenvalues[0]))

    @cached_property
    def diagonal(self) -> np.ndarray:
        if self.matrix is not None:
            return np.diagonal(self.matrix).copy()
        if self.z is not None:
            return np.asarray((self.z * self.z).sum(axis=0)).ravel()
        assert self.sparse_matrix is not None
        return self.sparse_matrix.diagonal()

    @cached_property
    def scores(self) -> np.ndarray:
        """s_t = Σ_k p_k z_tk [T]; only from factors."""
        assert self.z is not None
        return self.z @ self.weights

    @cached_property
    def row_means(self) -> np.ndarray:
        """f = C p [n]."""
        if self.matrix is not None:
            return self.matrix @ self.weights
        if self.z is not None:
            return self.z.T @ self.scores
        assert self.sparse_matrix is not None
        return self.sparse_matrix @ self.weights

    @cached_property
    def mean(self) -> float:
        """c̄ = pᵀ C p."""
        return float(self.weights @ self.row_means)

    @cached_property
    def centred_means(self) -> np.ndarray:
        """a = f − c̄ [n]."""
        return self.row_means - self.mean

    @cached_property
    def gram(self) -> np.ndarray:
        """Z diag(p) Zᵀ [T, T]; only from factors."""
        assert self.z is not None
        return weighted_gram(self.z, self.weights, self.z)

    @cached_property
    def square_norm(self) -> float:
        """‖C‖² = Σ p_i p_k C_ik²."""
        if self.matrix is not None:
            return float(self.weights @ (self.matrix * self.matrix) @ self.weights)
        if self.z is not None:
            return float(np.einsum("tu,tu->", self.gram, self.gram))
        assert self.sparse_matrix is not None
        return float(self.weights @ ((self.sparse_matrix * self.sparse_matrix) @ self.weights))

    @cached_property
    def row_square_means(self) -> np.ndarray:
        """Σ_k p_k C_ik² [n]; from factors z_iᵀ (Z diag(p) Zᵀ) z_i."""
        if self.matrix is not None:
            return (self.matrix * self.matrix) @ self.weights
        if self.z is not None:
            everything = np.arange(self.n)
            return bilinear(self.z, everything, self.gram, self.z, everything)
        assert self.sparse_matrix is not None
        return (self.sparse_matrix * self.sparse_matrix) @ self.weights

    @cached_property
    def largest_row(self) -> float:
        """At least max_i Σ_k p_k C_ik², from the diagonal alone where C is known to be PSD."""
        if self._psd:
            return float(self.diagonal.max() * (self.weights @ self.diagonal)) * (1 + 1e-12)
        return float(self.row_square_means.max())

    @cached_property
    def rest(self) -> np.ndarray:
        """√p R √p [n, n], R the double-centred rest of C; only where `is_dense`."""
        a, root = self.centred_means, np.sqrt(self.weights)
        found = self.dense - self.mean
        found -= a[:, None]
        found -= a[None, :]
        found *= root[:, None]
        found *= root[None, :]
        return found

    @cached_property
    def rest_square_norm(self) -> float:
        """‖R‖², clipped at 0."""
        if self.matrix is not None:
            return float(np.einsum("ik,ik->", self.rest, self.rest))
        if self.z is not None:
            centred = self.gram - self.scores[:, None] * self.scores[None, :]
            return float(np.einsum("tu,tu->", centred, centred))
        a = self.centred_means
        return max(0.0, self.square_norm - self.mean**2 - 2 * float(self.weights @ (a * a)))

    @cached_property
    def rest_spectrum(self) -> tuple[np.ndarray, float]:
        """(eigenvalues of √p R √p, norm of those left out): all of them, or the `LEADING` largest of a large PSD
        one."""
        if self.matrix is not None:
            return np.linalg.eigvalsh(self.rest), 0.0
        if self.z is not None:
            centred = self.gram - self.scores[:, None] * self.scores[None, :]
            if len(centred) <= FULL_SPECTRUM:
                return np.maximum(np.linalg.eigvalsh(centred), 0.0), 0.0
            return self._leading(len(centred), lambda v: centred @ v)
        root, a, c = np.sqrt(self.weights), self.centred_means, self.sparse_matrix
        assert c is not None

        def apply(v: np.ndarray) -> np.ndarray:
            u = root * v.ravel()
            return root * (c @ u - a * u.sum() - (a + self.mean) @ u)

        return self._leading(self.n, apply)

    def _leading(self, size: int, apply: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, float]:
        from scipy.sparse.linalg import LinearOperator, eigsh  # here, because importing it takes a tenth of a second

        start = np.ones(size) + np.arange(size) / size
        operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
        values = eigsh(operator, k=LEADING, which="LA", v0=start, return_eigenvectors=False)
        values = np.maximum(values, 0.0)
        # Never exactly 0, which says that no eigenvalue was left out.
        left_out = max(np.finfo(np.float64).tiny, self.rest_square_norm - float(values @ values))
        return values, float(np.sqrt(left_out))

    @cached_property
    def products(self) -> float:
        """How many numbers the sparse C takes to list: products zᵀz from factors, stored entries else."""
        if self.z is not None:
            return float((np.diff(self.z.indptr).astype(np.float64) ** 2).sum())
        return float(self.n**2) if self.sparse_matrix is None else float(self.sparse_matrix.nnz)

    @property
    def stored(self) -> int:
        """Numbers that the source holds: entries of the matrix, or stored ones."""
        held = self.z if self.z is not None else self.sparse_matrix
        return self.n * self.n if held is None else int(held.nnz)

    @cached_property
    def sparse(self) -> sp.csr_array | None:
        """C as a sparse matrix where that is affordable, else None; only where not `is_dense`."""
        if self.sparse_matrix is not None:
            return self.sparse_matrix
        if self.z is None or not self.listable:
            return None
        return sp.csr_array(self.z.T @ self.z)

    @property
    def listable(self) -> bool:
        """Whether the entries of C are at hand, or few enough to multiply out."""
        return self.z is None or self.products <= SPARSE_PRODUCTS


def weighted_gram(left: sp.csr_array, weights: np.ndarray, right: sp.csr_array) -> np.ndarray:
    """left diag(weights) rightᵀ as a dense [T, U] array: columns that most rows share by BLAS, the others sparsely."""
    counts = np.bincount(left.indices, minlength=left.shape[1])
    heavy = np.flatnonzero(counts > max(8, left.shape[0] // 16))
    heavy = heavy[np.argsort(-counts[heavy], kind="stable")[:2048]]
    light = np.ones(left.shape[1], dtype=bool)
    light[heavy] = False
    total = (left[:, heavy].toarray() * weights[heavy]) @ right[:, heavy].toarray().T
    thin = sp.csr_array(left[:, light] * weights[light][None, :]) @ sp.csr_array(right[:, light]).T
    total += thin.toarray()
    return total


def bilinear(
    left: sp.csr_array, rows: np.ndarray, middle: np.ndarray, right: sp.csr_array, cols: np.ndarray
) -> np.ndarray:
    """left[:, rows[s]]ᵀ middle right[:, cols[s]] for each s [S], some thousand columns at a time."""
    by_left, by_right = sp.csc_array(left), sp.csc_array(right)
    step = max(1, (1 << 22) // max(1, middle.shape[0]))
    parts = []
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        carried = (by_right[:, cols[some]].T @ middle.T).T
        parts.append(np.asarray(by_left[:, rows[some]].multiply(carried).sum(axis=0)).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _among(matrix: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return matrix if len(keep) == len(matrix) else matrix[np.ix_(keep, keep)]


def _factorises(matrix: np.ndarray, shift: float) -> bool:
    shifted = matrix.copy()
    shifted.flat[:: len(matrix) + 1] += shift
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def _times_two(x: np.ndarray, power: int) -> np.ndarray:
    """x·2**power, rounded once: a product wherever the power itself is a number, which is ten times faster."""
    return x * 2.0**power if abs(power) < 1000 else np.ldexp(x, power)


def _ldexp_sparse(matrix: sp.csr_array, power: int) -> sp.csr_array:
    return sp.csr_array((_times_two(matrix.data, power), matrix.indices, matrix.indptr), shape=matrix.shape)
