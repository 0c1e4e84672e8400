"""Distillation losses, one protocol: a `SignalPair` in, a sum with its own count out."""

from gfviz.fusion.losses.base import AnswerSignal, DistillationLoss, LossSum, SignalPair, Unit, masked_sum, units
from gfviz.fusion.losses.structure import BOUNDS, AnchoredGLD, DenseGLD, SortedGLD
from gfviz.fusion.losses.token import ApproximateLikelihoodMatching, ForwardKL, UniversalLogitDistillation

__all__ = [
    "BOUNDS",
    "AnchoredGLD",
    "AnswerSignal",
    "ApproximateLikelihoodMatching",
    "DenseGLD",
    "DistillationLoss",
    "ForwardKL",
    "LossSum",
    "SignalPair",
    "SortedGLD",
    "Unit",
    "UniversalLogitDistillation",
    "masked_sum",
    "units",
]
