"""Lines over training steps: raw beside smoothed, ranges of buckets, intervals of distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gfviz.figures.drawing import Drawing
from gfviz.figures.palette import series_color, theme_of, translucent
from gfviz.figures.text import plotly_text, visible_token

if TYPE_CHECKING:
    import plotly.graph_objects as go


BROKEN = ("dash", "dot", "dashdot", "longdash")
FEW = 3
"""Fewer points than this are drawn as they are, each with a mark: a mean of two would be read as a measurement."""


class Line(NamedTuple):
    """A series ready to draw: steps, values (a bucket's mean), and the buckets' ranges where there are any."""

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average without the start's bias (Kingma and Ba 2015, section 3); NaN rows pass through.

    >>> import numpy as np
    >>> smoothed(np.array([1.0, 1.0, 3.0]), 0.5).round(4).tolist()
    [1.0, 1.0, 2.1429]
    """
    values = np.asarray(values, np.float64)
    if weight <= 0:
        return values.copy()
    out = np.full(len(values), np.nan)
    mean = total = 0.0
    for k, value in enumerate(values.tolist()):
        if value == value and abs(value) != float("inf"):
            mean = weight * mean + (1 - weight) * value
            total = weight * total + (1 - weight)
            out[k] = mean / total
    return out


def curve_figure(
    lines: Mapping[str, Line],
    theme: str = "light",
    smoothing: float = 0.6,
    title: str = "",
    log_y: bool = False,
    height: int = 280,
    total_steps: int | None = None,
    beside: Mapping[str, Line] | None = None,
) -> go.Figure:
    """`curve_drawing` as a Plotly figure."""
    return curve_drawing(lines, theme, smoothing, title, log_y, height, total_steps, beside).figure()


def curve_drawing(
    lines: Mapping[str, Line],
    theme: str = "light",
    smoothing: float = 0.6,
    title: str = "",
    log_y: bool = False,
    height: int = 280,
    total_steps: int | None = None,
    beside: Mapping[str, Line] | None = None,
) -> Drawing:
    """Lines over steps: the smoothed line in full colour over the raw one (or the buckets' range) in light colour.

    `beside` are lines of other runs to judge by: thin, grey and broken, smoothed alike.
    """
    if not lines:
        return Drawing(theme, title, [], {"height": height}, "Nothing logged yet")
    traces = [_beside(name, line, smoothing, theme, index) for index, (name, line) in enumerate((beside or {}).items())]
    for index, (name, line) in enumerate(lines.items()):
        traces += _curve(name, line, smoothing, series_color(index, theme), index)
    entries = len(lines) + len(beside or {})
    layout: dict[str, Any] = {"height": height, "showlegend": entries > 1, "xaxis": _steps_axis(total_steps)}
    if log_y:
        layout["yaxis"] = {"type": "log"}
    return Drawing(theme, title, traces, layout | _legend_below(entries, height))


def _named(name: str, group: str) -> dict[str, str]:
    """What a trace is called as plain text: a line, and its entry in the legend."""
    return {"name": visible_token(name), "group": visible_token(group)}


def _curve(name: str, line: Line, smoothing: float, color: str, index: int) -> list[dict[str, Any]]:
    """A line, and under it what it was made from."""
    smoothing = _weight(line, smoothing)
    traces = []
    shown = plotly_text(name)
    if line.low is not None and line.high is not None:
        traces.append(_band(name, line.steps, line.low, line.high, color))
    elif smoothing > 0:
        traces.append(
            {
                "x": line.steps,
                "y": line.values.astype(np.float32),
                "mode": "lines",
                "line": {"color": translucent(color, 0.3), "width": 1},
                "hoverinfo": "skip",
                "showlegend": False,
                "meta": _named(name, name),
            }
        )
    traces.append(
        {
            "x": line.steps,
            "y": smoothed(line.values, smoothing).astype(np.float32),
            "mode": "lines+markers" if len(line.steps) < FEW else "lines",
            "name": shown,
            "meta": _named(name, name),
            "line": {"color": color, "width": 2, "dash": "solid" if index < 6 else "dot"},
            "hovertemplate": f"{shown}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
        }
    )
    return traces


def _weight(line: Line, smoothing: float) -> float:
    return smoothing if len(line.steps) >= FEW else 0.0


def _steps_axis(total_steps: int | None) -> dict[str, Any]:
    return {"range": [0, 1.02 * total_steps] if total_steps else None}


def _legend_below(entries: int, height: int, beyond: int = 3) -> dict[str, Any]:
    """Layout that puts the legend under the plot where more than `beyond` entries would run into the title."""
    if entries <= beyond:
        return {}
    rows = -(-entries // 3)
    height += 20 * rows
    place = {"x": 0, "xanchor": "left", "y": -46 / (height - 90), "yanchor": "top"}
    return {"height": height, "legend": place, "margin": {"b": 30 + 20 * rows}}


def _beside(name: str, line: Line, smoothing: float, theme: str, index: int) -> dict[str, Any]:
    shown = plotly_text(name)
    return {
        "meta": _named(name, name),
        "x": line.steps,
        "y": smoothed(line.values, _weight(line, smoothing)).astype(np.float32),
        "mode": "lines+markers" if len(line.steps) < FEW else "lines",
        "name": shown,
        "line": {"color": theme_of(theme).quiet, "width": 1.2, "dash": BROKEN[index % len(BROKEN)]},
        "marker": {"size": 6, "symbol": "circle-open"},
        "hovertemplate": f"{shown}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
    }


def _band(group: str, steps: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> dict[str, Any]:
    # One closed outline draws in one pass; NaN would cut it, so gaps are bridged.
    keep = np.isfinite(low) & np.isfinite(high)
    steps, low, high = steps[keep], low[keep], high[keep]
    return {
        "x": np.concatenate([steps, steps[::-1]]),
        "y": np.concatenate([high, low[::-1]]).astype(np.float32),
        "meta": _named(group, group),
        "fill": "toself",
        "fillcolor": translucent(color, 0.16),
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


Bands = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def distance_figure(
    bands: Bands,
    theme: str = "light",
    title: str = "",
    height: int = 280,
    total_steps: int | None = None,
) -> go.Figure:
    """`distance_drawing` as a Plotly figure."""
    return distance_drawing(bands, theme, title, height, total_steps).figure()


def distance_drawing(
    bands: Bands,
    theme: str = "light",
    title: str = "",
    height: int = 280,
    total_steps: int | None = None,
) -> Drawing:
    """Certified distance student–teacher over steps: per teacher (steps, lower, upper) as a band with both ends."""
    if not bands:
        return Drawing(theme, title, [], {"height": height}, "No graph compared yet")
    traces = []
    for index, (teacher, (steps, lower, upper)) in enumerate(bands.items()):
        color = series_color(index, theme)
        shown = plotly_text(teacher)
        traces.append(_band(teacher, steps, np.asarray(lower, float), np.asarray(upper, float), color))
        for values, name, dash, legend in ((upper, "at most", "solid", True), (lower, "at least", "dot", False)):
            traces.append(
                {
                    "x": steps,
                    "y": np.asarray(values, np.float32),
                    "mode": "lines+markers" if len(steps) < 40 else "lines",
                    "marker": {"size": 5},
                    "name": shown,
                    "meta": _named(f"{teacher}, {name}", teacher),
                    "showlegend": legend,
                    "legendgroup": shown,
                    "line": {"color": color, "width": 1.8, "dash": dash},
                    "hovertemplate": f"{shown}, step %{{x}}: {name} %{{y:.5g}}<extra></extra>",
                }
            )
    layout = {"height": height, "xaxis": _steps_axis(total_steps), "yaxis": {"rangemode": "tozero"}}
    return Drawing(theme, title, traces, layout)


def lines_of(series: Mapping[str, Sequence]) -> dict[str, Line]:
    """Buckets or series as read from a run, as lines; those without a row are left out."""
    out = {}
    for name, rows in series.items():
        if len(rows[0]) == 0:
            continue
        if hasattr(rows, "mean") and hasattr(rows, "low"):
            packed = bool(np.any(rows.rows > 1))  # type: ignore[attr-defined]
            out[name] = Line(rows.last, rows.mean, rows.low if packed else None, rows.high if packed else None)  # type: ignore[attr-defined]
        else:
            out[name] = Line(np.asarray(rows[0]), np.asarray(rows[1]))
    return out
