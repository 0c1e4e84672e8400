"""From runs to verdicts: paired differences over seeds, Student intervals, and Holm's correction over the cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student_t

from gfviz.study.fusion.plan import CONTROLS, METHODS, Cell

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """Differences of exact match over the seeds that both methods ran: mean, 95% interval, one-sided p of mean > 0."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def student(values: Sequence[float] | np.ndarray) -> Paired:
    """Mean of a sample with Student's 95% interval and the one-sided p-value against a mean of at most 0.

    Below two values neither interval nor p-value is known: NaN. Values that are all the same have an interval of no
    width, and a p-value of 0 where they are above 0, else 1.

    >>> found = student([1.0, 2.0, 3.0])
    >>> round(found.low, 3), round(found.high, 3), round(found.p, 4)
    (-0.484, 4.484, 0.0371)
    """
    sample = np.asarray(values, dtype=float)
    count = len(sample)
    mean = float(sample.mean()) if count else math.nan
    if count < 2:
        return Paired(mean, math.nan, math.nan, math.nan, count)
    error = float(sample.std(ddof=1)) / math.sqrt(count)
    if error < 1e-12:
        return Paired(mean, mean, mean, 0.0 if mean > 1e-12 else 1.0, count)
    reach = float(student_t.ppf(0.975, count - 1)) * error
    return Paired(mean, mean - reach, mean + reach, float(student_t.sf(mean / error, count - 1)), count)


def holm(values: Sequence[float], listed: int = 0) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given; NaN stays NaN.

    Tests that are NaN do not count, but at least `listed` do: those that were planned and not made yet among them.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    >>> [round(p, 3) for p in holm([0.01, float("nan")], listed=4)]
    [0.04, nan]
    """
    order = sorted((place for place, p in enumerate(values) if not math.isnan(p)), key=lambda place: values[place])
    adjusted = [math.nan] * len(values)
    largest, count = 0.0, max(len(order), listed)
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def scores_of(table: pd.DataFrame, stage: str, regime: str, method: str) -> dict[int, float]:
    """Exact match by seed."""
    rows = table[(table["stage"] == stage) & (table["regime"] == regime) & (table["method"] == method)]
    return dict(zip(rows["seed"].astype(int), rows["exact_match"].astype(float)))


def difference(table: pd.DataFrame, stage: str, regime: str, method: str, other: str) -> Paired:
    """Method less other in one regime, over the seeds that both have."""
    ours, theirs = scores_of(table, stage, regime, method), scores_of(table, stage, regime, other)
    return student([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def verdicts(table: pd.DataFrame, stage: str = "study", listed: Sequence[Cell] = ()) -> pd.DataFrame:
    """One row per regime and method: its score, its paired differences, and what they prove after correction.

    Columns: regime, labels, method, ours, seeds, mean, low, high; for each rival (sft, pivot, answers, one-hot,
    shuffled, without) `<rival>` (difference in exact match), `<rival>_low`, `<rival>_high`; p_sft, p_controls,
    p_without, p_all (the largest p of what has to be beaten: that all are beaten is an intersection-union test), all
    Holm-adjusted over the cells of the stage; beats_sft, beats_controls, beats_without, beats_all; closed: share of the
    way from SFT to same-tokenizer KL. A comparison whose runs are missing is NaN and beats nothing.

    With `listed`, the correction counts every cell of the list, made or not, and a comparison proves nothing before all
    the list's seeds of that regime are there.
    """
    import pandas as pd

    chosen = table[table["stage"] == stage]
    rows = [
        _row(chosen, stage, regime, method, len({cell.seed for cell in listed if cell.regime == regime}))
        for regime, method in chosen[["regime", "method"]].drop_duplicates().itertuples(index=False, name=None)
        if METHODS[method].control == "none"
    ]
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    count = _comparisons(listed)
    for name in ("sft", "controls", "without", "all"):
        found[f"p_{name}"] = holm(found[f"p_{name}"].tolist(), count[name])
        found[f"beats_{name}"] = found[f"p_{name}"] < LEVEL
    return found


def _comparisons(listed: Sequence[Cell]) -> dict[str, int]:
    """How many cells of a list can be tested against each rival."""
    cells = {(cell.regime, cell.method) for cell in listed}
    plain = [(regime, METHODS[name]) for regime, name in cells if METHODS[name].control == "none"]
    controlled = {cell for cell in plain if cell[1].controls and {(cell[0], c) for c in cell[1].controls} <= cells}
    apart = {cell for cell in plain if cell[1].ours and (cell[0], cell[1].without) in cells}
    against_sft = sum(method.kind not in ("pivot", "sft") for _, method in plain)
    return {
        "sft": against_sft,
        "controls": len(controlled),
        "without": len(apart),
        "all": len(controlled & apart),
    }


def _row(table: pd.DataFrame, stage: str, regime: str, name: str, seeds: int) -> dict[str, Any]:
    method = METHODS[name]
    level = student(list(scores_of(table, stage, regime, name).values()))
    labels = table.loc[table["regime"] == regime, "labels"].iloc[0]
    row: dict[str, Any] = {"regime": regime, "labels": labels, "method": name, "ours": method.ours}
    row |= {"seeds": level.seeds, "mean": level.mean, "low": level.low, "high": level.high}
    rivals = (
        {"sft": "sft", "pivot": "pivot", "answers": "answers"}
        | {c: f"{name} {c}" for c in CONTROLS}
        | {"without": method.without}
    )
    p: dict[str, float] = {}
    for rival, other in rivals.items():
        # A rival that is the method itself, or a part that it does not have, is no rival.
        absent = (
            other == name or (rival == "without" and not method.ours) or (rival in CONTROLS and not method.controls)
        )
        found = student([]) if absent else difference(table, stage, regime, name, other)
        row |= {rival: found.mean, f"{rival}_low": found.low, f"{rival}_high": found.high}
        p[rival] = found.p if found.seeds >= seeds else math.nan
    row["closed"] = _closed(table, stage, regime, name) if method.kind == "distil" else math.nan
    row["p_sft"] = p["sft"] if method.kind != "pivot" else math.nan
    row["p_controls"] = _worst([p[control] for control in CONTROLS])
    row["p_without"] = p["without"]
    row["p_all"] = _worst([row["p_sft"], row["p_controls"], row["p_without"]]) if method.ours else math.nan
    return row


def _closed(table: pd.DataFrame, stage: str, regime: str, name: str) -> float:
    """Share of the way from SFT to same-tokenizer KL, over the seeds that all three have; NaN where there is no way."""
    ours, start, end = (scores_of(table, stage, regime, method) for method in (name, "sft", "kl-same"))
    seeds = sorted(ours.keys() & start.keys() & end.keys())
    way = sum(end[seed] - start[seed] for seed in seeds)
    return sum(ours[seed] - start[seed] for seed in seeds) / way if way > 0 else math.nan


def _worst(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def finalists(found: pd.DataFrame, count: int) -> list[tuple[str, str]]:
    """Cells (regime, method) to confirm: of each kind of labels the `count` structure losses whose weakest difference
    (to SFT, both controls, the run without) is largest; chosen on the study's seeds alone."""
    chosen: list[tuple[str, str]] = []
    ours = found[found["ours"].astype(bool)].copy()
    if ours.empty:
        return []
    ours["weakest"] = ours[["sft", "one-hot", "shuffled", "without"]].min(axis=1, skipna=False)
    for _, group in ours.dropna(subset="weakest").groupby("labels"):
        best = group.sort_values("weakest", ascending=False, kind="stable").head(count)
        chosen += [(str(regime), str(method)) for regime, method in zip(best["regime"], best["method"])]
    return chosen


def second_try(study: pd.DataFrame, confirmed: pd.DataFrame) -> list[tuple[str, str]]:
    """Cells to confirm after the whole list: of each kind of labels of which no cell is confirmed, the structure loss
    with the smallest p among those that beat all in the study and were not tried yet. Both arguments as of `verdicts`.
    """
    if study.empty:
        return []
    done = confirmed[confirmed["ours"].astype(bool)] if len(confirmed) else study[:0]
    tried = set(zip(done["regime"], done["method"]))
    settled = set(done.loc[done["beats_all"].astype(bool), "labels"])
    open_ = study[study["beats_all"].astype(bool) & ~study["labels"].isin(settled)].sort_values("p_all", kind="stable")
    chosen: dict[str, tuple[str, str]] = {}
    for row in open_.to_dict("records"):
        cell = (str(row["regime"]), str(row["method"]))
        if cell not in tried:
            chosen.setdefault(str(row["labels"]), cell)
    return list(chosen.values())


def summary(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """`{method: {mean, ci95, seeds, beats_sft, beats_controls}}` over the study's regimes.

    Each seed's score is the mean over the regimes that the method ran in at that seed; the verdicts compare it with
    its rivals in the same regimes and seeds, Holm-adjusted over the methods; null where there is nothing to beat.
    """
    chosen = table[table["stage"] == "study"]
    names = list(dict.fromkeys(chosen["method"]))
    found: dict[str, dict[str, Any]] = {}
    p_sft, p_controls = [], []
    for name in names:
        level = student(list(_by_seed(chosen, name, [name])))
        found[name] = {"mean": level.mean, "ci95": _interval(level), "seeds": level.seeds}
        p_sft.append(math.nan if name in ("sft", "pivot") else _against(chosen, name, "sft"))
        p_controls.append(_worst([_against(chosen, name, c) for c in METHODS[name].controls] or [math.nan]))
    for key, values in (("beats_sft", holm(p_sft)), ("beats_controls", holm(p_controls))):
        for name, p in zip(names, values):
            found[name][key] = None if math.isnan(p) else bool(p < LEVEL)
    return found


def _interval(level: Paired) -> list[float] | None:
    return None if math.isnan(level.low) else [level.low, level.high]


def _against(table: pd.DataFrame, name: str, other: str) -> float:
    pairs = [name, other]
    ours, theirs = _by_seed(table, name, pairs), _by_seed(table, other, pairs)
    return student(ours - theirs).p


def _by_seed(table: pd.DataFrame, name: str, needed: Sequence[str]) -> np.ndarray:
    """Mean over regimes of a method's exact match by seed, over the cells that all `needed` methods have."""
    wide = table.pivot_table(index=["seed", "regime"], columns="method", values="exact_match", aggfunc="first")
    missing = [method for method in needed if method not in wide.columns]
    if missing:
        return np.zeros(0)
    whole = wide.dropna(subset=list(needed))
    return whole[name].groupby(level="seed").mean().to_numpy(dtype=float)
