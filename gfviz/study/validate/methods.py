"""Every method on one pair: the rungs alone, the budgets, the paper's closed form, POT; one row of the table each."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.gromov import GromovResult, RungRecord, objective, predict_cost, run_rung, sorted_gw
from gfviz.study.validate.families import Pair, distance

POT_STARTS = 8
REPEATED_BELOW = 0.3
"""Calls shorter than this many seconds are timed three times, and the best counts."""


@dataclass(frozen=True)
class Effort:
    """What is run on a pair: `budgets` in order; `rung_limit` is the longest predicted time (s) of a rung run alone.

    The `first` pair of a family and size also has its memory measured, and is compared at other scales.
    """

    budgets: tuple[str | float, ...]
    rung_limit: float
    first: bool


def measure_pair(pair: Pair, p: float, effort: Effort) -> list[dict[str, Any]]:
    """Rows of all methods on a pair, each with its ends compared with the proven or best known value (`truth`).

    See `COLUMNS` in the runner for the meaning of every column.
    """
    rows: list[dict[str, Any]] = []
    last: GromovResult | None = None
    for budget in effort.budgets:
        last, spent = _timed(lambda budget=budget: distance(pair, p, budget))  # type: ignore[misc]
        rows.append(_budget_row(budget, last, spent))
        if effort.first and spent.wall < 5:
            rows[-1]["peak_bytes"] = _peak(lambda budget=budget: distance(pair, p, budget))  # type: ignore[misc]
    assert last is not None
    rows += _rung_rows(pair, p, effort, last)
    rows.append(_paper_row(pair, last))
    rows += _pot_rows(pair, p, effort)
    if effort.first:
        rows += _scaled_rows(pair, p)
    _compare(rows)
    return rows


@dataclass(frozen=True)
class Spent:
    """What a call took: `wall` seconds, and `cpu` seconds of this process, which other work on the machine spares."""

    wall: float
    cpu: float


_UNSPENT = Spent(math.nan, math.nan)


def _row(method: str, group: str, side: str, spent: Spent, **found: Any) -> dict[str, Any]:
    blank = {"lower": math.nan, "upper": math.nan, "value": math.nan, "proof": "", "note": "", "peak_bytes": math.nan}
    head = {"method": method, "group": group, "side": side, "status": "ok"}
    return {**head, "seconds": spent.wall, "cpu_seconds": spent.cpu, **blank, **found}


def _timed(call: Callable[[], Any]) -> tuple[Any, Spent]:
    """What the call returns, and its time: the best of three where it is short."""
    wall = cpu = math.inf
    for _ in range(3):
        begun, used = time.perf_counter(), time.process_time()
        found = call()
        wall, cpu = min(wall, time.perf_counter() - begun), min(cpu, time.process_time() - used)
        if wall > REPEATED_BELOW:
            break
    return found, Spent(wall, cpu)


def _peak(call: Callable[[], Any]) -> float:
    """Largest amount that Python and numpy held during the call, in bytes (C++ inside POT is not seen)."""
    tracemalloc.start()
    try:
        call()
        return float(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def budget_name(budget: str | float) -> str:
    """How a budget is called in the table: its name, or its seconds."""
    return budget if isinstance(budget, str) else f"{budget:g} s"


def _budget_row(budget: str | float, result: GromovResult, spent: Spent) -> dict[str, Any]:
    return _row(
        budget_name(budget),
        "budget",
        "interval",
        spent,
        lower=result.lower,
        upper=result.upper,
        value=result.upper,
        proof=result.proof or "",
        note=f"lower by {result.lower_rung}, upper by {result.upper_rung}",
    )


def _rung_rows(pair: Pair, p: float, effort: Effort, last: GromovResult) -> list[dict[str, Any]]:
    """Each rung of the largest budget alone, as far as it is valid and not too long; matchings of lower bounds too."""
    rows = []
    for predicted in predict_cost(pair.a, pair.b, p, "thorough", pair.weights, alone=True):
        name = predicted.rung
        if predicted.reason:
            rows.append(_row(name, "rung", "", _UNSPENT, status="not valid", note=predicted.reason))
        elif predicted.seconds > effort.rung_limit:
            note = f"{predicted.seconds:.2g} s predicted, {effort.rung_limit:g} s allowed"
            rows.append(_row(name, "rung", "", _UNSPENT, status="skipped", note=note))
        else:
            rows.append(_one_rung(pair, p, name))
    lowers = {record.name for record in last.rungs if record.side == "lower" and record.used}
    matchings = [r for r in last.rungs if r.side == "upper" and r.name in lowers and r.value is not None]
    rows += [_record_row(record, f"{record.name} (matching)") for record in matchings]
    return rows


def _one_rung(pair: Pair, p: float, name: str) -> dict[str, Any]:
    try:
        record = run_rung(name, pair.a, pair.b, p=p, weights=pair.weights)
    except GfvizError as error:
        return _row(name, "rung", "", _UNSPENT, status="not valid", note=str(error))
    return _record_row(record, name)


def _record_row(record: RungRecord, method: str) -> dict[str, Any]:
    value = math.nan if record.value is None else record.value
    # Only the rung's own time is recorded: what is done before it (validation, the sorted coupling) is not the rung's.
    spent = Spent(record.seconds, math.nan)
    return _row(method, "rung", record.side, spent, value=value, note=record.note, **{record.side: value})


def _paper_row(pair: Pair, last: GromovResult) -> dict[str, Any]:
    """Σ |f_C↓ − f_D↓| = n·W₁: an estimate on another scale, of which only the order of pairs can be compared."""
    value, spent = _timed(lambda: sorted_gw(pair.a, pair.b, p=1, weights=pair.weights))
    return _row("paper", "estimate", "estimate", spent, value=value * min(last.n, last.m), note="n times W1")


def _pot_rows(pair: Pair, p: float, effort: Effort) -> list[dict[str, Any]]:
    if p != 2:
        note = "POT's deterministic solvers are for p = 2"
        return [_row(name, "peer", "upper", _UNSPENT, status="not valid", note=note) for name in ("POT", "POT starts")]
    shares = pair.shares()
    c, d = _unit_matrices(pair)
    # From the graphs, as the budgets start: POT takes matrices, so making them is part of what it costs.
    plan, spent = _timed(lambda: _pot(*_unit_matrices(pair), shares, None))
    values = [_attained(pair, plan)]
    rows = [_row("POT", "peer", "upper", spent, upper=values[0], value=values[0], note="product start")]
    if effort.first and spent.wall < 5:
        rows[0]["peak_bytes"] = _peak(lambda: _pot(c, d, shares, None))
    if spent.wall * POT_STARTS > effort.rung_limit:
        return [*rows, _row("POT starts", "peer", "upper", _UNSPENT, status="skipped", note="too long")]
    begun, used = time.perf_counter(), time.process_time()
    values += [_attained(pair, _pot(c, d, shares, start)) for start in _starts(shares)]
    spent = Spent(spent.wall + time.perf_counter() - begun, spent.cpu + time.process_time() - used)
    best = min(values)
    return [*rows, _row("POT starts", "peer", "upper", spent, upper=best, value=best, note=f"{POT_STARTS} starts")]


def _unit_matrices(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices over their largest entry: POT's stopping rule is absolute, and tuned for that scale."""
    first, second = pair.matrices()
    scale = max(float(np.abs(first).max()), float(np.abs(second).max())) or 1.0
    return first / scale, second / scale


def _pot(c: np.ndarray, d: np.ndarray, shares: tuple[np.ndarray, np.ndarray], start: np.ndarray | None) -> np.ndarray:
    import ot  # here, because importing POT takes seconds

    return np.asarray(ot.gromov.gromov_wasserstein(c, d, shares[0], shares[1], "square_loss", symmetric=True, G0=start))


def _starts(shares: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Vertices of the couplings, each cheapest for random costs."""
    import ot

    rng = np.random.default_rng(0)
    shape = (len(shares[0]), len(shares[1]))
    return [np.asarray(ot.emd(shares[0], shares[1], rng.random(shape))) for _ in range(POT_STARTS - 1)]


def _attained(pair: Pair, plan: np.ndarray) -> float:
    return math.sqrt(objective(pair.a, pair.b, plan, p=2, weights=pair.weights))


def _scaled_rows(pair: Pair, p: float) -> list[dict[str, Any]]:
    """The budget "fast" on the pair times 1e-8 and 1e8, its ends scaled back (arrays only: graphs have one scale)."""
    if not (isinstance(pair.a, np.ndarray) and isinstance(pair.b, np.ndarray)):
        return []
    rows = []
    for scale in (1e-8, 1e8):
        result = distance(Pair(pair.a * scale, pair.b * scale, pair.weights), p, "fast")
        ends = {"lower": result.lower / scale, "upper": result.upper / scale}
        rows.append(_row(f"fast at {scale:g}", "scale", "interval", _UNSPENT, **ends, value=ends["upper"]))
    return rows


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add what depends on all rows: the truth, and how each end stands to it."""
    uppers = [row["upper"] for row in rows if not math.isnan(row["upper"])]
    lowers = [row["lower"] for row in rows if not math.isnan(row["lower"])]
    proven = [row["upper"] for row in rows if row["proof"]]
    best_upper, best_lower = min(uppers), max(lowers)
    truth = proven[0] if proven else best_upper
    for row in rows:
        row["truth"] = truth
        row["truth_kind"] = "proven" if proven else "best known"
        row["best_lower"] = min(best_lower, best_upper)
        for end in ("lower", "upper"):
            row[f"{end}_ratio"] = _ratio(row[end], truth)
        row["error"] = math.nan if row["group"] == "estimate" else abs(_ratio(row["value"], truth) - 1)
        upper = row["upper"]
        width = upper - row["lower"]
        row["gap"] = math.nan if row["group"] != "budget" else (width / upper if upper > 0 else 0.0)


def _ratio(value: float, truth: float) -> float:
    if truth > 0:
        return value / truth
    return 1.0 if value == 0 else math.nan
