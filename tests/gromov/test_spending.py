"""A budget in seconds: which rung is next, and that none is lost."""

import csv
import math
import statistics
import time
from importlib.resources import files

import numpy as np
import pytest

from gfviz.gromov import gromov_wasserstein
from gfviz.gromov.ladder import _Climb
from gfviz.gromov.problem import Problem
from gfviz.gromov.rungs import LADDERS, RUNGS


def _pair(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = (rng.random((9, size)) for size in (n, m))
    return first.T @ first, second.T @ second


def test_a_rungs_worth_by_hand():
    climb = _Climb(Problem(*_pair(30, 30)), None, math.inf)
    climb.state.lower, climb.state.upper = climb.problem.power(0.2), climb.problem.power(0.612)
    climb.state.lower_rung, climb.state.upper_rung = "entries", "conditional_gradient"
    # `entries` at 0.8 of the distance puts it at 0.25, `conditional_gradient` at 1.02 of it at 0.6: at 0.425, halfway
    assert (RUNGS["entries"].typical, RUNGS["conditional_gradient"].typical) == (0.8, 1.02)
    for name, reached in (("spectral", 0.81 * 0.425 - 0.2), ("pot", 0.612 - 1.02 * 0.425), ("sorted", 0.01 * 0.412)):
        seconds = RUNGS[name].cost(climb.problem)[0]
        assert climb.worth(RUNGS[name]) == pytest.approx(reached / (0.612 * seconds), rel=1e-9), name
    # a matching that a lower bound left behind
    climb.state.upper_rung = "rows"
    believed = (0.25 + 0.612 / 1.05) / 2
    seconds = RUNGS["exchange"].cost(climb.problem)[0]
    assert climb.worth(RUNGS["exchange"]) == pytest.approx((0.612 - believed) / (0.612 * seconds), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(10, 10), (12, 8)])
def test_the_next_rung_is_worth_most_on_what_is_known_by_then(n: int, m: int):
    pair = _pair(n, m)
    far = time.perf_counter() + 1e4
    climb = _Climb(Problem(*pair), None, far)
    climb.spend()
    replay = _Climb(Problem(*pair), None, far)
    run = list(dict.fromkeys(record.name for record in climb.records if record.used))
    assert run[:2] == ["sorted", "sorted_coupling"]
    open_ = [RUNGS[name] for name in LADDERS["thorough"] if RUNGS[name].reason(replay.problem) is None]
    for place, name in enumerate(run):
        if place >= 2:
            best = max(open_, key=replay.worth)
            assert best.name == name
        open_.remove(RUNGS[name])
        replay.step(RUNGS[name])
    assert {record.name for record in climb.records} == set(LADDERS["thorough"])
    assert climb.state.proof or run != [name for name in LADDERS["thorough"] if name in run]  # an order of its own


def test_what_does_not_fit_is_left_out_with_the_reason():
    result = gromov_wasserstein(*_pair(60, 60), budget=1e-6)
    left_out = {record.name: record.note for record in result.rungs if not record.used}
    assert "s predicted, 0 s left" in left_out["long_dual"]
    assert result.lower <= result.upper < math.inf


def test_typical_shares_are_those_of_the_committed_study():
    table = files("gfviz.study.results").joinpath("validate-cpu.csv").read_text("utf-8")
    found: dict[str, list[float]] = {}
    for row in csv.DictReader(table.splitlines()):
        if row["group"] == "rung" and row["p"] == "2.0" and int(row["size"]) >= 32 and row["method"] in RUNGS:
            share = float(row[f"{row['side']}_ratio"] or "nan") if row["side"] in ("lower", "upper") else math.nan
            if not math.isnan(share):
                found.setdefault(row["method"], []).append(share)
    assert len(found) >= 14
    for name, shares in found.items():
        assert RUNGS[name].typical == pytest.approx(statistics.median(shares), abs=0.05), name
