"""The error study's short table as figures: how far from the truth each method is, by family and size, and its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.figures.palette import blank, series_color, theme_of
from gfviz.figures.text import plotly_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross", "x", "star", "hexagon")
GROWTH: dict[str, tuple[str, dict[str, Any]]] = {
    "error": ("|value / truth − 1|, median", {"rangemode": "tozero", "tickformat": ".0%"}),
    "gap": ("(upper − lower) / upper, median", {"rangemode": "tozero"}),
    "seconds": ("seconds, median", {"type": "log", "dtick": "D2", "exponentformat": "power"}),
}
"""Column of the table → the axis that it is drawn on."""


def line_of(index: int, theme: str = "light") -> dict[str, Any]:
    """The line of a plot's method number `index`: six colours, then the same with dashes."""
    return {"color": series_color(index % 6, theme), "dash": DASHES[index // 6 % 3], "width": 2}


def marker_of(index: int, theme: str = "light") -> dict[str, Any]:
    """The mark of a plot's method number `index`: six colours, nine symbols."""
    return {"color": series_color(index % 6, theme), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9}


def at_common_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """The rows at the sizes that as many families reach as any: a mean at another would be over other graphs."""
    reached = table.groupby("size")["family"].nunique()
    return table[table["size"].isin(reached[reached == reached.max()].index)]


def _add_curve(figure: go.Figure, values: pd.Series, method: str, line: dict[str, Any], of_what: str = "") -> None:
    """Values against size (the index); a method that is in the figure already gets no second entry in its legend."""
    import plotly.graph_objects as go

    shown = plotly_text(method)
    figure.add_trace(
        go.Scatter(
            x=values.index.to_numpy(),
            y=values.to_numpy(np.float64),
            mode="lines+markers",
            name=shown,
            legendgroup=shown,
            showlegend=not any(trace.name == shown for trace in figure.data),
            line=line,
            hovertemplate=f"{shown}, n = %{{x}}: %{{y:.3g}}{of_what}<extra></extra>",
        )
    )


def ratio_figure(table: pd.DataFrame, methods: list[str], theme: str = "light") -> go.Figure:
    """Median bound over truth against size, a line a method: below 1 lower bounds, above 1 upper ones, 1 is the truth.

    `table` is `gfviz.study.validate.summary`'s (family, size, side, method, lower_ratio, upper_ratio); several families
    are averaged with equal weight. Raises `GfvizError` where a method is not in the table.
    """
    _check(table, methods)
    figure = blank(theme, 330)
    for index, method in enumerate(methods):
        rows = table[table["method"] == method]
        for side in ("lower", "upper"):
            ratio = rows.groupby("size")[f"{side}_ratio"].mean().dropna()
            if ratio.empty:
                continue
            _add_curve(figure, ratio, method, line_of(index, theme), " of the truth")
    figure.add_hline(y=1.0, line={"color": theme_of(theme).quiet, "width": 1})
    figure.update_xaxes(title_text="nodes", type="log", dtick="D2")
    return figure.update_yaxes(title_text="bound / truth, median", type="log")


def _check(table: pd.DataFrame, methods: list[str]) -> None:
    missing = sorted(set(methods) - set(table["method"]))
    if missing:
        raise GfvizError(f"the study's table has no method {', '.join(missing)}")


def tightness_figure(table: pd.DataFrame, methods: list[str], theme: str = "light") -> go.Figure:
    """Median bound over truth: a row a family, a mark a method, the truth a line at 1. Sizes are averaged.

    Raises `GfvizError` where a method is not in the table.
    """
    import plotly.graph_objects as go

    _check(table, methods)
    families = list(dict.fromkeys(table["family"]))
    figure = blank(theme, 110 + 26 * max(len(families), 3))
    for index, method in enumerate(methods):
        rows = table[table["method"] == method]
        for side in ("lower", "upper"):
            ratio = rows.groupby("family", sort=False)[f"{side}_ratio"].mean()
            ratio = ratio[ratio > 0]
            if ratio.empty:
                continue
            shown = plotly_text(method)
            figure.add_trace(
                go.Scatter(
                    x=ratio.to_numpy(np.float64),
                    y=[families.index(name) for name in ratio.index],
                    mode="markers",
                    name=shown,
                    legendgroup=shown,
                    showlegend=not any(trace.name == shown for trace in figure.data),
                    marker=marker_of(index, theme),
                    customdata=[plotly_text(name) for name in ratio.index],
                    hovertemplate=f"{shown}, %{{customdata}}: %{{x:.3g}} of the truth<extra></extra>",
                )
            )
    figure.add_vline(x=1.0, line={"color": theme_of(theme).quiet, "width": 1})
    figure.update_yaxes(
        tickvals=list(range(len(families))),
        ticktext=[f"{plotly_text(name)} " for name in families],
        range=[len(families) - 0.5, -0.5],
        zeroline=False,
    )
    return figure.update_xaxes(title_text="bound / truth, median", type="log", dtick="D1")


def growth_figure(table: pd.DataFrame, methods: list[str], column: str, theme: str = "light") -> go.Figure:
    """A column of `GROWTH` against size, a line a method; the families are averaged with equal weight.

    Only the sizes that as many of the table's families reach as any: the mean at another would be over other graphs.
    Raises `GfvizError` where a method is not in the table or the column is none of these.
    """
    _check(table, methods)
    if column not in GROWTH:
        raise GfvizError(f"column = {column!r} is unknown: choose one of {', '.join(GROWTH)}")
    title, axis = GROWTH[column]
    figure = blank(theme, 330)
    common = at_common_sizes(table)
    for index, method in enumerate(methods):
        curve = common[common["method"] == method].groupby("size")[column].mean().dropna()
        if curve.empty:
            continue
        _add_curve(figure, curve, method, line_of(index, theme))
    figure.update_xaxes(title_text="nodes", type="log", dtick="D2")
    return figure.update_yaxes(title_text=title, **axis)
