"""The interval: which bound pushed it where, in how much time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gfviz.figures.palette import blank, theme_of, translucent
from gfviz.figures.text import duration, number, plotly_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from gfviz.gromov import GromovResult


def ladder_figure(result: GromovResult, theme: str = "light") -> go.Figure:
    """Every rung of a result at its value: lower bounds point right, upper bounds left, the interval is shaded.

    One row a rung in the order it was spent; the best of each side is filled, rungs that were left out are not drawn.
    """
    import plotly.graph_objects as go

    colors = theme_of(theme)
    drawn = [rung for rung in result.rungs if rung.value is not None]
    figure = blank(theme, 90 + 26 * max(len(drawn), 3))
    if not drawn:
        return blank(theme, 160, note="No bound was computed")
    names = [f"{plotly_text(rung.name)} " for rung in drawn]
    rows = list(range(len(drawn)))
    figure.add_vrect(x0=result.lower, x1=result.upper, fillcolor=translucent(colors.accent, 0.14), line_width=0)
    for side, symbol, color, best in (
        ("lower", "triangle-right", colors.accent, result.lower_rung),
        ("upper", "triangle-left", colors.contrast, result.upper_rung),
    ):
        chosen = [row for row in rows if drawn[row].side == side]
        values = [drawn[row].value for row in chosen]
        figure.add_trace(
            go.Scatter(
                x=values,
                y=chosen,
                mode="markers+text",
                name=f"{side} bound",
                text=[f"  {number(value)}  " for value in values],
                textposition="middle left" if side == "lower" else "middle right",
                textfont={"size": 11, "color": colors.quiet},
                marker={
                    "symbol": [symbol if drawn[row].name == best else f"{symbol}-open" for row in chosen],
                    "size": 12,
                    "color": color,
                    "line": {"width": 1.5, "color": color},
                },
                customdata=[[names[row], duration(drawn[row].seconds), plotly_text(drawn[row].note)] for row in chosen],
                hovertemplate="<b>%{customdata[0]}</b> %{x:.6g}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>",
                cliponaxis=False,
            )
        )
    figure.update_yaxes(tickvals=rows, ticktext=names, range=[len(drawn) - 0.4, -0.6], showgrid=False, zeroline=False)
    spent = np.array([rung.value for rung in drawn], np.float64)
    spread = max(float(spent.max() - spent.min()), 1e-12 + 0.05 * float(np.abs(spent).max()))
    figure.update_xaxes(
        title_text=f"GW<sub>{result.p:g}</sub>",
        # Room for the numbers beside the outermost marks, in a narrow column too.
        range=[float(spent.min()) - 0.26 * spread, float(spent.max()) + 0.26 * spread],
    )
    return figure


def interval_figure(result: GromovResult, theme: str = "light") -> go.Figure:
    """How the interval closed: lower and upper end after each rung, over the time spent."""
    import plotly.graph_objects as go

    colors = theme_of(theme)
    clock = np.cumsum([rung.seconds for rung in result.rungs])
    lower, upper = [], []
    low, high = 0.0, np.nan
    for rung in result.rungs:
        if rung.value is not None and rung.side == "lower":
            low = max(low, rung.value)
        elif rung.value is not None:
            high = float(np.nanmin([high, rung.value]))
        lower.append(low)
        upper.append(high)
    figure = blank(theme, 240)
    style = {"mode": "lines", "line": {"shape": "hv", "width": 2}}
    figure.add_trace(go.Scatter(x=clock, y=lower, name="lower", **style, line_color=colors.accent))
    # Before the first upper bound there is no interval: nothing is filled there.
    begun = int(np.isfinite(upper).argmax()) if np.isfinite(upper).any() else len(upper)
    floor = {"mode": "lines", "line": {"shape": "hv", "width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_trace(go.Scatter(x=clock[begun:], y=lower[begun:], **floor))
    figure.add_trace(
        go.Scatter(
            x=clock[begun:],
            y=upper[begun:],
            name="upper",
            **style,
            line_color=colors.contrast,
            fill="tonexty",
            fillcolor=translucent(colors.accent, 0.12),
        )
    )
    figure.update_xaxes(title_text="seconds spent", rangemode="tozero")
    return figure.update_yaxes(title_text=f"GW<sub>{result.p:g}</sub>", rangemode="tozero")


def share_figure(labels: list[str], shares: np.ndarray, theme: str = "light", limit: int = 15) -> go.Figure:
    """The nodes that carry the distance: horizontal bars of their share of the objective, largest first."""
    import plotly.graph_objects as go

    order = np.argsort(-np.asarray(shares), kind="stable")[:limit]
    figure = blank(theme, 60 + 22 * max(len(order), 3))
    figure.add_trace(
        go.Bar(
            x=np.asarray(shares)[order],
            y=list(range(len(order))),
            orientation="h",
            marker_color=theme_of(theme).accent,
            hovertemplate="%{x:.2%}<extra></extra>",
        )
    )
    figure.update_yaxes(
        tickvals=list(range(len(order))),
        ticktext=[plotly_text(labels[k]) for k in order],
        autorange="reversed",
        showgrid=False,
    )
    return figure.update_xaxes(tickformat=".0%", title_text="share of the objective")
