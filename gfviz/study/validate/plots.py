"""The figures of the report: pure functions from the study's tables to Plotly figures without colours of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gfviz.figures import plotly_text
from gfviz.figures.study import at_common_sizes, line_of, marker_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

LOWER = ("sorted", "centred", "spectral", "entries", "rows", "gilmore_lawler")
UPPER = ("sorted_coupling", "POT", "POT starts")
BUDGETS = ("fast", "standard", "thorough")
ORDERED = ("paper", "sorted", "centred", "spectral", "entries", "rows", "gilmore_lawler", "sorted_coupling", "POT")
ERRORS = ("sorted", "centred", "spectral", "gilmore_lawler", "sorted_coupling", "POT", "standard")
ALL = "all families"


def telling_sizes(table: pd.DataFrame) -> list[int]:
    """At most two sizes: the one with most pairs among the smaller, and 64 (or the largest that is below)."""
    counts = table[table["p"] == 2].groupby("size")["pair"].nunique()
    small = counts[counts.index <= 12]
    found = [int(small.idxmax())] if len(small) else []
    large = [int(size) for size in counts.index if 12 < size <= 64]
    return found + ([max(large)] if large else [])


def proven_share(table: pd.DataFrame, size: int) -> float:
    """Share of the pairs of a size whose distance is proven."""
    pairs = table[(table["size"] == size) & (table["p"] == 2)].drop_duplicates(["family", "pair"])
    return float((pairs["truth_kind"] == "proven").mean())


def _usable(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["p"] == 2) & (table["status"] == "ok")]


def _figure(height: int, x: dict[str, Any], y: dict[str, Any]) -> go.Figure:
    import plotly.graph_objects as go

    # Beside the plot: above it, a legend of many entries pushes the axes aside.
    legend = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
    margin = {"t": 60, "l": 20, "r": 20}
    return go.Figure(layout={"height": height, "xaxis": x, "yaxis": y, "legend": legend, "margin": margin})


def tightness(table: pd.DataFrame, size: int) -> go.Figure:
    """Median bound over truth: a row a family, a mark a method, the distance itself a line at 1."""
    import plotly.graph_objects as go

    at = _usable(table)
    at = at[at["size"] == size]
    families = list(dict.fromkeys(at["family"]))
    figure = _figure(
        130 + 34 * len(families),
        {"title": {"text": "bound / distance"}, "type": "log", "dtick": "D1"},
        {"autorange": "reversed", "type": "category"},
    )
    for index, (method, end) in enumerate([*((m, "lower") for m in LOWER), *((m, "upper") for m in UPPER)]):
        medians = at[at["method"] == method].groupby("family", sort=False)[f"{end}_ratio"].median()
        medians = medians[medians > 0]
        if medians.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=medians.to_numpy(),
                y=[plotly_text(name) for name in medians.index],
                mode="markers",
                name=plotly_text(method),
                marker=marker_of(index),
                hovertemplate="%{y}: %{x:.3f}",
            )
        )
    figure.add_vline(x=1, line={"width": 1.5, "color": "#808890"})
    return figure


def _by_family(
    table: pd.DataFrame, methods: Sequence[str], column: str, how: str, y: dict[str, Any], height: int = 460
) -> go.Figure:
    """Lines of a column against n, one a method, with a menu of families."""
    import plotly.graph_objects as go

    square = table[table["family"].isin(table.loc[table["assignable"], "family"].unique())]
    common = at_common_sizes(square)
    views = [(ALL, common), *((name, part) for name, part in table.groupby("family", sort=False))]
    figure = _figure(height, {"title": {"text": "nodes n"}, "type": "log", "dtick": 0.30103}, y)
    for number, (_, part) in enumerate(views):
        for index, method in enumerate(methods):
            curve = part[part["method"] == method].groupby("size")[column].agg(how).dropna()
            figure.add_trace(
                go.Scatter(
                    x=curve.index.to_numpy(dtype=float),
                    y=curve.to_numpy(),
                    mode="lines+markers",
                    name=plotly_text(method),
                    line=line_of(index),
                    marker={**marker_of(index), "size": 7},
                    visible=number == 0,
                    hovertemplate="n = %{x}: %{y:.3g}",
                )
            )
    _menu(figure, [name for name, _ in views], len(methods))
    return figure


def _menu(figure: go.Figure, names: Sequence[str], traces_each: int) -> None:
    """A menu above the plot that shows one view's traces at a time."""
    total = traces_each * len(names)
    buttons = [
        {
            "label": plotly_text(name),
            "method": "restyle",
            "args": [{"visible": [index // traces_each == number for index in range(total)]}],
        }
        for number, name in enumerate(names)
    ]
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "showactive": True}
    # The menu has a background of its own, in either setting of the page.
    menu |= {"bgcolor": "#f5f6f8", "bordercolor": "#c4cad1", "font": {"color": "#1b1f24"}}
    figure.update_layout(updatemenus=[menu])


def error_by_size(table: pd.DataFrame) -> go.Figure:
    """Median relative error against n."""
    y = {"title": {"text": "|value / distance − 1|"}, "rangemode": "tozero", "tickformat": ".0%"}
    return _by_family(_usable(table), ERRORS, "error", "median", y)


def gap_by_size(table: pd.DataFrame) -> go.Figure:
    """Mean gap against n, a line a budget."""
    y = {"title": {"text": "(upper − lower) / upper"}, "rangemode": "tozero"}
    return _by_family(_usable(table), BUDGETS, "gap", "mean", y)


def time_by_size(table: pd.DataFrame) -> go.Figure:
    """Median processor seconds against n, budgets and POT."""
    y = {"title": {"text": "seconds"}, "type": "log", "dtick": "D2", "exponentformat": "power"}
    return _by_family(_usable(table), (*BUDGETS, "paper", "POT"), "cpu_seconds", "median", y)


def order_scatter(table: pd.DataFrame, size: int) -> go.Figure:
    """What each method says against the distance, a point a pair, with a menu of families."""
    import plotly.graph_objects as go

    at = _usable(table)
    at = at[at["size"] == size]
    methods = ("sorted", "centred", "gilmore_lawler", "POT")
    figure = _figure(
        480,
        {"title": {"text": "distance"}, "rangemode": "tozero"},
        {"title": {"text": "what the method says"}, "rangemode": "tozero"},
    )
    names = list(dict.fromkeys(at["family"]))
    for number, name in enumerate(names):
        part = at[at["family"] == name]
        for index, method in enumerate(methods):
            points = part[part["method"] == method]
            figure.add_trace(
                go.Scatter(
                    x=points["truth"].to_numpy(),
                    y=points["value"].to_numpy(),
                    mode="markers",
                    name=method,
                    marker=marker_of(index),
                    visible=number == 0,
                    hovertemplate="distance %{x:.4g}, says %{y:.4g}",
                )
            )
        end = float(part["truth"].max())
        line = {"width": 1, "color": "#808890", "dash": "dot"}
        figure.add_trace(go.Scatter(x=[0, end], y=[0, end], mode="lines", name="equal", line=line, visible=number == 0))
    _menu(figure, names, len(methods) + 1)
    return figure


def _curves(width: pd.DataFrame, x: str) -> list[tuple[str, pd.DataFrame]]:
    """Per pair of models the rows along `x`, everything else at its largest."""
    other = "positions" if x == "k" else "k"
    found = []
    for (first, second), part in width.groupby(["first", "second"], sort=False):
        at = part[part[other] == part[other].max()].drop_duplicates(x).sort_values(x)
        found.append((plotly_text(f"{first} and {second}"), at))
    return found


def tail_by_k(width: pd.DataFrame) -> go.Figure:
    """Mean dropped probability against k, a line a model."""
    import plotly.graph_objects as go

    figure = _figure(
        380,
        {"title": {"text": "k"}, "type": "log", "dtick": 0.30103},
        {"title": {"text": "probability left out"}, "rangemode": "tozero", "tickformat": ".0%"},
    )
    seen: dict[str, pd.DataFrame] = {}
    for side in ("first", "second"):
        for name, part in width.groupby(side, sort=False):
            at = part[part["positions"] == part["positions"].max()].drop_duplicates("k").sort_values("k")
            seen.setdefault(str(name), at.rename(columns={f"tail_{side}": "tail"}))
    for index, (name, at) in enumerate(seen.items()):
        figure.add_trace(
            go.Scatter(x=at["k"], y=at["tail"], mode="lines+markers", name=plotly_text(name), line=line_of(index))
        )
    return figure


def _interval_curves(width: pd.DataFrame, x: str, title: str) -> go.Figure:
    import plotly.graph_objects as go

    figure = _figure(
        400,
        {"title": {"text": title}, "type": "log", "dtick": 0.30103},
        {"title": {"text": "k · GW"}, "rangemode": "tozero"},
    )
    for index, (name, at) in enumerate(_curves(width, x)):
        middle = (at["k_times_lower"] + at["k_times_upper"]) / 2
        reach = {"type": "data", "array": (at["k_times_upper"] - middle).to_numpy(), "thickness": 1.2}
        figure.add_trace(
            go.Scatter(x=at[x], y=middle, error_y=reach, mode="lines+markers", name=name, line=line_of(index))
        )
    return figure


def distance_by_k(width: pd.DataFrame) -> go.Figure:
    """k·GW with its interval against k, a line a pair of models."""
    return _interval_curves(width, "k", "k")


def distance_by_positions(width: pd.DataFrame) -> go.Figure:
    """k·GW with its interval against the number of positions."""
    return _interval_curves(width, "positions", "positions T")


def cost_by_k(width: pd.DataFrame) -> go.Figure:
    """Seconds and token nodes against k."""
    import plotly.graph_objects as go

    figure = _figure(
        400,
        {"title": {"text": "k"}, "type": "log", "dtick": 0.30103},
        {"title": {"text": "seconds"}, "type": "log", "dtick": "D2", "exponentformat": "power"},
    )
    figure.update_layout(
        yaxis2={"title": {"text": "token nodes"}, "overlaying": "y", "side": "right", "type": "log", "showgrid": False}
    )
    for index, (name, at) in enumerate(_curves(width, "k")):
        seconds = at["build_seconds"] + at["distance_seconds"]
        figure.add_trace(go.Scatter(x=at["k"], y=seconds, mode="lines+markers", name=name, line=line_of(index)))
        line = {**line_of(index), "dash": "dot"}
        nodes = go.Scatter(x=at["k"], y=at["token_nodes_first"], yaxis="y2", name=f"{name}: nodes", line=line)
        figure.add_trace(nodes)
    return figure
