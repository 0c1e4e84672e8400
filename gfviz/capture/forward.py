"""Forward passes that leave only signals behind: the head's product where it is wanted, reduced as it is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gfviz.kernels import head_topk_logsumexp
from gfviz.signals import TopKLogits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows that share one product with the head: enough to read its weights seldom, few enough that [rows, CHUNK] is small.
_ROWS = 512


class SignalReader:
    """Runs a causal language model over padded batches and reduces its logits at chosen positions.

    Where the model's head is a plain linear map and nothing follows it, the head is applied to the chosen positions
    alone, a chunk of the vocabulary at a time, and [B, W, V] is never held. Every batch looks whether that is so: the
    model itself runs on, over one position, and what it returns there must be the linear map's result bit by bit.
    Scaled, capped or replaced heads give another, and are read as the model gives them from then on.
    """

    def __init__(self, model: PreTrainedModel, k: int | None = None) -> None:
        self._model = model
        self._accepts = frozenset(inspect.signature(model.forward).parameters)
        head = model.get_output_embeddings()
        vocabulary = head.weight.shape[0]
        self.k = min(64, vocabulary) if k is None else k
        self._head = head if type(head) is nn.Linear else None

    @property
    def fused(self) -> bool:
        """Whether the head is (so far) applied to the chosen positions alone."""
        return self._head is not None

    @torch.inference_mode()
    def read(self, ids: Tensor, attention: Tensor, chosen: Tensor) -> TopKLogits:
        """The signal [N, k] at the N positions where `chosen` [B, W] holds, in row-major order.

        ids, attention: [B, W] on any device. Cost: one forward pass, the head's product at N positions.
        """
        device = self._model.device
        inputs = self._inputs(ids.to(device), attention.to(device))
        chosen = chosen.to(device)
        if self._head is not None:
            hidden = self._hidden(self._head, inputs, chosen)
            if hidden is not None:
                return self._reduce(self._head, hidden[chosen])
            self._head = None
        return TopKLogits.from_logits(self._model(**inputs).logits[chosen], self.k)

    def _inputs(self, ids: Tensor, attention: Tensor) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention}
        if "position_ids" in self._accepts:
            # Left padding would otherwise shift the positions: transformers counts them from the first column.
            inputs["position_ids"] = (attention.cumsum(1) - 1).clamp_min(0)
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        return inputs

    def _hidden(self, head: nn.Linear, inputs: dict[str, Any], chosen: Tensor) -> Tensor | None:
        """What enters the head [B, W, H], or None where the logits are not simply its product."""
        seen: list[tuple[Tensor, Tensor]] = []

        def cut(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = given[0]
            if hidden.shape[:-1] != chosen.shape:
                return given
            # Where the vector is longest: an embedding of zeros (a padding token's) would look linear to any head.
            length = torch.where(chosen, hidden.square().sum(-1), hidden.new_zeros(()))
            one = hidden.flatten(0, 1).index_select(0, length.argmax().view(1)).unsqueeze(0)
            seen.append((hidden, one))
            return (one,)

        handle = head.register_forward_pre_hook(cut)
        try:
            logits = self._model(**inputs).logits
        finally:
            handle.remove()
        if len(seen) != 1:
            return None
        hidden, one = seen[0]
        if hidden.dtype != head.weight.dtype or hidden.device != head.weight.device:
            return None
        expected = nn.functional.linear(one, head.weight, head.bias)
        return hidden if torch.equal(logits, expected) and bool(expected.any()) else None

    def _reduce(self, head: nn.Linear, hidden: Tensor) -> TopKLogits:
        parts = [head_topk_logsumexp(rows, head.weight, self.k, bias=head.bias) for rows in hidden.split(_ROWS)]
        mask = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        return TopKLogits(
            torch.cat([part.values for part in parts]),
            torch.cat([part.ids for part in parts]),
            torch.cat([part.logsumexp for part in parts]),
            mask,
            head.weight.shape[0],
        )
