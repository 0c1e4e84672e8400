"""The error study's short table as a figure: how far from the truth each method is, by family and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gfviz.errors import GfvizError
from gfviz.figures.palette import blank, series_color, theme_of
from gfviz.figures.text import plotly_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

DASHES = ("solid", "dash", "dot")


def ratio_figure(table: pd.DataFrame, methods: list[str], theme: str = "light") -> go.Figure:
    """Median bound over truth against size, a line a method: below 1 lower bounds, above 1 upper ones, 1 is the truth.

    `table` is `gfviz.study.validate.summary`'s (family, size, side, method, lower_ratio, upper_ratio); several families
    are averaged with equal weight. Raises `GfvizError` where a method is not in the table.
    """
    import plotly.graph_objects as go

    missing = sorted(set(methods) - set(table["method"]))
    if missing:
        raise GfvizError(f"the study's table has no method {', '.join(missing)}")
    figure = blank(theme, 330)
    for index, method in enumerate(methods):
        rows = table[table["method"] == method]
        for side in ("lower", "upper"):
            ratio = rows.groupby("size")[f"{side}_ratio"].mean().dropna()
            if ratio.empty:
                continue
            shown = plotly_text(method)
            figure.add_trace(
                go.Scatter(
                    x=ratio.index.to_numpy(),
                    y=ratio.to_numpy(np.float64),
                    mode="lines+markers",
                    name=shown,
                    legendgroup=shown,
                    showlegend=not any(trace.name == shown for trace in figure.data),
                    line={"color": series_color(index % 6, theme), "dash": DASHES[index // 6 % 3], "width": 2},
                    hovertemplate=f"{shown}, n = %{{x}}: %{{y:.3g}} of the truth<extra></extra>",
                )
            )
    figure.add_hline(y=1.0, line={"color": theme_of(theme).quiet, "width": 1})
    figure.update_xaxes(title_text="nodes", type="log", dtick="D2")
    return figure.update_yaxes(title_text="bound / truth, median", type="log")
