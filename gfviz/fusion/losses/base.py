"""What every distillation loss gets and gives: one pair of signals in, a sum with its own count out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from gfviz.signals import TopKLogits

Unit = Literal["pairs", "examples", "chunks"]


class LossSum(NamedTuple):
    """A loss before its mean: `total` is the sum over `units` units; the trainer divides by the whole batch's units.

    `notes` are detached sums over the same units that are logged beside the loss.
    """

    total: Tensor
    units: Tensor
    notes: dict[str, Tensor]


@dataclass(frozen=True)
class AnswerSignal:
    """One model's signal over the window of answer positions, with the log-probability of its own answer tokens.

    signal: [R, W, k]; token_log_prob: [R, W], the log-probability of each answer token, 0 where the mask is False;
    picks: gives the logits of any vocabulary ids [R, W, m], differentiable, where they were kept.
    """

    signal: TopKLogits
    token_log_prob: Tensor
    picks: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class SignalPair:
    """Student and teacher over the same R examples: all that a loss may read.

    student_at, teacher_at: [R, A] positions (window coordinates) with the same bytes of the answer behind them where
    aligned [R, A]; student_chunks [R, W], teacher_chunks [R, W']: number of the common byte span that each token
    belongs to, −1 for none; chunks [R]: how many; student_log_prob: the student's log-probabilities of any vocabulary
    ids [R, W, m] at its window's positions, differentiable (0 where masked).
    """

    student: AnswerSignal
    teacher: AnswerSignal
    student_at: Tensor
    teacher_at: Tensor
    aligned: Tensor
    student_chunks: Tensor
    teacher_chunks: Tensor
    chunks: Tensor
    student_log_prob: Callable[[Tensor], Tensor]

    def same_width(self) -> "SignalPair":
        """Both signals at the smaller k."""
        k = min(self.student.signal.k, self.teacher.signal.k)
        return replace(
            self,
            student=replace(self.student, signal=self.student.signal.top(k)),
            teacher=replace(self.teacher, signal=self.teacher.signal.top(k)),
        )


class DistillationLoss(Protocol):
    """A loss over a `SignalPair`; `unit` names the denominator that belongs to it, `notes` what it notes beside it."""

    unit: Unit
    notes: tuple[str, ...]

    def __call__(self, pair: SignalPair) -> LossSum:
        """Sum over the units of the pair, differentiable through the student."""
        ...


def units(part: dict[str, Tensor]) -> dict[Unit, Tensor]:
    """How many units of each kind a teacher's part of a batch holds, before any model ran."""
    return {
        "pairs": part["aligned"].sum(),
        # Filled in place: a tensor made from a number waits for a GPU.
        "examples": part["aligned"].new_full((), len(part["rows"]), dtype=torch.int64),
        "chunks": part["chunks"].sum(),
    }


def gather_positions(values: Tensor, at: Tensor) -> Tensor:
    """Rows `at` [R, A] of `values` [R, W, ...]."""
    index = at.reshape(*at.shape, *([1] * (values.dim() - 2))).expand(*at.shape, *values.shape[2:])
    return values.gather(1, index)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum where `mask` holds; what is masked is selected away and never multiplied by zero.

    >>> masked_sum(torch.tensor([1.0, float("nan")]), torch.tensor([True, False])).item()
    1.0
    """
    return torch.where(mask, values, values.new_zeros(())).sum()
