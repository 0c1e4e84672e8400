"""Floor 0: the few loops that touch every logit, each fast form beside its plain torch twin."""

from gfviz.kernels.topk_logsumexp import topk_logsumexp, topk_logsumexp_reference

__all__ = ["topk_logsumexp", "topk_logsumexp_reference"]
