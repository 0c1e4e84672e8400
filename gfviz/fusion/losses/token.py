"""Losses that compare position by position, or byte span by byte span."""

import torch
from torch import Tensor

from gfviz.fusion.losses.base import LossSum, SignalPair, Unit, gather_positions, masked_sum


class UniversalLogitDistillation:
    """ULD (arXiv 2402.12030): Σ_i |p_s↓(i) − p_t↓(i)| over the kept probabilities of each aligned pair.

    Notes `tail_low`, `tail_high`: the interval that holds the full-vocabulary value,
    [top-k + |tail_s − tail_t|, top-k + tail_s + tail_t]. O(A·k).
    """

    unit: Unit = "pairs"
    notes: tuple[str, ...] = ("tail_low", "tail_high")

    def __call__(self, pair: SignalPair) -> LossSum:
        pair = pair.same_width()
        ours = gather_positions(pair.student.signal.probs(), pair.student_at)
        theirs = gather_positions(pair.teacher.signal.probs(), pair.teacher_at)
        # Signals come sorted: the i-th largest of one faces the i-th largest of the other.
        total = masked_sum((ours - theirs).abs().sum(-1), pair.aligned)
        with torch.no_grad():
            tail = gather_positions(pair.student.signal.tail_mass().detach(), pair.student_at)
            other = gather_positions(pair.teacher.signal.tail_mass(), pair.teacher_at)
            low = total.detach() + masked_sum((tail - other).abs(), pair.aligned)
            high = total.detach() + masked_sum(tail + other, pair.aligned)
        return LossSum(total, pair.aligned.sum(), {"tail_low": low, "tail_high": high})


class ForwardKL:
    """KL(teacher ‖ student) at aligned pairs of models with one vocabulary.

    Over the teacher's kept ids, and one more outcome for all that it dropped: a lower bound of the full divergence, by
    the data-processing inequality. O(A·k) and one gather from the student's logits.
    """

    unit: Unit = "pairs"
    notes: tuple[str, ...] = ()

    def __call__(self, pair: SignalPair) -> LossSum:
        signal = pair.teacher.signal
        ids = _at_student(signal.ids, pair)
        ours = gather_positions(pair.student_log_prob(ids), pair.student_at)
        theirs = gather_positions(signal.log_probs(), pair.teacher_at)
        target = theirs.exp()
        kept = torch.where(target > 0, target * (theirs - ours), target.new_zeros(()))
        tail = gather_positions(signal.tail_mass(), pair.teacher_at)
        rest = log_complement(torch.logsumexp(ours, -1).clamp(max=-_TINY))
        dropped = torch.where(tail > _TINY, tail * (tail.clamp_min(_TINY).log() - rest), tail.new_zeros(()))
        return LossSum(masked_sum(kept.sum(-1) + dropped, pair.aligned), pair.aligned.sum(), {})


class ApproximateLikelihoodMatching:
    """ALM (arXiv 2503.20083): likelihoods of the same byte span under both models, compared as binary distributions.

    KL between (P, 1 − P) of the teacher and of the student, P = likelihood^(1/temperature) of the span. O(W).
    """

    unit: Unit = "chunks"
    notes: tuple[str, ...] = ()

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, pair: SignalPair) -> LossSum:
        # A span holds a token of both sides: their number is bounded without a look at the data.
        count = min(pair.student_chunks.shape[1], pair.teacher_chunks.shape[1])
        ours = _chunk_sums(pair.student.token_log_prob, pair.student_chunks, count) / self.temperature
        theirs = _chunk_sums(pair.teacher.token_log_prob, pair.teacher_chunks, count) / self.temperature
        exists = torch.arange(count, device=ours.device) < pair.chunks.unsqueeze(1)
        ours, theirs = ours.clamp(max=-_TINY), theirs.clamp(max=-_TINY)
        target = theirs.exp()
        # A span that the teacher holds for impossible: P·log P is 0 in the limit, and not 0 times −∞.
        given = torch.where(target > 0, target * (theirs - ours), target.new_zeros(()))
        divergence = given + (1 - target) * (log_complement(theirs) - log_complement(ours))
        return LossSum(masked_sum(divergence, exists), pair.chunks.sum(), {})


# Probabilities are kept this far from 0 and 1 where a logarithm of them or of their complement is taken.
_TINY = 1e-6


def log_complement(log_prob: Tensor) -> Tensor:
    """log(1 − exp(x)) for x < 0, by the form that keeps its digits (expm1 near 0, log1p far from it).

    >>> round(log_complement(torch.tensor(-0.5)).item(), 6)
    -0.932752
    """
    near = log_prob > -0.693
    # Both branches are differentiated: each must be finite where the other is taken.
    close = (-torch.expm1(torch.where(near, log_prob, -torch.ones_like(log_prob)))).log()
    far = torch.log1p(-torch.where(near, -torch.ones_like(log_prob), log_prob).exp())
    return torch.where(near, close, far)


def _chunk_sums(log_prob: Tensor, chunks: Tensor, count: int) -> Tensor:
    inside = chunks >= 0
    values = torch.where(inside, log_prob, log_prob.new_zeros(()))
    return values.new_zeros(len(chunks), count).scatter_add(1, torch.where(inside, chunks, 0), values)


def _at_student(ids: Tensor, pair: SignalPair) -> Tensor:
    """The teacher's ids [R, W', k] moved to the student's window [R, W, k]; 0 where there is no pair."""
    moved = ids.new_zeros(len(ids), pair.student.signal.mask.shape[1], ids.shape[2])
    found = torch.where(pair.aligned.unsqueeze(-1), gather_positions(ids, pair.teacher_at), 0)
    # Unaligned entries all point at index 0: added, their zeros change nothing there.
    return moved.scatter_add(1, pair.student_at.unsqueeze(-1).expand_as(found), found)
