"""A chart of lines as plain data: for Plotly, in reports and notebooks, and for the app's own view of curves.

Plotly checks every property of every object it makes, which for one chart takes longer than reading, smoothing and
sending its data, and its script is five megabytes that a browser has to read before the first line is on the screen.
What ticks every second, and what somebody waits for, is therefore drawn by a view of a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gfviz.figures.palette import blank
from gfviz.figures.view import packed

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Drawing(NamedTuple):
    """Scatter traces as dictionaries, `x` and `y` arrays in them, and what the layout has beside the theme's own."""

    theme: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    note: str = ""

    def figure(self) -> go.Figure:
        """The Plotly figure; about 10 ms."""
        figure = blank(self.theme, int(self.layout["height"]), self.title, self.note)
        figure.add_traces([{"type": "scatter", **trace} for trace in self.traces])
        return figure.update_layout(dict(self.layout))

    def message(self) -> dict[str, Any]:
        """What the app's own view of curves draws: plain values, `x` and `y` still arrays (`board` packs them).

        A trace is a line, a closed area (`fill`), or a line with a mark at every point; `name` is what is read at the
        cross line, `group` what stands in the legend.
        """
        axes = {axis: self.layout.get(axis) or {} for axis in ("xaxis", "yaxis")}
        return {
            "title": self.title,
            "note": self.note,
            # Plotly's height includes title, legend and the numbers below; the view's only the numbers.
            "height": int(self.layout["height"]) - 34,
            "range": axes["xaxis"].get("range"),
            "log": axes["yaxis"].get("type") == "log",
            "tozero": axes["yaxis"].get("rangemode") == "tozero",
            "legend": self.layout.get("showlegend", True),
            "traces": [_plain(trace) for trace in self.traces],
        }


def _plain(trace: Mapping[str, Any]) -> dict[str, Any]:
    line, marker = trace.get("line", {}), trace.get("marker", {})
    spoken = trace.get("meta", {})
    marks = "open" if marker.get("symbol") == "circle-open" else "full"
    return {
        "name": spoken.get("name", ""),
        "group": spoken.get("group", ""),
        "x": trace["x"],
        "y": trace["y"],
        "color": line.get("color"),
        "width": line.get("width", 2),
        "dash": line.get("dash", "solid"),
        "fill": trace.get("fillcolor"),
        "marks": marks if "markers" in trace["mode"] else None,
        "hover": trace.get("hoverinfo") != "skip",
        "legend": trace.get("showlegend", True),
    }


def board(drawings: Sequence[Drawing]) -> dict[str, Any]:
    """The message that draws all of `drawings`: {"charts": …, "arrays": …}, JSON values only.

    Steps are packed as little-endian float64, values as float32, each array once: a line, the one that it smooths and
    its range share their steps. Cost: linear, a millisecond for a dozen charts of 400 buckets.

    >>> import numpy as np
    >>> x = np.array([0.0, 1.0])
    >>> line = {"x": x, "y": x, "mode": "lines", "meta": {"name": "a", "group": "a"}}
    >>> made = board([Drawing("light", "t", [line, line], {"height": 100})])
    >>> [(trace["x"], trace["y"]) for trace in made["charts"][0]["traces"]], len(made["arrays"])
    ([(0, 1), (0, 1)], 2)
    """
    places: dict[str, int] = {}
    charts = [drawing.message() for drawing in drawings]
    for chart in charts:
        for trace in chart["traces"]:
            for axis, kind in (("x", "<f8"), ("y", "<f4")):
                trace[axis] = places.setdefault(packed(trace[axis], kind), len(places))
    return {"charts": charts, "arrays": list(places)}
