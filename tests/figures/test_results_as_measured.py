"""Figures of results show what was measured: no smoothing of a few points, no interval before there is one."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from gfviz.errors import GfvizError
from gfviz.figures import Line, curve_figure, interval_figure
from gfviz.figures.study import growth_figure, tightness_figure


def test_few_points_are_drawn_as_they_are():
    score = Line(np.array([0, 300]), np.array([0.42, 0.315]))
    other, mine = curve_figure({"all": score}, smoothing=0.6, beside={"SFT": score}).data
    for drawn in (mine, other):
        assert drawn.y.tolist() == pytest.approx([0.42, 0.315], rel=1e-6)
        assert drawn.mode == "lines+markers"
    longer = Line(np.arange(3), np.array([1.0, 0.0, 0.0]))
    raw, smooth = curve_figure({"loss": longer}, smoothing=0.6).data
    assert raw.y.tolist() == [1.0, 0.0, 0.0]
    assert smooth.y[1] > 0.1


def rung(side: str, value: float | None) -> SimpleNamespace:
    return SimpleNamespace(side=side, value=value, seconds=1.0)


def test_the_interval_begins_with_its_first_upper_bound():
    rungs = [rung("lower", 0.1), rung("lower", 0.4), rung("upper", 0.9), rung("upper", None), rung("lower", 0.5)]
    lower, floor, upper = interval_figure(SimpleNamespace(rungs=rungs, p=2.0)).data
    assert (lower.x.tolist(), list(lower.y)) == ([1, 2, 3, 4, 5], [0.1, 0.4, 0.4, 0.4, 0.5])
    assert (upper.x.tolist(), list(upper.y)) == ([3, 4, 5], [0.9, 0.9, 0.9])
    assert (floor.x.tolist(), list(floor.y)) == ([3, 4, 5], [0.4, 0.4, 0.5])
    assert (upper.fill, lower.fill, floor.fill) == ("tonexty", None, None)
    assert floor.showlegend is False
    without = interval_figure(SimpleNamespace(rungs=rungs[:2], p=1.0)).data
    assert [len(trace.x) for trace in without] == [2, 0, 0]


STUDY = pd.DataFrame(
    [
        ("a", 8, "rows", 0.5, np.nan, 0.5, np.nan, 0.1),
        ("b", 8, "rows", 0.7, np.nan, 0.3, np.nan, 0.3),
        ("a", 64, "rows", 0.9, np.nan, 0.1, np.nan, 9.0),
        ("a", 8, "<fast>", 0.9, 1.1, 0.1, 0.25, 0.2),
        ("b", 8, "<fast>", 0.0, 1.3, 0.3, 0.75, 0.4),
    ],
    columns=["family", "size", "method", "lower_ratio", "upper_ratio", "error", "gap", "seconds"],
)


def test_tightness_has_a_row_a_family_and_marks_for_both_sides():
    figure = tightness_figure(STUDY, ["rows", "<fast>"], "dark")
    rows, low, high = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["a ", "b "]
    assert (rows.x.tolist(), list(rows.y)) == (pytest.approx([0.7, 0.7]), [0, 1])
    assert (low.x.tolist(), list(low.y)) == ([0.9], [0]), "an axis of powers has no 0"
    assert (high.x.tolist(), list(high.y)) == ([1.1, 1.3], [0, 1])
    assert [trace.name for trace in figure.data] == ["rows", "&lt;fast&gt;", "&lt;fast&gt;"]
    assert [trace.showlegend for trace in figure.data] == [True, True, False]
    with pytest.raises(GfvizError, match="no method unheard"):
        tightness_figure(STUDY, ["unheard"])


def test_growth_averages_families_where_all_were_measured():
    (rows, fast) = growth_figure(STUDY, ["rows", "<fast>"], "error").data
    assert (rows.x.tolist(), rows.y.tolist()) == ([8], pytest.approx([0.4]))
    assert fast.y.tolist() == pytest.approx([0.2])
    (gap,) = growth_figure(STUDY, ["rows", "<fast>"], "gap").data
    assert (gap.name, gap.y.tolist()) == ("&lt;fast&gt;", [0.5])
    timed = growth_figure(STUDY[STUDY["family"] == "a"], ["rows"], "seconds")
    assert (timed.data[0].x.tolist(), timed.data[0].y.tolist()) == ([8, 64], [0.1, 9.0])
    assert timed.layout.yaxis.type == "log"
    with pytest.raises(GfvizError, match="'proven' is unknown"):
        growth_figure(STUDY, ["rows"], "proven")
