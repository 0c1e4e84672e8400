"""Differentiable bounds on batches of rank graphs, in torch: any device, float32 or float64, uniform weights, p = 2.

A graph's spectrum and sorts are computed once (`GraphSummary`) and compared with many partners. The numpy rungs are the
certified twins; here nothing is rounded outward. The gradient of a sorted quantity is that of its matched pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gfviz.errors import GfvizError

Kind = Literal["sorted", "centred", "spectral", "entries"]
KINDS: tuple[Kind, ...] = ("sorted", "centred", "spectral", "entries")


@dataclass(frozen=True)
class GraphSummary:
    """What the bounds read of a batch of graphs [B, n, n] of equal size and uniform weights, computed lazily once.

    `graph` [B, n, n]; `order` and `means` [B, n]: nodes by ascending row mean, and those means. Build it with
    `from_factors` or `from_graph`; pick the parts that a bound needs by naming its `kinds`.
    """

    graph: Tensor
    order: Tensor
    means: Tensor
    rest_norm: Tensor | None
    spectrum: Tensor | None
    diagonal: Tensor | None
    off_diagonal: Tensor | None

    @classmethod
    def from_factors(cls, z: Tensor, mask: Tensor | None = None, kinds: tuple[Kind, ...] = KINDS) -> GraphSummary:
        """C = (1/T) Σ_t z_t z_tᵀ of normalised signals z [B, T, n] over the positions where `mask` [B, T] holds.

        Masked positions are replaced before they are multiplied, so they may hold NaN. Raises `GfvizError` where a
        sequence has no position left.
        """
        if z.dim() != 3:
            raise GfvizError(f"signals have shape {tuple(z.shape)}: pass [B, T, n]")
        if mask is None:
            return cls.from_graph(z.transpose(1, 2) @ z / z.shape[1], kinds)
        if mask.shape != z.shape[:2] or not bool(mask.any(dim=1).all()):
            raise GfvizError("the mask must be [B, T] and keep at least one position of every sequence")
        kept = torch.where(mask[..., None], z, torch.zeros((), dtype=z.dtype, device=z.device))
        count = mask.sum(dim=1).to(z.dtype)[:, None, None]
        return cls.from_graph(kept.transpose(1, 2) @ kept / count, kinds)

    @classmethod
    def from_graph(cls, graph: Tensor, kinds: tuple[Kind, ...] = KINDS) -> GraphSummary:
        """From symmetric matrices [B, n, n]. O(n²) a graph; `entries` O(n² log n), `spectral` O(n³)."""
        if graph.dim() != 3 or graph.shape[1] != graph.shape[2] or graph.shape[1] == 0:
            raise GfvizError(f"graphs have shape {tuple(graph.shape)}: pass [B, n, n] with n >= 1")
        unknown = set(kinds) - set(KINDS)
        if unknown:
            raise GfvizError(f"no bound is called {sorted(unknown)[0]!r}: choose {', '.join(KINDS)}")
        n = graph.shape[1]
        row = graph.mean(dim=2)
        means, order = row.sort(dim=1)
        rest_norm = spectrum = diagonal = off = None
        if "centred" in kinds or "spectral" in kinds:
            # Half the grand mean with each row mean: two passes over the matrix instead of four.
            half = row - row.mean(dim=1, keepdim=True) / 2
            rest = graph - (half[:, :, None] + half[:, None, :])
            if "centred" in kinds:
                rest_norm = _norm(rest) / n
            if "spectral" in kinds:
                spectrum = torch.linalg.eigvalsh(rest) / n
        if "entries" in kinds:
            upper = torch.triu_indices(n, n, 1, device=graph.device)
            diagonal = graph.diagonal(dim1=1, dim2=2).sort(dim=1).values
            off = graph[:, upper[0], upper[1]].sort(dim=1).values
        return cls(graph, order, means, rest_norm, spectrum, diagonal, off)

    def detach(self) -> GraphSummary:
        """The same numbers without gradients: a teacher's, kept for many steps."""
        return GraphSummary(*(None if x is None else x.detach() for x in self._fields()))  # type: ignore[arg-type]

    def _fields(self) -> tuple[Tensor | None, ...]:
        return (
            self.graph,
            self.order,
            self.means,
            self.rest_norm,
            self.spectrum,
            self.diagonal,
            self.off_diagonal,
        )


def lower_bound(a: GraphSummary, b: GraphSummary, kind: Kind) -> Tensor:
    """Lower bounds on GW_2² [B] (no root: it has no gradient at 0) of pairs of graphs of equal size; B may broadcast.

    `sorted`, `centred`, `spectral` and `entries` of MATH.md section 3; `entries` splits the diagonal off and so, like
    the permutations it bounds, holds for PSD graphs, which graphs of factors are. Raises `GfvizError` where sizes
    differ or a summary was built without what `kind` needs.
    """
    n = a.means.shape[1]
    if b.means.shape[1] != n:
        raise GfvizError(f"graphs of {n} and {b.means.shape[1]} nodes: cut both to the smaller k first")
    if kind == "sorted":
        return (a.means - b.means).square().mean(dim=1)
    if kind == "entries":
        gap = _needed(a.off_diagonal, kind) - _needed(b.off_diagonal, kind)
        own = _needed(a.diagonal, kind) - _needed(b.diagonal, kind)
        return (2 * gap.square().sum(dim=1) + own.square().sum(dim=1)) / n**2
    left, right = a.means.mean(dim=1, keepdim=True), b.means.mean(dim=1, keepdim=True)
    spread = ((a.means - left) - (b.means - right)).square().mean(dim=1)
    shared = (left - right).square().squeeze(1) + 2 * spread
    if kind == "centred":
        return shared + (_needed(a.rest_norm, kind) - _needed(b.rest_norm, kind)).square()
    if kind == "spectral":
        x, y = _needed(a.spectrum, kind), _needed(b.spectrum, kind)
        # ascending spectra of equal length: positive parts are aligned at the top, negative ones at the bottom
        return (
            shared
            + (x.clamp(min=0) - y.clamp(min=0)).square().sum(dim=1)
            + (x.clamp(max=0) - y.clamp(max=0)).square().sum(dim=1)
        )
    raise GfvizError(f"no bound is called {kind!r}: choose {', '.join(KINDS)}")


def sorted_upper_bound(a: GraphSummary, b: GraphSummary) -> Tensor:
    """The p = 2 objective [B] at the coupling that sorts the row means: an upper bound on GW_2². O(n²) a pair."""
    left, right = (_permuted(side.graph, side.order) for side in (a, b))
    return (left - right).square().mean(dim=(1, 2))


def _permuted(graph: Tensor, order: Tensor) -> Tensor:
    n = graph.shape[1]
    by_row = graph.gather(1, order[:, :, None].expand(-1, -1, n))
    return by_row.gather(2, order[:, None, :].expand(-1, n, -1))


def _norm(x: Tensor) -> Tensor:
    # The norm's slope is 0/0 at 0 (one-row graphs, constant ones): take 0 there.
    square = x.square().sum(dim=(1, 2))
    safe = torch.where(square > 0, square, torch.ones_like(square))
    return torch.where(square > 0, safe.sqrt(), torch.zeros_like(square))


def _needed(part: Tensor | None, kind: str) -> Tensor:
    if part is None:
        raise GfvizError(f"a summary was built without {kind!r}: name it among its kinds")
    return part
