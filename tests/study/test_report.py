"""A report is one file: nothing is fetched, nothing in it can act, and its tables say what the data say."""

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from gfviz.errors import GfvizError
from gfviz.figures.palette import DARK, LIGHT
from gfviz.study.report import Report

HOSTILE = "</script><script>alert(1)</script>"


def body(page):
    """The page without plotly.js itself, which names addresses that it never loads."""
    from plotly.offline import get_plotlyjs

    return page.replace(get_plotlyjs(), "")


def test_hostile_text_is_shown_and_cannot_act():
    report = Report(HOSTILE, HOSTILE)
    report.section(HOSTILE)
    report.text(HOSTILE, f"`{HOSTILE}`")
    report.points([HOSTILE, "half a character: \ud800"])
    report.table(pd.DataFrame({HOSTILE: [HOSTILE]}), HOSTILE)
    report.figure(go.Figure(go.Scatter(x=[HOSTILE], y=[1], name=HOSTILE)), HOSTILE)
    page = body(report.html())
    assert "<script>alert" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert page.count("<script") == page.count("</script>") == 3
    page.encode("utf-8")


def test_the_page_fetches_nothing():
    report = Report("A", "B")
    report.figure(go.Figure(go.Bar(x=[1], y=[2])), "c")
    page = body(report.html())
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_a_page_without_figures_is_small(tmp_path):
    report = Report("A", "B")
    report.text("one")
    path = report.write(tmp_path / "below" / "report.html")
    assert path.stat().st_size < 10_000
    assert path.read_text("utf-8").startswith("<!doctype html>")


def test_tables_show_values_formats_and_looks():
    frame = pd.DataFrame({"name": ["a", "b"], "share": [0.123456, np.nan], "met": [True, False]})
    report = Report("A", "B")
    report.table(
        frame,
        "c",
        formats={"met": lambda met: "met" if met else "missed"},
        marks={"met": lambda met: "good" if met else "bad"},
    )
    page = report.html()
    assert '<td class="number">0.1235</td>' in page
    assert '<td class="number">–</td>' in page
    assert '<td class="good">met</td>' in page
    assert '<td class="bad">missed</td>' in page
    with pytest.raises(GfvizError, match="no column 'other'"):
        report.table(frame, "c", formats={"other": str})


def test_the_table_of_contents_leads_to_the_sections():
    report = Report("A", "B")
    report.section("First")
    report.section("Second")
    page = report.html()
    assert '<a href="#part-2">Second</a>' in page
    assert '<h2 id="part-2">Second</h2>' in page


def test_the_page_has_the_colours_of_the_figures():
    """One accent in light and one in dark, everywhere."""
    page = Report("t", "s").html()
    style = page[page.index("<style>") : page.index("</style>")]
    for theme, part in ((LIGHT, style.split("@media")[0]), (DARK, style.split("@media")[1])):
        for name, colour in (("accent", theme.accent), ("back", theme.background), ("text", theme.text)):
            assert f"--{name}: {colour};" in part
