"""Cost curves: what is drawn is what the rows say, and a file that holds none is named."""

import json

import pytest

from gfviz.errors import GfvizError
from gfviz.figures.costs import AXES, cost_curves, cost_name, draw_costs

ROWS = [
    {"name": cost_name(axis, x, series), "value": 0.5 * x, "floor": None if axis == "n" else 0.01 * x}
    for axis in AXES
    for series in ("ours · with a dot", "theirs")
    for x in (64, 8, 4000)
]
MACHINE = {"processor": "$EPYC$", "threads": 1, "torch": "2.13", "device": "cpu"}


def test_points_are_ascending_and_other_rows_are_passed_over():
    found = cost_curves([*ROWS, {"name": "gw · sorted_gw · n = x", "value": 1.0}, {"name": cost_name("k", 1, "a")}])
    assert set(found) == set(AXES)
    assert found["T"]["ours · with a dot"] == [(8, 4.0, 0.08), (64, 32.0, 0.64), (4000, 2000.0, 40.0)]
    assert set(found["k"]) == {"ours · with a dot", "theirs"}


@pytest.mark.parametrize("ending,first", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_is_drawn(tmp_path, ending, first):
    results, picture = tmp_path / "results.json", tmp_path / f"curves.{ending}"
    results.write_text(json.dumps({"machine": MACHINE, "rows": ROWS}))
    draw_costs(results, picture)
    content = picture.read_bytes()
    assert content.startswith(first)
    assert len(content) < 200_000
    if ending == "svg":
        assert b"$EPYC$" in content


@pytest.mark.parametrize("content", ["[]", "{", '{"rows": 3, "machine": {}}', '{"rows": [], "machine": {}}'])
def test_a_file_without_curves_is_named(tmp_path, content):
    results = tmp_path / "results.json"
    results.write_text(content)
    with pytest.raises(GfvizError, match=r"results\.json"):
        draw_costs(results, tmp_path / "a.png")


def test_other_endings_are_refused(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"machine": MACHINE, "rows": ROWS}))
    with pytest.raises(GfvizError, match="drawn as"):
        draw_costs(results, tmp_path / "a.exe")
    assert not (tmp_path / "a.exe").exists()
