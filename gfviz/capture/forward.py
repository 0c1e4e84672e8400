"""Forward passes that leave only signals behind: the head's product where it is wanted, reduced as it is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from gfviz.kernels import head_topk_logsumexp
from gfviz.signals import TopKLogits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows that share one product with the head: enough to read its weights seldom, few enough that [rows, CHUNK] is small.
ROWS = 512


class Reading(NamedTuple):
    """A signal [N, k] of N positions, and the logit [N] of a given token at each of them."""

    signal: TopKLogits
    targets: Tensor


class SignalReader:
    """Runs a causal language model over padded batches and reduces its logits at chosen positions.

    Where the model's head is a plain linear map and nothing follows it, the head is applied to the chosen positions
    alone, a chunk of the vocabulary at a time, and [B, W, V] is never held. Every batch looks whether that is so: the
    model itself runs on, over one position, and what it returns there must be the linear map's result bit by bit.
    Scaled, capped or replaced heads give another, and are read as the model gives them from then on. On a GPU the first
    batch alone waits for that answer: should a later one differ, its logsumexp is NaN, and nothing reads it unseen.
    """

    def __init__(self, model: PreTrainedModel, k: int | None = None) -> None:
        self._model = model
        self._accepts = forward_arguments(model)
        head = model.get_output_embeddings()
        vocabulary = head.weight.shape[0]
        self.k = min(64, vocabulary) if k is None else k
        self._head = head if type(head) is nn.Linear else None
        self._proven = False

    @property
    def fused(self) -> bool:
        """Whether the head is (so far) applied to the chosen positions alone."""
        return self._head is not None

    def read(self, ids: Tensor, attention: Tensor, chosen: Tensor) -> TopKLogits:
        """The signal [N, k] at the N positions where `chosen` holds, in row-major order.

        ids, attention: [B, L] on any device; chosen: [B, W] of their last W ≤ L positions. Cost: one forward pass, the
        head's product at N positions.
        """
        with torch.inference_mode():
            return self._read(ids, attention, chosen, None, 1.0)[0]

    def read_targets(
        self,
        ids: Tensor,
        attention: Tensor,
        chosen: Tensor,
        targets: Tensor,
        temperature: float = 1.0,
        places: Tensor | None = None,
    ) -> Reading:
        """`read` of the logits divided by `temperature`, with those of the tokens `targets` [B, W] where chosen.

        `places` [N] may name the places of `chosen`, flattened, that hold: where `chosen` is on a GPU, counting them
        there would wait for it. A model that is being trained may go on after it: no tensor that it keeps is one of
        inference mode.
        """
        with torch.no_grad():
            return Reading(*self._read(ids, attention, chosen, targets, temperature, places))

    def _read(
        self,
        ids: Tensor,
        attention: Tensor,
        chosen: Tensor,
        targets: Tensor | None,
        temperature: float,
        places: Tensor | None = None,
    ) -> tuple[TopKLogits, Tensor]:
        device = self._model.device
        inputs = self._inputs(ids.to(device), attention.to(device))
        width, missing = chosen.shape[1], ids.shape[1] - chosen.shape[1]
        if places is None:
            places = chosen.flatten().nonzero().squeeze(1)
        places, chosen = places.to(device, non_blocking=True), chosen.to(device)
        wanted = None if targets is None else targets.to(device).flatten().index_select(0, places)
        if missing and "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = width
        elif missing:
            chosen = nn.functional.pad(chosen, (missing, 0))
            places = places + (places // width + 1) * missing
        if self._head is not None:
            found = self._hidden(self._head, inputs, chosen)
            if found is not None:
                hidden, kind, sound = found
                picked = hidden.flatten(0, 1).index_select(0, places).to(kind)
                return self._reduce(self._head, picked, wanted, temperature, sound)
            self._head = None
        logits = self._model(**inputs).logits.flatten(0, 1).index_select(0, places)
        logits = logits if temperature == 1.0 else logits / temperature
        signal = TopKLogits.from_logits(logits, self.k)
        return signal, signal.logsumexp if wanted is None else logits.gather(1, wanted.unsqueeze(1)).squeeze(1)

    def _inputs(self, ids: Tensor, attention: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention}
        if "position_ids" in self._accepts:
            # Left padding would otherwise shift the positions: transformers counts them from the first column.
            inputs["position_ids"] = (attention.cumsum(1) - 1).clamp_min(0)
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        return inputs

    def _hidden(
        self, head: nn.Linear, inputs: dict[str, Any], chosen: Tensor
    ) -> tuple[Tensor, torch.dtype, Tensor | None] | None:
        """What enters the head [B, W, H], or None where the logits are not simply its product.

        Beside it the precision of that product, and whether the logits are it, where the device alone knows.
        """
        seen: list[tuple[Tensor, Tensor, torch.dtype]] = []

        def cut(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = given[0]
            if hidden.shape[:-1] != chosen.shape:
                return given
            # Where the vector is longest: an embedding of zeros (a padding token's) would look linear to any head.
            length = torch.where(chosen, hidden.square().sum(-1), hidden.new_zeros(()))
            one = hidden.flatten(0, 1).index_select(0, length.argmax().view(1)).unsqueeze(0)
            device = hidden.device.type
            mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
            seen.append((hidden, one, torch.get_autocast_dtype(device) if mixed else hidden.dtype))
            return (one,)

        handle = head.register_forward_pre_hook(cut)
        try:
            logits = self._model(**inputs).logits
        finally:
            handle.remove()
        if len(seen) != 1:
            return None
        hidden, one, kind = seen[0]
        # Weights in shards (FSDP2, DeepSpeed) are whole inside the forward pass alone.
        whole = type(head.weight.data) is Tensor and head.weight.shape[-1] == hidden.shape[-1]
        if not whole or hidden.device != head.weight.device:
            return None
        expected = nn.functional.linear(one.to(kind), *_in_dtype(head, kind)).to(logits.dtype)
        if logits.shape != expected.shape:
            return None
        sound = (logits == expected).all() & (expected != 0).any()
        if self._proven and sound.device.type != "cpu":
            return hidden, kind, sound
        self._proven = bool(sound)
        return (hidden, kind, None) if self._proven else None

    def _reduce(
        self, head: nn.Linear, hidden: Tensor, targets: Tensor | None, temperature: float, sound: Tensor | None
    ) -> tuple[TopKLogits, Tensor]:
        weight, bias = _in_dtype(head, hidden.dtype)
        if temperature != 1.0:  # the head is linear: its input divided is its output divided
            hidden, bias = hidden / temperature, None if bias is None else bias / temperature
        rows = hidden.split(ROWS)
        wanted = [None] * len(rows) if targets is None else targets.split(ROWS)
        parts = [head_topk_logsumexp(some, weight, self.k, ids, bias) for some, ids in zip(rows, wanted)]
        total = torch.cat([part.logsumexp for part in parts])
        signal = TopKLogits(
            torch.cat([part.values for part in parts]),
            torch.cat([part.ids for part in parts]),
            total if sound is None else torch.where(sound, total, torch.nan),
            torch.ones(len(hidden), dtype=torch.bool, device=hidden.device),
            head.weight.shape[0],
        )
        found = [part.logsumexp if part.targets is None else part.targets for part in parts]
        return signal, torch.cat(found)


def forward_arguments(model: Any) -> frozenset[str]:
    """Names that the model's forward takes; those of the model inside an adapter, which hides them."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(inner.forward).parameters)


def _in_dtype(head: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Weight and bias as a forward pass in mixed precision casts them; themselves elsewhere."""
    return head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
