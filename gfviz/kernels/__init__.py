"""Floor 0: the few loops that touch every logit, each fast form beside its plain torch twin."""

from gfviz.kernels.head import HeadTopK, head_topk_logsumexp
from gfviz.kernels.topk_logsumexp import Picks, topk_logsumexp, topk_logsumexp_picks, topk_logsumexp_reference

__all__ = [
    "HeadTopK",
    "Picks",
    "head_topk_logsumexp",
    "topk_logsumexp",
    "topk_logsumexp_picks",
    "topk_logsumexp_reference",
]
