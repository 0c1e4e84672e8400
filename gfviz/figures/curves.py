"""Lines over training steps: raw beside smoothed, ranges of buckets, intervals of distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gfviz.figures.palette import blank, series_color, theme_of, translucent
from gfviz.figures.text import plotly_text

if TYPE_CHECKING:
    import plotly.graph_objects as go


BROKEN = ("dash", "dot", "dashdot", "longdash")


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
    """Lines over steps: the smoothed line in full colour over the raw one (or the buckets' range) in light colour.

    `beside` are lines of other runs to judge by: thin, grey and broken, smoothed alike.
    """
    import plotly.graph_objects as go

    if not lines:
        return blank(theme, height, title, "Nothing logged yet")
    figure = blank(theme, height, title)
    for index, (name, line) in enumerate((beside or {}).items()):
        figure.add_trace(_beside(plotly_text(name), line, smoothing, theme, index))
    for index, (name, line) in enumerate(lines.items()):
        color = series_color(index, theme)
        shown = plotly_text(name)
        if line.low is not None and line.high is not None:
            figure.add_trace(_band(line.steps, line.low, line.high, color))
        elif smoothing > 0 and len(line.steps) > 2:
            figure.add_trace(
                go.Scatter(
                    x=line.steps,
                    y=line.values.astype(np.float32),
                    mode="lines",
                    line={"color": translucent(color, 0.3), "width": 1},
                    hoverinfo="skip",
                    showlegend=False,
                )
            )
        few = len(line.steps) < 3
        figure.add_trace(
            go.Scatter(
                x=line.steps,
                y=smoothed(line.values, smoothing).astype(np.float32),
                mode="lines+markers" if few else "lines",
                name=shown,
                line={"color": color, "width": 2, "dash": "solid" if index < 6 else "dot"},
                hovertemplate=f"{shown}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
            )
        )
    if log_y:
        figure.update_yaxes(type="log")
    figure.update_xaxes(range=[0, 1.02 * total_steps] if total_steps else None)
    return below(figure.update_layout(showlegend=len(lines) + len(beside or {}) > 1))


def below(figure: go.Figure, beyond: int = 3) -> go.Figure:
    """Put the legend under the plot where more than `beyond` entries would run into the title."""
    shown = sum(trace.showlegend is not False for trace in figure.data)
    if shown <= beyond or figure.layout.showlegend is False:
        return figure
    rows = -(-shown // 3)
    height = figure.layout.height + 20 * rows
    place = {"x": 0, "xanchor": "left", "y": -46 / (height - 90), "yanchor": "top"}
    return figure.update_layout(height=height, legend=place, margin={"b": 30 + 20 * rows})


def _beside(shown: str, line: Line, smoothing: float, theme: str, index: int) -> go.Scatter:
    import plotly.graph_objects as go

    few = len(line.steps) < 3
    return go.Scatter(
        x=line.steps,
        y=smoothed(line.values, smoothing).astype(np.float32),
        mode="lines+markers" if few else "lines",
        name=shown,
        line={"color": theme_of(theme).quiet, "width": 1.2, "dash": BROKEN[index % len(BROKEN)]},
        marker={"size": 6, "symbol": "circle-open"},
        hovertemplate=f"{shown}<br>step %{{x}}: %{{y:.5g}}<extra></extra>",
    )


def _band(steps: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> go.Scatter:
    import plotly.graph_objects as go

    # One closed outline draws in one pass; NaN would cut it, so gaps are bridged.
    keep = np.isfinite(low) & np.isfinite(high)
    steps, low, high = steps[keep], low[keep], high[keep]
    return go.Scatter(
        x=np.concatenate([steps, steps[::-1]]),
        y=np.concatenate([high, low[::-1]]).astype(np.float32),
        fill="toself",
        fillcolor=translucent(color, 0.16),
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def distance_figure(
    bands: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    theme: str = "light",
    title: str = "",
    height: int = 280,
    total_steps: int | None = None,
    at_step: int | None = None,
) -> go.Figure:
    """Certified distance student–teacher over steps: per teacher (steps, lower, upper) as a band with both ends."""
    import plotly.graph_objects as go

    if not bands:
        return blank(theme, height, title, "No graph compared yet")
    figure = blank(theme, height, title)
    for index, (teacher, (steps, lower, upper)) in enumerate(bands.items()):
        color = series_color(index, theme)
        shown = plotly_text(teacher)
        figure.add_trace(_band(steps, np.asarray(lower, float), np.asarray(upper, float), color))
        for values, name, dash, legend in ((upper, "at most", "solid", True), (lower, "at least", "dot", False)):
            figure.add_trace(
                go.Scatter(
                    x=steps,
                    y=np.asarray(values, np.float32),
                    mode="lines+markers" if len(steps) < 40 else "lines",
                    marker={"size": 5},
                    name=shown,
                    showlegend=legend,
                    legendgroup=shown,
                    line={"color": color, "width": 1.8, "dash": dash},
                    hovertemplate=f"{shown}, step %{{x}}: {name} %{{y:.5g}}<extra></extra>",
                )
            )
    if at_step is not None:
        figure.add_vline(x=at_step, line={"color": theme_of(theme).quiet, "width": 1, "dash": "dash"})
    figure.update_yaxes(rangemode="tozero")
    return figure.update_xaxes(range=[0, 1.02 * total_steps] if total_steps else None)


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
