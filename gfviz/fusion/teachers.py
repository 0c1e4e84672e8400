"""Where teacher signals come from, and the controls that take the teacher out of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.fusion.losses.base import AnswerSignal
from gfviz.signals import TopKLogits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SignalSource(Protocol):
    """A teacher: signals for its part of a batch, online or from a cache."""

    name: str

    def signals(self, part: Mapping[str, Any]) -> AnswerSignal:
        """The signal over the window of `part["model"]` (see `Collator`), without gradient, on the batch's device."""
        ...


def window_logits(model: Any, inputs: Mapping[str, Tensor], accepts: frozenset[str]) -> Tensor:
    """Logits [B, W, V] over the window of answer positions; `accepts` are the argument names of the model's forward."""
    window = inputs["mask"].shape[1]
    arguments: dict[str, Any] = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    if "position_ids" in accepts:
        arguments["position_ids"] = inputs["position_ids"]
    if "use_cache" in accepts:
        arguments["use_cache"] = False
    if "logits_to_keep" in accepts:
        return model(**arguments, logits_to_keep=window).logits
    return model(**arguments).logits[:, -window:]


def forward_arguments(model: Any) -> frozenset[str]:
    """Names that the model's forward takes."""
    import inspect

    return frozenset(inspect.signature(model.forward).parameters)


def answer_signal(logits: Tensor, inputs: Mapping[str, Tensor], k: int, temperature: float = 1.0) -> AnswerSignal:
    """Reduce window logits to what losses read; the token log-probabilities share the signal's logsumexp."""
    scaled = logits if temperature == 1.0 else logits / temperature
    signal = TopKLogits.from_logits(scaled, k, inputs["mask"])
    return AnswerSignal(signal, token_log_prob(scaled, signal, inputs["labels"]))


def token_log_prob(logits: Tensor, signal: TopKLogits, labels: Tensor) -> Tensor:
    """log p(label) [B, W] at the signal's positions, 0 where masked: one gather, no softmax."""
    chosen = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return torch.where(signal.mask, chosen - signal.logsumexp, signal.logsumexp.new_zeros(()))


@dataclass
class OnlineTeacher:
    """A frozen model beside the pivot: evaluation mode, no gradients, the same signal as the cache would give."""

    name: str
    model: "PreTrainedModel"
    k: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self.model.eval()
        self.model.requires_grad_(False)
        self._accepts = forward_arguments(self.model)

    @torch.no_grad()
    def signals(self, part: Mapping[str, Any]) -> AnswerSignal:
        """Run the model over the padded examples and keep top-k and logsumexp."""
        home = part["aligned"].device
        inputs = {key: value.to(self.model.device) for key, value in part["model"].items()}
        found = answer_signal(window_logits(self.model, inputs, self._accepts), inputs, self.k, self.temperature)
        return AnswerSignal(found.signal.to(home), found.token_log_prob.to(home))


def one_hot(found: AnswerSignal, labels: Tensor) -> AnswerSignal:
    """The control `one-hot`: [1, 0, …, 0] at each position, on the data's own token: nothing of the teacher is left."""
    signal = found.signal
    values = torch.full_like(signal.values, -torch.inf)
    values[..., 0] = 0.0
    zeros = torch.zeros_like(signal.logsumexp)
    ids = torch.zeros_like(signal.ids)
    ids[..., 0] = labels
    values = torch.where(signal.mask.unsqueeze(-1), values, torch.zeros_like(values))
    return AnswerSignal(
        replace(signal, values=values, ids=ids, logsumexp=zeros), torch.zeros_like(found.token_log_prob)
    )


def signal_is_finite(found: AnswerSignal) -> Tensor:
    """Scalar bool: no NaN and no +inf at a position that counts (−inf is a probability of 0)."""
    signal = found.signal
    bad = (torch.isnan(signal.values) | (signal.values == torch.inf)).any(-1) | ~torch.isfinite(signal.logsumexp)
    return ~(bad & signal.mask).any()


def check_width(k: int | None, sizes: Mapping[str, int]) -> int:
    """The k to keep: as configured, or min(64, smallest vocabulary). Raises `GfvizError` where that is too large."""
    smallest = min(sizes, key=lambda name: sizes[name])
    if k is None:
        return min(64, sizes[smallest])
    if k > sizes[smallest]:
        raise GfvizError(f"loss.k: {k} exceeds the vocabulary of {smallest} ({sizes[smallest]}): pass a smaller k")
    return k
