"""Losses that compare graph with graph (GLD): one graph per example, never one per batch (MATH.md sections 3 and 4).

Every value is in counting measure: the paper's sum for `sorted`, n² times the bound on GW_2² for the others. Dividing
by the number of nodes would change nothing for rank graphs but the size of β, and would reward an `anchored` student
for spreading its mass over more tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.fusion.losses.base import AnswerSignal, LossSum, SignalPair, Unit
from gfviz.fusion.losses.disagreement import known_size, own_numbers, squared_difference, token_nodes
from gfviz.gromov.batched import GraphSummary, Kind, lower_bound
from gfviz.signals import TopKLogits

MAX_DENSE_RANKS = 128


def _lengths(signal: TopKLogits) -> Tensor:
    return signal.mask.sum(-1).clamp_min(1).to(signal.logsumexp.dtype)


def rank_graphs(signal: TopKLogits, normalize: str) -> Tensor:
    """C = (1/T) Σ_t z_t z_tᵀ of each example's rank graph, [R, k, k]. O(R·W·k²)."""
    z = signal.normalized(normalize).to(signal.logsumexp.dtype)
    return z.transpose(1, 2) @ z / _lengths(signal)[:, None, None]


def row_means(signal: TopKLogits, normalize: str) -> Tensor:
    """f_C of each example's rank graph, [R, k], uniform weights, without the graph: (1/T) Σ_t s_t z_t. O(R·W·k)."""
    z = signal.normalized(normalize).to(signal.logsumexp.dtype)
    return (z * z.mean(-1, keepdim=True)).sum(1) / _lengths(signal)[:, None]


class SortedGLD:
    """The paper's structure loss: Σ_i |f_C↓(i) − f_D↓(i)| between the sorted row means. O(R·W·k)."""

    unit: Unit = "examples"
    notes: tuple[str, ...] = ()

    def __init__(self, normalize: str = "prob") -> None:
        self.normalize = normalize

    def __call__(self, pair: SignalPair) -> LossSum:
        pair = pair.same_width()
        ours, theirs = (
            row_means(side.signal, self.normalize).sort(dim=-1, descending=True).values
            for side in (pair.student, pair.teacher)
        )
        return _per_example((ours - theirs).abs().sum(-1))


class DenseGLD:
    """A lower bound of GW_2² between rank graphs, times k², from the dense k × k graphs. Bounds: see `BOUNDS`."""

    unit: Unit = "examples"
    notes: tuple[str, ...] = ()

    def __init__(self, bound: Callable[[Tensor, Tensor], Tensor], normalize: str = "prob") -> None:
        self.bound = bound
        self.normalize = normalize

    def __call__(self, pair: SignalPair) -> LossSum:
        pair = pair.same_width()
        if pair.student.signal.k > MAX_DENSE_RANKS:
            raise GfvizError(
                f"loss.k: {pair.student.signal.k} ranks are too many for this loss: use k <= {MAX_DENSE_RANKS}"
            )
        ours, theirs = (rank_graphs(side.signal, self.normalize) for side in (pair.student, pair.teacher))
        # NaN comes out where it went in, but no solver for eigenvalues may see it: it would raise.
        sound = (torch.isfinite(ours) & torch.isfinite(theirs)).all(-1).all(-1)
        ours, theirs = (torch.where(sound[:, None, None], graphs, 0.0) for graphs in (ours, theirs))
        return _per_example(torch.where(sound, self.bound(ours, theirs), torch.nan))


def centred_bound(ours: Tensor, theirs: Tensor) -> Tensor:
    """k²·[(c̄ − d̄)² + 2·W₂²(a, b) + (‖R‖ − ‖S‖)²] of graphs [R, k, k] (MATH.md section 3, `centred`). O(R·k²)."""
    return _counted(ours, theirs, "centred")


def spectral_bound(ours: Tensor, theirs: Tensor) -> Tensor:
    """As `centred_bound`, its last term Σ_i (λ_i − μ_i)² of the spectra. O(R·k³)."""
    # eigvalsh's gradient needs no differences of eigenvalues: equal ones (a rank-one graph's zeros) do no harm.
    return _counted(ours, theirs, "spectral")


def entries_bound(ours: Tensor, theirs: Tensor) -> Tensor:
    """k²·W₂² between all entries, diagonal and off-diagonal apart (MATH.md section 3). O(R·k² log k)."""
    return _counted(ours, theirs, "entries")


def _counted(ours: Tensor, theirs: Tensor, kind: Kind) -> Tensor:
    # The formulas are those of the batched bounds; here they are in counting measure.
    first, second = (GraphSummary.from_graph(graphs, (kind,)) for graphs in (ours, theirs))
    return ours.shape[-1] ** 2 * lower_bound(first, second, kind)


BOUNDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "centred": centred_bound,
    "spectral": spectral_bound,
    "entries": entries_bound,
}


class AnchoredGLD:
    """Token graphs at the coupling that matches equal tokens: Σ_ij (C_ij − D_ij)² over the shared tokens.

    What is not shared is compared sorted: Σ_i (F_C↓(i) − F_D↓(i))² of its row sums. `student_map` [V_s] and
    `teacher_map` [V_t] give the number of the shared token that an id stands for, −1 for none. No n × n matrix (see
    `squared_difference`). O(R·(W²·k + V)).
    """

    unit: Unit = "examples"
    notes: tuple[str, ...] = ()

    def __init__(self, student_map: Tensor, teacher_map: Tensor, normalize: str = "prob") -> None:
        self.maps = (student_map, teacher_map)
        self.tokens = int(max(student_map.max(), teacher_map.max())) + 1
        self.normalize = normalize

    def __call__(self, pair: SignalPair) -> LossSum:
        sides = (pair.student, pair.teacher)
        home = pair.aligned.device
        self.maps = tuple(table.to(home, non_blocking=True) for table in self.maps)  # type: ignore[assignment]
        shared = [table[side.signal.ids] for table, side in zip(self.maps, sides)]
        known = [(numbers >= 0) & side.signal.mask.unsqueeze(-1) for numbers, side in zip(shared, sides)]
        z = [side.signal.normalized(self.normalize).to(side.signal.logsumexp.dtype) for side in sides]
        # Each position's factor carries 1/√T, so that Grams are those of C itself.
        z = [values / _lengths(side.signal).sqrt()[:, None, None] for values, side in zip(z, sides)]
        nodes, count = token_nodes(shared, known, self.tokens)
        kept = [torch.where(inside, values, values.new_zeros(())) for values, inside in zip(z, known)]
        value = squared_difference(kept[0], kept[1].detach(), nodes[0], nodes[1], count)
        return _per_example(value + self._unshared(sides, z, known))

    def _unshared(self, sides: tuple[AnswerSignal, AnswerSignal], z: list[Tensor], known: list[Tensor]) -> Tensor:
        outside = [~inside & side.signal.mask.unsqueeze(-1) for side, inside in zip(sides, known)]
        found = [
            own_numbers([side.signal.ids], [here], len(table)) for side, table, here in zip(sides, self.maps, outside)
        ]
        bounds = [min(len(table), side.signal.ids[0].numel()) for side, table in zip(sides, self.maps)]
        width = max(known_size(counts.max(), bound) for (_, counts), bound in zip(found, bounds))
        first, second = (
            _sorted_sums(values * values.sum(-1, keepdim=True), here, numbers, width)
            for values, here, ((numbers,), _) in zip(z, outside, found)
        )
        return (first - second).square().sum(-1)


def _sorted_sums(entries: Tensor, inside: Tensor, numbers: Tensor, width: int) -> Tensor:
    """Sums of [R, W, k] on each example's own `numbers` below `width`, where inside, descending [R, width].

    Zeros, where an example has fewer, are sorted among them: their number makes no difference then.
    """
    places = torch.where(inside, numbers, width).flatten(1)
    sums = entries.new_zeros(len(entries), width + 1).scatter_add(1, places, entries.flatten(1))
    return sums[:, :width].sort(-1, descending=True).values


def _per_example(values: Tensor) -> LossSum:
    return LossSum(values.sum(), values.new_full((), len(values)), {})
