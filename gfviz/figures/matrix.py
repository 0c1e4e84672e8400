"""The graph as a matrix, its profile, and the mass that top-k dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gfviz.errors import GfvizError
from gfviz.figures.palette import blank, theme_of, translucent
from gfviz.figures.text import plotly_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from gfviz.graph import CoactivationGraph

HEAT_LIMIT = 256


def heat_figure(graph: CoactivationGraph, theme: str = "light", log: bool = True, limit: int = 64) -> go.Figure:
    """Heat map of C over its first `limit` ranks, or its `limit` strongest tokens; log₁₀ |C| unless `log` is off.

    Raises `GfvizError` for a limit above 256: more cells than pixels say nothing.
    """
    import plotly.graph_objects as go

    if not 1 <= limit <= HEAT_LIMIT:
        raise GfvizError(f"limit = {limit}: a heat map shows 1 to {HEAT_LIMIT} nodes")
    strongest = np.argsort(-np.abs(graph.strength()), kind="stable")[:limit]
    chosen = np.arange(min(limit, graph.n)) if graph.nodes == "rank" else strongest
    matrix = graph.part(chosen).toarray()
    shown = np.full(matrix.shape, np.nan, np.float32)
    np.log10(np.abs(matrix), out=shown, where=matrix != 0, casting="unsafe") if log else np.copyto(shown, matrix)
    names = [plotly_text(graph.labels[node]) for node in chosen]
    figure = blank(theme, 460)
    colors = theme_of(theme)
    figure.add_trace(
        go.Heatmap(
            z=shown,
            customdata=matrix.astype(np.float32),
            colorscale=[[k / (len(colors.scale) - 1), color] for k, color in enumerate(colors.scale)],
            colorbar={"title": {"text": "log₁₀ C" if log else "C"}, "thickness": 12, "outlinewidth": 0},
            text=[[f"{a} × {b}" for b in names] for a in names],
            hovertemplate="%{text}<br>C = %{customdata:.4g}<extra></extra>",
        )
    )
    ticks = {"tickvals": list(range(len(names))), "ticktext": names} if len(names) <= 32 else {}
    if not ticks:
        step = max(1, len(names) // 8)
        ticks = {"tickvals": list(range(0, len(names), step)), "ticktext": names[::step]}
    figure.update_xaxes(showgrid=False, constrain="domain", **ticks)
    return figure.update_yaxes(showgrid=False, autorange="reversed", scaleanchor="x", constrain="domain", **ticks)


def profile_figure(graphs: dict[str, CoactivationGraph], theme: str = "light") -> go.Figure:
    """Sorted row means f_C of one or two graphs over the quantile of node weight: what the closed form compares."""
    import plotly.graph_objects as go

    figure = blank(theme, 280)
    for name, graph in graphs.items():
        means = graph.row_means()
        order = np.argsort(-means, kind="stable")
        quantile = np.cumsum(graph.weights[order])
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([[0.0], quantile]).astype(np.float32),
                y=np.concatenate([means[order][:1], means[order]]).astype(np.float32),
                mode="lines",
                line={"shape": "vh", "width": 2},
                name=plotly_text(name),
            )
        )
    figure.update_xaxes(title_text="share of node weight", range=[0, 1])
    return figure.update_yaxes(title_text="row mean f, sorted", type="log")


def tail_figure(tail: np.ndarray, theme: str = "light") -> go.Figure:
    """Histogram of the probability mass that top-k dropped, one value a position in [0, 1]."""
    import plotly.graph_objects as go

    tail = np.asarray(tail, np.float64).ravel()
    tail = tail[np.isfinite(tail)]
    if not len(tail):
        return blank(theme, 220, note="No position counted")
    counts, borders = np.histogram(tail, bins=40, range=(0.0, max(float(tail.max()), 1e-6)))
    colors = theme_of(theme)
    figure = blank(theme, 220)
    figure.add_trace(
        go.Bar(
            x=(borders[1:] + borders[:-1]) / 2,
            y=counts,
            width=np.diff(borders),
            marker={"color": translucent(colors.accent, 0.75), "line": {"width": 0}},
            hovertemplate="dropped mass %{x:.3g}: %{y} positions<extra></extra>",
        )
    )
    figure.add_vline(x=float(tail.mean()), line={"color": colors.contrast, "width": 1.5})
    figure.update_xaxes(title_text="probability outside the top k")
    return figure.update_yaxes(title_text="positions")
