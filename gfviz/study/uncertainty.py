"""How much a distance owes to the choice of texts: a bootstrap interval and a permutation test from stored factors.

No model runs again: every graph holds the rows of its texts (`CoactivationGraph.text_offsets`), and T·C of a corpus is
the sum of the T_s·C_s of its texts (MATH.md section 1), so a resampled corpus is a weighted sum of per-text Grams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.stats import t as student_t

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph
from gfviz.gromov import GromovResult, gromov_wasserstein

GRAM_BYTES = 1 << 29
"""Per-text Grams [S, k, k] are kept up to this size; beyond it draws are made from the factors."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BootstrapResult:
    """An interval for the distance between two models that counts the choice of texts and the certificate.

    `lower`, `upper`: ends of the interval at `level`, in the units of GW_p (root taken); `observed_lower` and
    `observed_upper`: the certified interval on the texts as they are; `lowers`, `uppers` [draws]: those of each draw;
    `paired`: whether both graphs were drawn over the same texts; `texts`: numbers of texts of the two graphs.
    """

    lower: float
    upper: float
    level: float
    observed_lower: float
    observed_upper: float
    lowers: np.ndarray
    uppers: np.ndarray
    paired: bool
    texts: tuple[int, int]
    budget: str | float
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Everything but the single draws, as JSON-ready values."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "level": self.level,
            "observed_lower": self.observed_lower,
            "observed_upper": self.observed_upper,
            "draws": len(self.lowers),
            "paired": self.paired,
            "texts": list(self.texts),
            "budget": self.budget,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        how = "paired over" if self.paired else "over"
        count = str(self.texts[0]) if self.paired else f"{self.texts[0]} and {self.texts[1]}"
        return (
            f"{self.level:.0%} interval over texts [{self.lower:.6g}, {self.upper:.6g}] "
            f"({len(self.lowers)} draws, {how} {count} texts; on these texts [{self.observed_lower:.6g}, "
            f"{self.observed_upper:.6g}])"
        )


@dataclass(frozen=True)
class PermutationResult:
    """Whether two graphs differ by more than the choice of texts.

    `p_value` = (1 + number of exchanges with a statistic at least `observed`) / (rounds + 1); `statistic` names the end
    of the certified interval that was compared; `exchanged` [rounds] are its values after exchanging texts.
    """

    p_value: float
    observed: float
    exchanged: np.ndarray
    statistic: str
    paired: bool
    texts: tuple[int, int]
    budget: str | float
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Everything but the single rounds, as JSON-ready values."""
        return {
            "p_value": self.p_value,
            "observed": self.observed,
            "rounds": len(self.exchanged),
            "exchanged_median": float(np.median(self.exchanged)),
            "statistic": self.statistic,
            "paired": self.paired,
            "texts": list(self.texts),
            "budget": self.budget,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        verdict = "differ by more than" if self.p_value <= 0.05 else "do not differ by demonstrably more than"
        return f"p = {self.p_value:.3g} in {len(self.exchanged)} exchanges: the graphs {verdict} the choice of texts"


def bootstrap_distance(
    graph_a: CoactivationGraph,
    graph_b: CoactivationGraph,
    draws: int = 200,
    budget: str | float = "fast",
    seed: int = 0,
    level: float = 0.95,
    *,
    p: float = 2,
    paired: bool | None = None,
    progress: bool | Progress = False,
) -> BootstrapResult:
    """Interval for GW_p between two models that accounts for the texts and for the certificate.

    Texts are drawn with repeats, from both graphs at once where they were captured over the same texts (`paired`; None
    finds out). Each end of the certified interval is itself a function of the two graphs, on either side of the
    distance at the population of texts; the lower one is bounded from below and the upper one from above, at
    (1 + level)/2 each, so the interval holds the distance with probability >= level up to the bootstrap's own error.
    Noise in the graphs adds to the square of a distance (independent texts: its mean grows by the variance), so the
    square is corrected for its bootstrap bias and given the bootstrap standard error with Student's quantile at
    S − 1 degrees (Davison and Hinkley 1997, section 5.2; Hesterberg 2015 for the √(S/(S−1)) of small S). Without that
    correction the plain percentile interval misses a distance of zero always.

    Raises `GfvizError` where per-text factors were not kept, a graph holds fewer than two texts, or `paired` is asked
    of graphs over different texts. Cost: `draws` distances; rank graphs add O(S·k²) once and a matrix product a draw.
    """
    _check_count(draws, "draws", at_least=2)
    if not 0 < level < 1:
        raise GfvizError(f"level = {level} is not between 0 and 1: pass 0.95 for a 95% interval")
    sides = (_Resampler(graph_a, "first"), _Resampler(graph_b, "second"))
    together = _paired(graph_a, graph_b, paired)
    rng = np.random.default_rng(seed)
    observed = _distance(graph_a, graph_b, p, budget)
    lowers, uppers = np.empty(draws), np.empty(draws)
    with _counted(progress, "bootstrap over texts", draws) as done:
        for draw in range(draws):
            first = sides[0].choose(rng)
            second = first if together else sides[1].choose(rng)
            result = _distance(sides[0].graph(first), sides[1].graph(second), p, budget)
            lowers[draw], uppers[draw] = result.lower, result.upper
            done(draw + 1)
    counts = (sides[0].count, sides[1].count)
    low = _end(observed.lower, lowers, level, min(counts), -1)
    high = _end(observed.upper, uppers, level, min(counts), 1)
    return BootstrapResult(
        low, high, level, observed.lower, observed.upper, lowers, uppers, together, counts, budget, seed
    )


def _end(observed: float, drawn: np.ndarray, level: float, texts: int, sign: int) -> float:
    """The confidence bound of one end: the square, less its bias, plus or minus its standard error."""
    squares, inflation = drawn**2, texts / (texts - 1)
    bias = (float(squares.mean()) - observed**2) * inflation
    error = float(squares.std(ddof=1)) * math.sqrt(inflation)
    reach = float(student_t.ppf((1 + level) / 2, texts - 1)) * error
    return math.sqrt(max(0.0, observed**2 - bias + sign * reach))


def permutation_test(
    graph_a: CoactivationGraph,
    graph_b: CoactivationGraph,
    rounds: int = 200,
    budget: str | float = "fast",
    seed: int = 0,
    *,
    p: float = 2,
    paired: bool | None = None,
    statistic: Literal["lower", "upper"] = "lower",
    progress: bool | Progress = False,
) -> PermutationResult:
    """Test "these two graphs differ by more than the choice of texts" by exchanging texts between them.

    Over the same texts (`paired`) each text's rows change sides with probability 1/2; else all texts are dealt out
    anew in the given numbers. Under the hypothesis that a text's rows could as well come from the other side every
    exchange is equally likely, so the p-value is exact whatever the statistic (Phipson and Smyth 2010 for the +1); the
    statistic is an end of the certified interval, by default the lower one.

    Raises `GfvizError` for token graphs over different vocabularies, rank graphs of different k, graphs without
    per-text factors, or fewer than two texts a side. Cost: as `bootstrap_distance`.
    """
    _check_count(rounds, "rounds")
    if statistic not in ("lower", "upper"):
        raise GfvizError(f"statistic = {statistic!r} is unknown: choose lower or upper")
    count_a, count_b = (_Resampler(g, s).count for g, s in ((graph_a, "first"), (graph_b, "second")))
    if graph_a.nodes == "rank" and graph_b.nodes == "rank" and graph_a.n != graph_b.n:
        raise GfvizError(
            f"rank graphs of k = {graph_a.n} and {graph_b.n} cannot exchange texts: capture both with one k"
        )
    together = _paired(graph_a, graph_b, paired)
    pooled = _Resampler(graph_a.merge(graph_b), "pooled")
    rng = np.random.default_rng(seed)

    def value(first: np.ndarray, second: np.ndarray) -> float:
        result = _distance(pooled.graph(first), pooled.graph(second), p, budget)
        return result.lower if statistic == "lower" else result.upper

    ours, theirs = np.arange(count_a), count_a + np.arange(count_b)
    observed = value(ours, theirs)
    exchanged = np.empty(rounds)
    with _counted(progress, "exchange of texts", rounds) as done:
        for number in range(rounds):
            exchanged[number] = value(*_exchanged(rng, ours, theirs, together, pooled))
            done(number + 1)
    # Exchanges that give the same two graphs may differ in the last digits: those are ties, and ties count.
    at_least = int((exchanged >= observed * (1 - 1e-9)).sum())
    p_value = (1 + at_least) / (rounds + 1)
    return PermutationResult(p_value, observed, exchanged, statistic, together, (count_a, count_b), budget, seed)


def _exchanged(
    rng: np.random.Generator, ours: np.ndarray, theirs: np.ndarray, together: bool, pooled: _Resampler
) -> tuple[np.ndarray, np.ndarray]:
    for _ in range(1000):
        if together:
            swap = rng.random(len(ours)) < 0.5
            first, second = np.where(swap, theirs, ours), np.where(swap, ours, theirs)
        else:
            dealt = rng.permutation(len(ours) + len(theirs))
            first, second = dealt[: len(ours)], dealt[len(ours) :]
        if pooled.lengths[first].sum() and pooled.lengths[second].sum():
            return first, second
    raise GfvizError("almost every text is without a counted position: give longer texts")


class _Resampler:
    """Graphs of chosen texts of one graph: by sums of per-text Grams for rank graphs, from the factors otherwise."""

    def __init__(self, graph: CoactivationGraph, side: str) -> None:
        if graph.factors is None or graph.text_offsets is None:
            raise GfvizError(f"the {side} graph kept no per-text factors: capture it again with keep='factors'")
        self.source = graph
        self.lengths = np.diff(graph.text_offsets)
        self.count = len(self.lengths)
        if np.count_nonzero(self.lengths) < 2:
            raise GfvizError(f"the {side} graph holds fewer than two texts: nothing can be said about their choice")
        self._grams: np.ndarray | None = None
        if graph.nodes == "rank" and self.count * graph.n**2 * 8 <= GRAM_BYTES:
            self._grams = self._text_grams()

    def _text_grams(self) -> np.ndarray:
        """T_s·C_s of each text, float64 [S, k·k]."""
        graph = self.source
        assert graph.factors is not None
        assert graph.text_offsets is not None
        rows = graph.factors.toarray().astype(np.float64)
        grams = np.empty((self.count, graph.n, graph.n))
        for s, (start, end) in enumerate(zip(graph.text_offsets[:-1], graph.text_offsets[1:])):
            grams[s] = rows[start:end].T @ rows[start:end]
        return grams.reshape(self.count, -1)

    def choose(self, rng: np.random.Generator) -> np.ndarray:
        """As many texts as there are, with repeats, at least one of them with a counted position."""
        for _ in range(1000):
            chosen = rng.integers(self.count, size=self.count)
            if self.lengths[chosen].sum():
                return chosen
        raise GfvizError("almost every text is without a counted position: give longer texts")

    def graph(self, chosen: np.ndarray) -> CoactivationGraph:
        """The graph of the chosen texts [S'], repeats allowed."""
        if self._grams is None:
            return self.source.select_texts(chosen)
        times = np.bincount(chosen, minlength=self.count).astype(np.float64)
        positions = int(times @ self.lengths)
        n = self.source.n
        matrix = (times @ self._grams).reshape(n, n) / positions
        return CoactivationGraph(
            nodes=self.source.nodes,
            normalize=self.source.normalize,
            weighting=self.source.weighting,
            positions=positions,
            keys=self.source.keys,
            labels=self.source.labels,
            space=self.source.space,
            accumulated=sparse.csr_array((matrix + matrix.T) / 2),
        )


def _paired(a: CoactivationGraph, b: CoactivationGraph, asked: bool | None) -> bool:
    same = a.texts is not None and a.texts == b.texts
    if asked is None:
        return same
    if asked and not same:
        known = a.texts is not None and b.texts is not None
        counts = [len(g.text_offsets) - 1 for g in (a, b) if g.text_offsets is not None]
        # Without the texts themselves the caller's word is taken, as far as the counts allow.
        if known or len(set(counts)) != 1:
            raise GfvizError("paired = True needs both graphs over the same texts, in the same order: capture them so")
    return asked


def _distance(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> GromovResult:
    result = gromov_wasserstein(a, b, p=p, budget=budget)
    # The ladder answers an interrupt with what it has; a loop over distances must end then.
    if result.note.startswith("interrupted"):
        raise KeyboardInterrupt
    return result


def _check_count(count: int, name: str, at_least: int = 1) -> None:
    if not isinstance(count, int) or count < at_least:
        raise GfvizError(f"{name} = {count!r} is not a whole number >= {at_least}: pass {name}=200")


@contextmanager
def _counted(progress: bool | Progress, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A Rich bar, the caller's function, or nothing, behind one call: report(done)."""
    if callable(progress):
        tell = progress

        def report(done: int) -> None:
            tell(done, total)

        yield report
    elif progress:
        from gfviz.console import progress_bar

        with progress_bar() as bar:
            task = bar.add_task(title, total=total)

            def move(done: int) -> None:
                bar.update(task, completed=done)

            yield move
    else:
        yield lambda done: None
