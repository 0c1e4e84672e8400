"""total = (1 − λ)·SFT + λ·Σ_m w_m·(TOKEN_m + β·GLD_m): which losses a configuration asks for, and their sum."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gfviz.fusion.config import Control, FusionConfig, Schedule, TeacherConfig, value_at
from gfviz.fusion.losses import (
    BOUNDS,
    AnchoredGLD,
    AnswerSignal,
    ApproximateLikelihoodMatching,
    DenseGLD,
    DistillationLoss,
    ForwardKL,
    LossSum,
    SignalPair,
    SortedGLD,
    Unit,
    UniversalLogitDistillation,
    masked_sum,
)
from gfviz.fusion.losses import units as units_of
from gfviz.fusion.teachers import SignalSource, one_hot, signal_is_finite, stand_in
from gfviz.signals import TopKLogits

Counts = dict[str, Tensor]


@dataclass
class TeacherTerm:
    """One teacher's share of the loss: where its signal comes from, what is made of it, how heavy it is."""

    source: SignalSource
    weight: float
    token: DistillationLoss | None
    structure: DistillationLoss | None
    beta: float | Schedule
    control: Control = "none"

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.source.name


@dataclass
class TermValue:
    """The loss of a batch with its parts: scalars that are shares of the whole accumulated batch's means."""

    total: Tensor
    parts: dict[str, Tensor]
    finite: dict[str, Tensor]


def make_token_loss(kind: str, config: FusionConfig) -> DistillationLoss | None:
    """The token loss that a configuration names."""
    if kind == "uld":
        return UniversalLogitDistillation()
    if kind == "alm":
        return ApproximateLikelihoodMatching(config.loss.alm_temperature)
    return ForwardKL() if kind == "kl" else None


def make_structure_loss(kind: str, normalize: str, maps: tuple[Tensor, Tensor] | None) -> DistillationLoss | None:
    """The structure loss that a configuration names; `maps` of the shared tokens for `anchored`."""
    if kind == "sorted":
        return SortedGLD(normalize)
    if kind in BOUNDS:
        return DenseGLD(BOUNDS[kind], normalize)
    if kind == "anchored" and maps is not None:
        return AnchoredGLD(*maps, normalize)
    return None


def chosen_losses(config: FusionConfig, teacher: TeacherConfig) -> tuple[str, str, float | Schedule]:
    """Token loss, structure loss and β of one teacher: its own where it names them, else the run's."""
    return (
        teacher.token if teacher.token is not None else config.loss.token,
        teacher.structure if teacher.structure is not None else config.loss.structure,
        teacher.beta if teacher.beta is not None else config.loss.beta,
    )


class Objective:
    """The loss of a fusion; holds no model but the teachers' and no state but the balance of gradients."""

    def __init__(self, lam: float | Schedule, terms: list[TeacherTerm], balance: bool = False) -> None:
        self.lam = lam
        self.terms = terms
        self.balance = balance
        self.scales: dict[str, float] = {}
        self._norms: Tensor | None = None
        self.processes = 1
        self.across: Callable[[Tensor], Tensor] = lambda values: values

    def counts(self, batches: list[dict[str, Any]], device: torch.device | None = None) -> Counts:
        """Denominators over several batches, each loss its own: label tokens; per teacher pairs, examples, spans.

        On `device`, the batches' own if none is given.
        """
        device = batches[0]["student"]["mask"].device if device is None else device
        found: Counts = {"sft": sum_tensors([batch["student"]["mask"].sum() for batch in batches], device)}
        for term in self.terms:
            parts = [batch["teachers"][term.name] for batch in batches if term.name in batch["teachers"]]
            for unit in ("pairs", "examples", "chunks"):
                values = [units_of(part)[unit] for part in parts]  # type: ignore[index]
                found[f"{term.name}/{unit}"] = sum_tensors(values, device)
        return found

    def __call__(
        self,
        student: AnswerSignal,
        plain: Tensor,
        logits: Tensor,
        batch: Mapping[str, Any],
        counts: Counts,
        progress: float,
        measure: bool = False,
    ) -> TermValue:
        """The batch's share of the loss at `progress` in [0, 1] of the run.

        `plain` [B, W] are the student's log-probabilities of the answer tokens at temperature 1, for SFT; `student` is
        at the distillation's temperature; both were made of `logits` [B, W, V]. `measure` adds the batch's share to the
        norms that `rebalance` reads. `finite` of the result is by who produced the value; a teacher that was not finite
        gives NaN among the parts, and to the total only what a `stand_in` gives.
        """
        lam = value_at(self.lam, progress)
        sft = -masked_sum(plain, student.signal.mask) / counts["sft"].clamp_min(1)
        parts = {"loss/sft": sft.detach()}
        finite: dict[str, Tensor] = {}
        total = sft if lam == 0 else (1 - lam) * sft
        norms = sft.new_zeros(len(self.terms), 2)
        if lam > 0:
            for number, term in enumerate(self.terms):
                if term.name in batch["teachers"]:
                    means, sound = self._term(term, student, batch, counts, parts)
                    finite[f"teacher {term.name}"] = sound
                    beta = value_at(term.beta, progress) * self.scales.get(term.name, 1.0)
                    for role, mean in means.items():
                        total = total + lam * term.weight * (beta if role == "structure" else 1.0) * mean
                else:
                    means, sound = {}, torch.ones_like(sft, dtype=torch.bool)
                    if self.processes > 1:
                        term.source.idle()
                        # Metrics are summed over the processes in one exchange: all must hold the same names.
                        parts.update(dict.fromkeys(_names(term), sft.new_zeros(())))
                if measure:
                    norms[number] = torch.where(sound, _norms(term, means, sft, logits), torch.nan)
            if measure:
                # Shares of one mean over different logits: their squared lengths add up, however the step is cut.
                self._norms = norms if self._norms is None else self._norms + norms
        value = total.detach()
        every = torch.stack(list(finite.values())).all() if finite else torch.isfinite(value)
        parts["loss/total"] = torch.where(every, value, torch.nan)
        finite["the pivot's loss"] = torch.isfinite(value)
        return TermValue(total, parts, finite)

    def _term(
        self,
        term: TeacherTerm,
        student: AnswerSignal,
        batch: Mapping[str, Any],
        counts: Counts,
        parts: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], Tensor]:
        part = batch["teachers"][term.name]
        found = term.source.signals(part)
        sound = signal_is_finite(found)
        # The step is dropped, but not before its losses ran: eigenvalues of NaN would end the run instead.
        found = stand_in(found, sound)
        if term.control == "one-hot":
            found = one_hot(found, part["model"]["labels"])
        pair = make_pair(student, found, part)
        means: dict[str, Tensor] = {}
        for role, loss in (("token", term.token), ("structure", term.structure)):
            if loss is None:
                continue
            result = loss(pair)
            mean = _mean(result, counts[f"{term.name}/{loss.unit}"])
            shown = {role: mean.detach()}
            for note, amount in result.notes.items():
                shown[note] = amount / counts[f"{term.name}/{loss.unit}"].clamp_min(1)
            for name, value in shown.items():
                parts[f"loss/{term.name}/{name}"] = torch.where(sound, value, torch.nan)
            means[role] = mean
        return means, sound

    def rebalance(self, progress: float) -> None:
        """Scale each structure loss so that β times its gradient (by the logits) is as long as the yardstick's.

        After a step whose batches were measured, with that step's progress; in every process. Else it does nothing.
        """
        if self._norms is None:
            return
        norms, self._norms = self.across(self._norms).sqrt().tolist(), None
        for term, (yardstick, own) in zip(self.terms, norms):
            beta = value_at(term.beta, progress)
            if 0 < yardstick < math.inf and 0 < own < math.inf and beta > 0:
                wanted = yardstick / (own * beta)
                before = self.scales.get(term.name)
                # A slow mean in the logarithm: one odd step must not throw the scale.
                self.scales[term.name] = wanted if before is None else before**0.8 * wanted**0.2


def make_pair(student: AnswerSignal, teacher: AnswerSignal, part: Mapping[str, Any]) -> SignalPair:
    """The pair that losses read: the student's rows of this teacher's examples beside the teacher's signal."""
    rows = part["rows"]
    whole = len(rows) == len(student.token_log_prob)
    own = student if whole else _select(student, rows)

    def log_prob(ids: Tensor) -> Tensor:
        if student.picks is None:
            raise RuntimeError("this loss asks for logits, and the student's were not kept")
        # The other examples' entry 0 is picked beside them and read by nobody.
        every = ids if whole else ids.new_zeros(len(student.token_log_prob), *ids.shape[1:]).index_copy(0, rows, ids)
        chosen = student.picks(every)
        chosen = chosen if whole else chosen[rows]
        mask = own.signal.mask.unsqueeze(-1)
        return torch.where(mask, chosen - own.signal.logsumexp.unsqueeze(-1), own.signal.logsumexp.new_zeros(()))

    return SignalPair(
        student=own,
        teacher=teacher,
        student_at=part["student_at"],
        teacher_at=part["teacher_at"],
        aligned=part["aligned"],
        student_chunks=part["student_chunks"],
        teacher_chunks=part["teacher_chunks"],
        chunks=part["chunks"],
        student_log_prob=log_prob,
    )


def _names(term: TeacherTerm) -> list[str]:
    found = []
    for role, loss in (("token", term.token), ("structure", term.structure)):
        if loss is not None:
            found += [f"loss/{term.name}/{name}" for name in (role, *loss.notes)]
    return found


def _norms(term: TeacherTerm, means: Mapping[str, Tensor], sft: Tensor, logits: Tensor) -> Tensor:
    """[2]: of the yardstick's gradient and of the structure loss's; 0 where the batch has no share in it."""
    if term.structure is None:
        return sft.new_zeros(2)
    losses = (means.get("token") if term.token is not None else sft, means.get("structure"))
    return torch.stack([sft.new_zeros(()) if loss is None else _norm(loss, logits) for loss in losses])


def _norm(loss: Tensor, logits: Tensor) -> Tensor:
    """Squared length of the loss's gradient by the student's logits. One backward pass down to them."""
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return gradient.float().square().sum()


def _select(found: AnswerSignal, rows: Tensor) -> AnswerSignal:
    signal = found.signal
    picked = TopKLogits(
        signal.values[rows], signal.ids[rows], signal.logsumexp[rows], signal.mask[rows], signal.vocab_size
    )
    return AnswerSignal(picked, found.token_log_prob[rows])


def _mean(result: LossSum, count: Tensor) -> Tensor:
    return result.total / count.clamp_min(1)


def sum_tensors(values: list[Tensor], device: torch.device) -> Tensor:
    """Sum of scalar counts on a device, 0 for none."""
    if not values:
        return torch.zeros((), device=device)
    return torch.stack([value.to(device, torch.float32) for value in values]).sum()


def unit_names(terms: list[TeacherTerm]) -> list[str]:
    """Keys of `Objective.counts` in a fixed order, for one exchange between processes."""
    names: list[Unit] = ["pairs", "examples", "chunks"]
    return ["sft", *(f"{term.name}/{unit}" for term in terms for unit in names)]
