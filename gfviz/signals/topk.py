"""`TopKLogits`: what is kept of a language model's logits at each position."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.kernels import Picks, topk_logsumexp_picks

NORMALIZATIONS = ("prob", "raw", "zscore")
DEFAULT_K = 64


@dataclass(frozen=True, eq=False)
class TopKLogits:
    """The k largest logits of every position, with the logsumexp of the whole vocabulary (MATH.md section 1).

    values: [..., T, k], descending along k; ids: [..., T, k] int64 vocabulary ids; logsumexp: [..., T];
    mask: [..., T] bool, True where a position counts. Positions that do not count hold zeros, whatever the model
    returned there, and carry no gradient. `vocab_size` is V where it is known. `served` marks log-probabilities as a
    server returns them: logsumexp is 0 and the normalisations that need logits are refused.

    >>> import torch
    >>> signal = TopKLogits.from_logits(torch.tensor([[[2.0, 1.0, 0.0]]]), k=2)
    >>> signal.values.tolist(), [round(x, 3) for x in signal.probs().flatten().tolist()]
    ([[[2.0, 1.0]]], [0.665, 0.245])
    """

    values: Tensor
    ids: Tensor
    logsumexp: Tensor
    mask: Tensor
    vocab_size: int | None = None
    served: bool = False

    def __post_init__(self) -> None:
        if self.values.shape != self.ids.shape or self.values.dim() < 2:
            raise GfvizError(
                f"values and ids must share a shape [..., T, k], "
                f"got {list(self.values.shape)} and {list(self.ids.shape)}"
            )
        if self.logsumexp.shape != self.values.shape[:-1] or self.mask.shape != self.values.shape[:-1]:
            raise GfvizError(
                f"logsumexp and mask must have the shape {list(self.values.shape[:-1])} of the positions, "
                f"got {list(self.logsumexp.shape)} and {list(self.mask.shape)}"
            )

    @classmethod
    def from_logits(cls, logits: Tensor, k: int | None = None, mask: Tensor | None = None) -> TopKLogits:
        """Reduce logits [T, V] or [B, T, V] (floating, any device) to their signal; differentiable.

        `k` defaults to min(64, V). `mask` [T] or [B, T] marks the positions that count (all of them by default).
        Raises `GfvizError` for a wrong shape or dtype, V = 0, k < 1 or k > V. One pass over the logits, O(T·k) kept.

        >>> TopKLogits.from_logits(torch.zeros(3, 10), k=11)
        Traceback (most recent call last):
        ...
        gfviz.errors.GfvizError: k = 11 exceeds the vocabulary of 10: pass k <= 10, or leave it out
        """
        return cls.with_picks(logits, k, mask)[0]

    @classmethod
    def with_picks(cls, logits: Tensor, k: int | None = None, mask: Tensor | None = None) -> tuple[TopKLogits, Picks]:
        """`from_logits`, and what picks single logits whose gradient joins the signal's (see `Picks`).

        >>> signal, picks = TopKLogits.with_picks(torch.tensor([[2.0, 1.0, 0.0]]), k=1)
        >>> picks(torch.tensor([[2, 1]])).tolist()
        [[0.0, 1.0]]
        """
        if logits.dim() not in (2, 3) or not logits.is_floating_point():
            raise GfvizError(
                f"logits must be a floating tensor [T, V] or [B, T, V], got {logits.dtype} {list(logits.shape)}"
            )
        k = _checked_k(k, logits.shape[-1])
        mask = _checked_mask(mask, logits)
        values, ids, total, picks = topk_logsumexp_picks(logits, k)
        signal = cls(
            values=torch.where(mask.unsqueeze(-1), values, values.new_zeros(())),
            ids=torch.where(mask.unsqueeze(-1), ids, ids.new_zeros(())),
            logsumexp=torch.where(mask, total, total.new_zeros(())),
            mask=mask,
            vocab_size=logits.shape[-1],
        )
        return signal, picks

    @property
    def k(self) -> int:
        """How many logits are kept at each position."""
        return self.values.shape[-1]

    @property
    def positions(self) -> int:
        """How many positions count (reads the mask: on a GPU this waits for the device)."""
        return int(self.mask.sum())

    def log_probs(self) -> Tensor:
        """True log-probabilities of the kept entries, [..., T, k]: value − logsumexp; 0 where the mask is False."""
        return self.values - self.logsumexp.unsqueeze(-1)

    def probs(self) -> Tensor:
        """True probabilities of the kept entries, [..., T, k]; zeros where the mask is False."""
        return torch.where(self.mask.unsqueeze(-1), self.log_probs().exp(), self.values.new_zeros(()))

    def tail_mass(self) -> Tensor:
        """Probability of everything that was dropped, [..., T]: 1 − Σ probs, clipped at 0; 0 where masked."""
        return torch.where(self.mask, (1.0 - self.probs().sum(-1)).clamp_min(0.0), self.logsumexp.new_zeros(()))

    def normalized(self, kind: str = "prob") -> Tensor:
        """The vectors z whose outer products make the graph, [..., T, k]; zeros where the mask is False.

        `prob`: exp(value − logsumexp), the true probability. `raw`: the logit; not invariant to adding a constant.
        `zscore`: standardised over the kept k (population deviation; all-equal logits give 0): blind to shift and
        temperature, and its row means vanish under uniform weights. Raises `GfvizError` for an unknown kind, and for
        `raw` and `zscore` on a server's log-probabilities, which determine neither.
        """
        if kind not in NORMALIZATIONS:
            raise GfvizError(f"normalize = {kind!r} is unknown: choose one of {', '.join(NORMALIZATIONS)}")
        if kind == "prob":
            return self.probs()
        if self.served:
            raise GfvizError(f"normalize = {kind!r} needs logits; these are a server's log-probabilities: use 'prob'")
        values = self.values if self.values.dtype.itemsize >= 4 else self.values.float()
        if kind == "zscore":
            largest = values.detach().abs().amax(-1, keepdim=True)
            # By a power of two, which is exact: squares of 1e30 would overflow, those of 1e-30 vanish. As a quotient,
            # because torch raises 2 to a power in float32; within what has an inverse, which subnormal numbers lack.
            tiny = torch.finfo(values.dtype).tiny
            power = (torch.frexp(largest).mantissa / largest).clamp(tiny, 1 / tiny)
            power = torch.where(largest > 0, power, torch.ones_like(power))
            values, largest = values * power, largest * power
            centred = values - values.mean(-1, keepdim=True)
            variance = centred.square().mean(-1, keepdim=True)
            # Equal logits leave a rounding residue that must not be blown up to a deviation of one. NaN stays NaN.
            equal = variance <= (largest * torch.finfo(values.dtype).eps * 4).square()
            spread = torch.where(equal, torch.ones_like(variance), variance).sqrt()
            values = torch.where(equal, torch.zeros_like(centred), centred / spread)
        return torch.where(self.mask.unsqueeze(-1), values, values.new_zeros(()))

    def top(self, k: int) -> TopKLogits:
        """The same signal cut to its k largest entries. Raises `GfvizError` unless 1 ≤ k ≤ the k that is kept."""
        if not 1 <= k <= self.k:
            raise GfvizError(f"k = {k} is outside 1..{self.k}, the entries that this signal keeps")
        return replace(self, values=self.values[..., :k], ids=self.ids[..., :k])

    def to(self, *args, **kwargs) -> TopKLogits:
        """Move to a device, or the floating parts to a dtype; arguments as in `torch.Tensor.to`."""
        values = self.values.to(*args, **kwargs)
        return replace(
            self,
            values=values,
            ids=self.ids.to(values.device),
            logsumexp=self.logsumexp.to(*args, **kwargs),
            mask=self.mask.to(values.device),
        )

    def detach(self) -> TopKLogits:
        """The same numbers cut off from the autograd graph."""
        return replace(self, values=self.values.detach(), logsumexp=self.logsumexp.detach())

    def require_finite(self, what: str = "the logits") -> None:
        """Raise `GfvizError` if a counted position holds NaN, +inf, or no finite value at all.

        −inf is allowed beside finite logits: it is how a model forbids a token, and its probability is 0.
        """
        values = self.values[self.mask]
        if values.numel() == 0:
            return
        if bool(torch.isnan(values).any()) or bool((values == torch.inf).any()):
            raise GfvizError(f"{what} hold NaN or +inf at a counted position: check the model's dtype and inputs")
        if not bool(torch.isfinite(self.logsumexp[self.mask]).all()):
            raise GfvizError(f"{what} are -inf over the whole vocabulary at a counted position: check the model")

    def require_resolved(self, what: str = "the logits") -> None:
        """Raise `GfvizError` where the logsumexp is so large that rounding it moves probabilities by over a thousandth.

        In float32 that is beyond ±8 388: of eight equal logits of 1e30 each would get the probability 1.
        """
        total = self.logsumexp[self.mask]
        if total.numel() and bool((total.abs() * torch.finfo(total.dtype).eps > 1e-3).any()):
            raise GfvizError(
                f"{what} are too large for their precision ({float(total.abs().max()):.3g}): probabilities would be "
                "wrong by more than a thousandth: subtract each position's largest logit first, or pass float64"
            )


def _checked_k(k: int | None, vocabulary: int) -> int:
    if vocabulary < 1:
        raise GfvizError("the logits have an empty vocabulary axis (V = 0)")
    if k is None:
        return min(DEFAULT_K, vocabulary)
    if k < 1:
        raise GfvizError(f"k = {k} must be at least 1")
    if k > vocabulary:
        raise GfvizError(f"k = {k} exceeds the vocabulary of {vocabulary}: pass k <= {vocabulary}, or leave it out")
    return k


def _checked_mask(mask: Tensor | None, logits: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    if mask.shape != logits.shape[:-1]:
        raise GfvizError(f"mask has the shape {list(mask.shape)}, but the positions are {list(logits.shape[:-1])}")
    return mask.to(device=logits.device, dtype=torch.bool)
