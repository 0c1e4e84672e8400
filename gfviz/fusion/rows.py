"""A teacher's signal of one example at rest: the codec that online and cached teachers share.

Per answer token: k log-probabilities (value less logsumexp, float16 unless float32 was asked for), k ids, and the exact
log-probability of the token itself. Whatever passes through here comes out the same from memory and from disk.
"""

from collections.abc import Mapping, Sequence
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
    mask = part["model"]["mask"]
    device = mask.device
    k = rows[0].log_probs.shape[1]
    values = torch.zeros(*mask.shape, k, device=device)
    ids = torch.zeros(*mask.shape, k, dtype=torch.int64, device=device)
    own = torch.zeros(mask.shape, device=device)
    # Positions of a row stand in its window in their order, so row after row fills the mask.
    values[mask] = torch.cat([row.log_probs for row in rows]).float().to(device)
    ids[mask] = torch.cat([row.ids for row in rows]).long().to(device)
    own[mask] = torch.cat([row.token_log_prob for row in rows]).to(device)
    signal = TopKLogits(values, ids, torch.zeros(mask.shape, device=device), mask, width)
    return AnswerSignal(signal, own)
