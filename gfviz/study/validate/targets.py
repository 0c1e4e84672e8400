"""What the study set out to reach, measured: one row a target, overall and per family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gfviz.study.validate.plan import TEN_SECONDS_AT

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-9
"""Relative difference of two values that counts as none."""

TARGET_COLUMNS = ("target", "family", "goal", "aim", "measured", "met", "pairs", "what")


def targets_table(table: pd.DataFrame) -> pd.DataFrame:
    """The targets, one row each for all families together ("all") and for every family it can be said of.

    Columns: `target` (its name), `family`, `goal` and `aim` (what is to be reached, in words), `measured` (a number),
    `met` (None where the study held no such pair), `pairs` (how many it was measured on), `what` (what it means).
    """
    import pandas as pd

    square = table[(table["p"] == 2) & (table["status"] == "ok")]
    rows = [row for make in _TARGETS for row in make(square)]
    found = pd.DataFrame(rows, columns=list(TARGET_COLUMNS))
    return found.astype({"met": object})


def _rows(
    pairs: pd.DataFrame,
    head: dict[str, str],
    measure: Callable[[pd.DataFrame], float],
    reached: Callable[[float], bool],
    mean_of_families: bool = False,
) -> Iterator[dict[str, Any]]:
    """A row for all families and one for each; the mean of families weighs every family alike."""
    parts = dict(list(pairs.groupby("family", sort=False)))
    if mean_of_families and parts:
        total = float(np.mean([measure(part) for part in parts.values()]))
    else:
        total = measure(pairs) if len(pairs) else math.nan
    values = [("all", total, len(pairs)), *((name, measure(part), len(part)) for name, part in parts.items())]
    for family, value, count in values:
        met = None if math.isnan(value) else bool(reached(value))
        yield {**head, "family": family, "measured": value, "met": met, "pairs": count}


def _proven(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    rows = table[(table["method"] == "thorough") & table["assignable"] & (table["n"] <= 9)]
    head = {"target": "proven at n ≤ 9", "goal": "100%", "aim": "", "what": "share of assignable pairs, thorough"}
    yield from _rows(rows, head, lambda part: float((part["proof"] != "").mean()), lambda value: value == 1)
    rows = table[(table["method"] == "10 s") & table["assignable"] & (table["n"] == TEN_SECONDS_AT)]
    head = {"target": "proven at n = 12", "goal": "95%", "aim": "", "what": "share of assignable pairs within 10 s"}

    def in_time(part: pd.DataFrame) -> float:
        return float(((part["proof"] != "") & (part["seconds"] <= 10)).mean())

    yield from _rows(rows, head, in_time, lambda value: value >= 0.95)


def _gaps(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    at = table[(table["size"] == 64) & (table["group"] == "budget")]
    for budget, goal, aim, limit in (("standard", 0.12, "0.10", 0.05), ("thorough", 0.06, "0.05", 10.0)):
        rows = at[at["method"] == budget]
        head = {"target": f"gap of {budget} at n = 64", "goal": f"≤ {goal}", "aim": aim, "what": "mean gap"}
        yield from _rows(rows, head, lambda part: float(part["gap"].mean()), lambda value, g=goal: value <= g, True)  # type: ignore[misc]
        shown = f"{1000 * limit:.0f} ms" if limit < 1 else f"{limit:g} s"
        what = "mean processor seconds"
        head = {"target": f"time of {budget} at n = 64", "goal": f"≤ {shown}", "aim": "", "what": what}
        yield from _rows(rows, head, lambda part: float(part["cpu_seconds"].mean()), lambda value, t=limit: value <= t)  # type: ignore[misc]


def _wide(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row a pair, one column a method."""
    keys = ["family", "size", "pair"]
    return table.pivot_table(index=keys, columns="method", values=column, aggfunc="first", sort=False).reset_index()


def _against_pot(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    uppers = _wide(table, "upper")
    if {"standard", "POT"} <= set(uppers):
        both = uppers.dropna(subset=["standard", "POT"])
        head = {
            "target": "upper ≤ POT",
            "goal": "every pair",
            "aim": "",
            "what": "share of pairs with standard's upper end at most POT's default value",
        }

        def below(part: pd.DataFrame) -> float:
            return float((part["standard"] <= part["POT"] * (1 + TOLERANCE)).mean())

        yield from _rows(both, head, below, lambda value: value == 1)
    seconds = _wide(table[table["size"] >= 128], "cpu_seconds")
    if {"fast", "POT"} <= set(seconds):
        both = seconds.dropna(subset=["fast", "POT"])
        head = {
            "target": "fast against POT from n = 128",
            "goal": "< 1 on every pair",
            "aim": "",
            "what": "largest ratio of the processor times of fast and of POT's default",
        }
        yield from _rows(both, head, lambda part: float((part["fast"] / part["POT"]).max()), lambda value: value < 1)


def _pot_optimum(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    small = table[(table["truth_kind"] == "proven") & (table["n"] <= 9)]
    for method in ("POT", "POT starts"):
        rows = small[small["method"] == method]
        head = {
            "target": f"{method} finds the optimum at n ≤ 9",
            "goal": "",
            "aim": "",
            "what": "share of proven pairs",
        }

        def optimal(part: pd.DataFrame) -> float:
            # Two objectives of one optimum, each a sum of squares that may cancel: compared to 1e-6.
            return float((part["upper"] <= part["truth"] * (1 + 1e-6)).mean())

        yield from ({**row, "met": None} for row in _rows(rows, head, optimal, lambda value: True))


def _sound(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Nothing proven may be crossed, and no larger budget may be wider."""
    proven = table[(table["truth_kind"] == "proven") & table["group"].isin(["budget", "rung", "peer"])]
    crossed = (proven["lower_ratio"] > 1 + TOLERANCE) | (proven["upper_ratio"] < 1 - TOLERANCE)
    head = {
        "target": "no bound crosses the truth",
        "goal": "0",
        "aim": "",
        "what": "methods on the wrong side of a proven value",
    }
    counted = proven.assign(crossed=crossed)
    yield from _rows(counted, head, lambda part: float(part["crossed"].sum()), lambda value: value == 0)
    budgets = table[table["method"].isin(["fast", "standard", "thorough"])]
    lowers, uppers = _wide(budgets, "lower"), _wide(budgets, "upper")
    names = [name for name in ("fast", "standard", "thorough") if name in lowers]
    wider = np.zeros(len(lowers))
    for less, more in pairwise(names):
        wider += (lowers[more] < lowers[less]) | (uppers[more] > uppers[less])
    head = {"target": "larger budgets are never wider", "goal": "0", "aim": "", "what": "pairs of budgets that are"}
    counted = lowers.assign(wider=wider)
    yield from _rows(counted, head, lambda part: float(part["wider"].sum()), lambda value: value == 0)


def _copies(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Permuted copies and scaled pairs, both up to rounding.

    Squares of near-equal graphs cancel, so zero is known to about the root of ε: 1e-7 of the graphs' norms. For the
    same reason the ends at two scales are compared as squares. Multiplying by 1e-8 rounds, which decides ties anew: 0/1
    graphs may get another coupling.
    """
    copies = table[(table["level"] == 0) & (table["method"] == "standard")]
    head = {"target": "permuted copies are at zero", "goal": "100%", "aim": "", "what": "share with lower = 0 = upper"}

    def at_zero(part: pd.DataFrame) -> float:
        return float(((part["lower"] == 0) & (part["upper"] <= 1e-7 * part["norm"])).mean())

    yield from _rows(copies, head, at_zero, lambda value: value == 1)
    scaled = table[table["group"] == "scale"]
    plain = table[table["method"] == "fast"].set_index(["family", "size", "pair"])[["lower", "upper"]]
    joined = scaled.join(plain.add_suffix("_plain"), on=["family", "size", "pair"])
    head = {
        "target": "the same at scales 1e-8 and 1e8",
        "goal": "≤ 1e-9",
        "aim": "",
        "what": "largest difference of squared ends, in squared norms",
    }

    def drift(part: pd.DataFrame) -> float:
        parts = [(part[end] ** 2 - part[f"{end}_plain"] ** 2).abs() / part["norm"] ** 2 for end in ("lower", "upper")]
        return float(max(found.max() for found in parts))

    yield from _rows(joined, head, drift, lambda value: value <= 1e-9)


_TARGETS = (_proven, _gaps, _against_pot, _pot_optimum, _sound, _copies)


def rank_correlations(table: pd.DataFrame, fewest: int = 8) -> pd.DataFrame:
    """Spearman's correlation of each method's value with the truth, per family and size of at least `fewest` pairs.

    1 means that the method orders pairs by distance as the truth does, however far off its values are.
    """
    import pandas as pd
    from scipy.stats import spearmanr

    rows = []
    usable = table[(table["p"] == 2) & (table["status"] == "ok") & table["value"].notna()]
    for (family, size, method), part in usable.groupby(["family", "size", "method"], sort=False):
        if len(part) < fewest or part["truth"].nunique() < 2 or part["value"].nunique() < 2:
            continue
        rho = float(spearmanr(part["value"], part["truth"]).statistic)
        proven = float((part["truth_kind"] == "proven").mean())
        rows.append((family, size, method, rho, len(part), proven))
    return pd.DataFrame(rows, columns=["family", "size", "method", "spearman", "pairs", "proven"])
