"""Scores with their intervals: shares of right answers, likelihood and calibration, tokens of one answer together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

ECE_BINS = 10


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; low and high are None where one example says nothing of the others."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Score:
    """Scores over `count` examples.

    exact_match: share of right answers, with its Wilson interval low and high; nll: mean negative log-likelihood per
    answer token in nats; ece: expected calibration error of the most likely token; both with intervals over examples.
    """

    exact_match: float
    low: float
    high: float
    count: int
    nll: float
    nll_low: float | None
    nll_high: float | None
    ece: float
    ece_low: float | None
    ece_high: float | None


@dataclass(frozen=True)
class TokenScores:
    """What a model gave each answer token: its log-probability, the largest probability, whether that one was right.

    All of [N], float64; `example` [N] says whose token it is.
    """

    example: np.ndarray
    log_prob: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def of(self, examples: np.ndarray) -> "TokenScores":
        """The tokens of those examples for which `examples` [n], bool, holds."""
        inside = examples[self.example]
        return TokenScores(self.example[inside], self.log_prob[inside], self.confidence[inside], self.correct[inside])


def score(right: Sequence[bool] | np.ndarray, tokens: TokenScores, confidence: float = 0.95) -> Score:
    """All scores of the examples whose tokens these are; `right` [n] says which of them were answered right."""
    count, found = len(right), int(np.sum(right))
    low, high = wilson(found, count, confidence)
    nll = clustered_mean(-tokens.log_prob, tokens.example, confidence)
    ece = calibration(tokens, confidence)
    share = found / count if count else 0.0
    return Score(share, low, high, count, nll.value, nll.low, nll.high, ece.value, ece.low, ece.high)


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) for no examples.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def clustered_mean(values: np.ndarray, cluster: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of non-negative values [N] whose clusters [N], not they themselves, are independent; 0 for none.

    The interval is that of a ratio estimate (Cochran 1977, Sampling Techniques, section 6.4): the mean's residuals are
    summed in each of the n clusters, and Student's quantile is of n − 1 degrees.

    >>> found = clustered_mean(np.array([1.0, 3.0, 2.0]), np.array([7, 7, 8]))
    >>> found.value, found.low, found.high
    (2.0, 2.0, 2.0)
    """
    if not len(values):
        return Estimate(0.0, None, None)
    mean = float(values.mean())
    _, number = np.unique(cluster, return_inverse=True)
    reach = _reach(np.bincount(number, values - mean), len(values), confidence)
    return Estimate(mean, None, None) if reach is None else Estimate(mean, max(0.0, mean - reach), mean + reach)


def calibration(tokens: TokenScores, confidence: float = 0.95) -> Estimate:
    """Expected calibration error over `ECE_BINS` bins of equal width: Σ share of the bin · |accuracy − confidence|.

    (Guo et al. 2017, equation 3.) The interval is the linear one: Σ |gap| is a mean of ±(accuracy − confidence) with
    the sign of each token's bin, and examples are independent. It takes the signs as known, so it is too narrow where
    the gaps are all noise; the value itself is then too high, as this estimate is for few tokens.

    >>> tokens = TokenScores(np.arange(4), np.zeros(4), np.full(4, 0.75), np.array([1.0, 1.0, 1.0, 0.0]))
    >>> calibration(tokens).value
    0.0
    """
    if not len(tokens.example):
        return Estimate(0.0, None, None)
    bins = np.minimum((tokens.confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = tokens.correct - tokens.confidence
    signed = gaps * np.sign(np.bincount(bins, gaps, ECE_BINS))[bins]
    error = max(0.0, float(signed.mean()))
    _, number = np.unique(tokens.example, return_inverse=True)
    reach = _reach(np.bincount(number, signed - signed.mean()), len(signed), confidence)
    if reach is None:
        return Estimate(error, None, None)
    return Estimate(error, max(0.0, error - reach), min(1.0, error + reach))


def _reach(residuals: np.ndarray, count: int, confidence: float) -> float | None:
    """Half the width of the interval of a mean of `count` values, from the sums [n] of their residuals by cluster."""
    from scipy.stats import t

    n = len(residuals)
    if n < 2:
        return None
    error = math.sqrt(n / (n - 1) * float(np.square(residuals).sum())) / count
    return float(t.ppf(0.5 + confidence / 2, n - 1)) * error
