"""Where teacher signals come from, and the controls that take the teacher out of them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from gfviz.capture.forward import SignalReader, forward_arguments
from gfviz.errors import GfvizError
from gfviz.fusion.losses.base import AnswerSignal
from gfviz.fusion.rows import SignalDtype, SignalRow, coded, from_rows, in_window, to_rows
from gfviz.signals import TopKLogits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SignalSource(Protocol):
    """A teacher: signals for its part of a batch, online or from a cache."""

    name: str

    def signals(self, part: Mapping[str, Any]) -> AnswerSignal:
        """The signal over the window of `part["model"]` (see `Collator`), without gradient, on the batch's device."""
        ...

    def idle(self) -> None:
        """Called in the place of `signals` by a process whose batch has no example for this teacher."""
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


def answer_signal(logits: Tensor, inputs: Mapping[str, Tensor], k: int, temperature: float = 1.0) -> AnswerSignal:
    """Reduce window logits to what losses read; the token log-probabilities share the signal's logsumexp."""
    scaled = logits if temperature == 1.0 else logits / temperature
    signal, picks = TopKLogits.with_picks(scaled, k, inputs["mask"])
    chosen = picks(inputs["labels"].unsqueeze(-1)).squeeze(-1)
    own = torch.where(signal.mask, chosen - signal.logsumexp, signal.logsumexp.new_zeros(()))
    return AnswerSignal(signal, own, picks)


MEMORY_BYTES = 512 * 1024 * 1024


class OnlineTeacher:
    """A frozen model beside the pivot: evaluation mode, no gradients, its signal through the codec of `rows`.

    On a CPU each example runs alone and unpadded: its signal then depends on nothing else in the batch, equals the
    cache's to the last digit, and is remembered (up to `MEMORY_BYTES`), so that later epochs cost no forward pass. On a
    GPU batches run together and equal the cache's to the rounding of the device. `collective`: the model is sharded
    over processes, so that each makes one forward pass per batch, whether it has examples for this teacher or not.
    """

    def __init__(
        self, name: str, model: "PreTrainedModel", k: int, temperature: float = 1.0, dtype: SignalDtype = "float16"
    ) -> None:
        self.name = name
        self.model = model
        self.k = k
        self.temperature = temperature
        self.dtype: SignalDtype = dtype
        model.eval()
        model.requires_grad_(False)
        self._accepts = forward_arguments(model)
        self._reader = SignalReader(model, k)
        self._width = int(model.get_output_embeddings().weight.shape[0])
        self._memory: dict[tuple[int, ...], SignalRow] = {}
        self._used = 0
        self.collective = False

    def signals(self, part: Mapping[str, Any]) -> AnswerSignal:
        """The signal of a teacher's part of a batch."""
        if self.collective or self.model.device.type != "cpu":
            found = coded(self._together(part["model"]), self.dtype)
            home = part["model"]["mask"].device
            return AnswerSignal(found.signal.to(home), found.token_log_prob.to(home))
        inputs = {key: value.to("cpu") for key, value in part["model"].items()}
        rows = []
        for number in range(len(part["rows"])):
            alone = _unpadded(inputs, number)
            # The key is what the model reads and what is asked of it, so that it serves any data set.
            key = (int(alone["mask"].sum()), *alone["input_ids"][0].tolist())
            row = self._memory.get(key)
            if row is None:
                row = self._run(alone)[0]
                if self._used + row.bytes <= MEMORY_BYTES:
                    self._memory[key] = row
                    self._used += row.bytes
            rows.append(row)
        return from_rows(rows, part, self._width)

    @torch.no_grad()
    def idle(self) -> None:
        """Take part in the others' forward pass, where the model is sharded."""
        if self.collective:
            one = torch.zeros(1, 1, dtype=torch.int64)
            inputs = {"input_ids": one, "attention_mask": one + 1, "position_ids": one, "mask": one == 0}
            window_logits(
                self.model, {key: value.to(self.model.device) for key, value in inputs.items()}, self._accepts
            )

    def forget(self) -> None:
        """Forget all signals: the next ones cost forward passes again."""
        self._memory.clear()
        self._used = 0

    def _together(self, inputs: Mapping[str, Tensor]) -> AnswerSignal:
        """The signal in the window of a padded batch whose examples run together."""
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        if self.collective:
            # The head's weights are in shards too: only the model itself can apply it.
            with torch.no_grad():
                return answer_signal(window_logits(self.model, inputs, self._accepts), inputs, self.k, self.temperature)
        return read_window(self._reader, inputs, self.temperature)

    def _run(self, inputs: Mapping[str, Tensor]) -> list[SignalRow]:
        return to_rows(self._together(inputs), self.dtype)

    def rows_of(self, inputs: Mapping[str, Tensor]) -> list[SignalRow]:
        """Compressed signals of a padded batch (see `pad_model`), one example at a time on a CPU."""
        if self.model.device.type != "cpu":
            return self._run(inputs)
        return [self._run(_unpadded(inputs, number))[0] for number in range(len(inputs["input_ids"]))]


def read_window(reader: SignalReader, inputs: Mapping[str, Tensor], temperature: float = 1.0) -> AnswerSignal:
    """`answer_signal` of a model's logits over a padded batch (see `pad_model`) without holding [B, W, V]."""
    found = reader.read_targets(
        inputs["input_ids"], inputs["attention_mask"], inputs["mask"], inputs["labels"], temperature, inputs["places"]
    )
    return in_window(AnswerSignal(found.signal, found.targets - found.signal.logsumexp), inputs)


def _unpadded(inputs: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """One row of a padded batch as a batch of one without its padding; the window is cut to the answer."""
    names = ("input_ids", "attention_mask", "position_ids", "mask", "labels")
    row = {key: inputs[key][number] for key in names}
    seen = torch.nonzero(row["attention_mask"]).flatten()
    first, last = int(seen[0]), int(seen[-1]) + 1
    cut = row["input_ids"].shape[0] - last
    answer = torch.nonzero(row["mask"]).flatten()
    window = row["mask"].shape[0]
    # Window coordinates count from the row's end, of which `cut` indices go.
    start, end = int(answer[0]), window - cut
    found = {key: row[key][first:last] for key in ("input_ids", "attention_mask", "position_ids")}
    found |= {key: row[key][start:end] for key in ("mask", "labels")}
    alone = {key: value.unsqueeze(0) for key, value in found.items()}
    return alone | {"places": torch.nonzero(found["mask"]).flatten()}


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
    bad = _overflows(signal.values).any(-1) | ~torch.isfinite(signal.logsumexp) | _overflows(found.token_log_prob)
    return ~(bad & signal.mask).any()


def _overflows(values: Tensor) -> Tensor:
    return torch.isnan(values) | (values == torch.inf)


def stand_in(found: AnswerSignal, sound: Tensor) -> AnswerSignal:
    """The signal itself where `sound` [] holds, else a finite one of its shape that says nothing."""
    signal = found.signal

    def kept(values: Tensor) -> Tensor:
        return torch.where(sound, values, values.new_zeros(()))

    # Probabilities of 1/k each: they sum to one, as a loss may rely on.
    level = math.log(signal.k)
    flat = replace(signal, values=kept(signal.values), logsumexp=torch.where(sound, signal.logsumexp, level))
    return AnswerSignal(flat, kept(found.token_log_prob))


def check_width(k: int | None, sizes: Mapping[str, int]) -> int:
    """The k to keep: as configured, or min(64, smallest vocabulary). Raises `GfvizError` where that is too large."""
    smallest = min(sizes, key=lambda name: sizes[name])
    if k is None:
        return min(64, sizes[smallest])
    if k > sizes[smallest]:
        raise GfvizError(f"loss.k: {k} exceeds the vocabulary of {smallest} ({sizes[smallest]}): pass a smaller k")
    return k
