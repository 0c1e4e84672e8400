"""The benchmarks run, at a size where their times mean nothing; what a row says follows from its numbers."""

import json
import os

import pytest
import torch

from gfviz.bench import SUITES, render, rows_to_json, run_bench, save_results
from gfviz.bench.measure import make_row, peak_bytes, ratio, times
from gfviz.errors import GfvizError

KEYS = {"name", "value", "unit", "floor", "peer", "ratio", "target", "met"}


@pytest.mark.parametrize("suite", [name for name in SUITES if name != "app"])
def test_each_suite_gives_rows(suite):
    rows = run_bench([suite], size="tiny")
    assert rows
    for row in rows_to_json(rows):
        assert set(row) == KEYS
        assert row["name"].startswith(f"{suite} · ")
        assert row["target"] is None
    assert len({row.name for row in rows}) == len(rows)
    json.dumps(rows_to_json(rows), allow_nan=False)
    assert render(rows).row_count == len(rows)


@pytest.mark.parametrize(
    "value,of,target,met",
    [
        (9.0, 2.0, "<= 3", True),
        (9.0, None, "<= 3", False),
        (9.0, 60.0, ">= 50", True),
        (9.0, 40.0, ">= 50", False),
        (None, None, ">= 50", None),
        (1.0, 1.0, None, None),
    ],
)
def test_met_follows_from_the_ratio_or_the_value(value, of, target, met):
    assert make_row("a", value, "s", ratio=of, target=target).met is met


def test_ratio_is_the_median_of_the_rounds():
    assert ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


def test_rounds_take_turns_and_the_first_is_left_out():
    calls = []
    found = times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, torch.device("cpu"), 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in found.items()} == {"a": 2, "b": 2}


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no resettable high-water mark")
def test_peak_memory_sees_what_was_freed_again():
    found = peak_bytes(lambda: torch.ones(25_000_000).sum(), torch.device("cpu"))
    assert 95e6 < found < 130e6


def test_results_of_a_day_are_one_file(tmp_path):
    first, second, again = make_row("a", 1.0, "s"), make_row("b", 2.0, "s"), make_row("a", 3.0, "s")
    path = save_results([first, second], folder=tmp_path)
    assert save_results([again], folder=tmp_path) == path
    content = json.loads(path.read_text())
    assert {row["name"]: row["value"] for row in content["rows"]} == {"a": 3.0, "b": 2.0}
    assert {"processor", "cores", "torch", "device"} <= set(content["machine"])


def test_unknown_names_and_missing_devices_are_said():
    with pytest.raises(GfvizError, match="'gww' is unknown: choose from start, gw"):
        run_bench(["gww"])
    with pytest.raises(GfvizError, match="device 'mps' is not there"):
        run_bench(["gw"], device="mps")
