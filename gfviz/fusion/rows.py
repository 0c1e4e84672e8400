"""A teacher's signal of one example at rest: the codec that online and cached teachers share.

Per answer token: k log-probabilities (value less logsumexp, float16 unless float32 was asked for), k ids, and the exact
log-probability of the token itself. Whatever passes through here comes out the same from memory and from disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gfviz.fusion.losses.base import AnswerSignal
from gfviz.signals import TopKLogits

SignalDtype = Literal["float16", "float32"]
DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


class SignalRow(NamedTuple):
    """One example: log_probs [n, k] (float16 or float32), ids int32 [n, k], token_log_prob float32 [n]."""

    log_probs: Tensor
    ids: Tensor
    token_log_prob: Tensor

    @property
    def bytes(self) -> int:
        """Memory of the row."""
        return sum(part.numel() * part.element_size() for part in self)


def to_rows(found: AnswerSignal, dtype: SignalDtype) -> list[SignalRow]:
    """Compress a batch's signal, one row per example, on the CPU."""
    signal = found.signal
    log_probs = signal.log_probs().float().to(DTYPES[dtype]).cpu()
    ids, mask, own = signal.ids.to(torch.int32).cpu(), signal.mask.cpu(), found.token_log_prob.float().cpu()
    return [SignalRow(log_probs[row][keep], ids[row][keep], own[row][keep]) for row, keep in enumerate(mask)]


def from_rows(rows: Sequence[SignalRow], part: Mapping[str, Any], width: int) -> AnswerSignal:
    """Put rows back into the window of a padded batch; `width` is the vocabulary's size."""
    device = part["model"]["mask"].device
    # Positions of a row stand in its window in their order, so row after row fills the mask.
    values, ids, own = (_upload(torch.cat(parts), device) for parts in zip(*rows))
    count = torch.ones(len(own), dtype=torch.bool, device=device)
    signal = TopKLogits(values.float(), ids.long(), torch.zeros_like(own), count, width)
    return in_window(AnswerSignal(signal, own), part["model"])


def coded(found: AnswerSignal, dtype: SignalDtype) -> AnswerSignal:
    """What comes out of `from_rows` where `to_rows` went in, on the signal's device: nothing is brought to the host."""
    signal = found.signal
    values = signal.log_probs().float().to(DTYPES[dtype]).float()
    plain = replace(signal, values=values, logsumexp=torch.zeros_like(signal.logsumexp, dtype=torch.float32))
    return AnswerSignal(plain, found.token_log_prob.float())


def in_window(found: AnswerSignal, inputs: Mapping[str, Tensor]) -> AnswerSignal:
    """A signal [N, k] of the answer positions of a padded batch (see `pad_model`) in its window; zeros elsewhere."""
    mask, places, signal = inputs["mask"], inputs["places"], found.signal

    def spread(parts: Tensor) -> Tensor:
        whole = parts.new_zeros(mask.numel(), *parts.shape[1:]).index_copy_(0, places, parts)
        return whole.view(*mask.shape, *parts.shape[1:])

    put = replace(
        signal, values=spread(signal.values), ids=spread(signal.ids), logsumexp=spread(signal.logsumexp), mask=mask
    )
    return AnswerSignal(put, spread(found.token_log_prob))


def _upload(rows: Tensor, device: torch.device) -> Tensor:
    # From pageable memory, or without `non_blocking`, the host would wait for all that the device has to do.
    return (rows.pin_memory() if device.type == "cuda" else rows).to(device, non_blocking=True)
