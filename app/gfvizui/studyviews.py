"""The error study on the Distance page: what to expect of each method, by family and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures.study import growth_figure, ratio_figure, tightness_figure
from gfviz.study.validate import shipped_results
from gfvizui import address, parts

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

BOUNDS = ("sorted", "centred", "spectral", "rows", "sorted_coupling", "POT")
BUDGETED = ("fast", "standard", "thorough")
# What a plot is called → the columns it is drawn from, and the methods that it begins with.
PLOTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Bound by size": (("lower_ratio", "upper_ratio"), BOUNDS),
    "Tightness by family": (("lower_ratio", "upper_ratio"), BOUNDS),
    "Error by size": (("error",), (*BOUNDS, "standard")),
    "Gap by size": (("gap",), BUDGETED),
    "Time by size": (("seconds",), (*BUDGETED, "paper", "POT")),
}


@st.fragment
def study() -> None:
    """The shipped study: one of its plots at a time, filterable."""
    st.markdown("**How wrong each method usually is**")
    try:
        table, _ = shipped_results("cpu")
    except GfvizError as error:
        st.caption(parts.plain(str(error)))
        return
    names = list(PLOTS)
    address.hold("plot", names[0], address.among(names))
    plot = st.segmented_control("Plot", names, key="plot", required=True, label_visibility="collapsed") or names[0]
    address.tell("plot", plot, names[0])
    chosen, methods = filters(table, plot)
    address.settle()
    if chosen.empty or not methods:
        st.caption("Nothing is left by these filters: choose others.")
        return
    parts.chart(drawn(plot, chosen, methods), "study", f"{plot}, each method")
    st.caption(words(plot, chosen))


def filters(table: pd.DataFrame, plot: str) -> tuple[pd.DataFrame, list[str]]:
    """The part of the table that is asked for, and the methods to draw."""
    columns, usual = PLOTS[plot]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        families = several("Families of graphs", "families", sorted(table["family"].unique()), "all families")
        powers = sorted({int(power) for power in table["p"]})
        address.hold("study_p", 2, address.among(powers))
        p = st.segmented_control("p", powers, key="study_p", required=True) or 2
        address.tell("study_p", p, 2)
        table = table[(table["p"] == p) & (table["family"].isin(families) if families else True)]
        table = table[table[list(columns)].notna().any(axis=1)]
        if plot == "Tightness by family":
            sizes = several("Nodes", "sizes", [int(size) for size in sorted(table["size"].unique())], "all sizes")
            table = table[table["size"].isin(sizes)] if sizes else table
        else:
            address.drop("sizes")
        there = list(dict.fromkeys(table["method"]))
        methods = several("Methods", "methods", there, "the usual ones")
    return table, methods or [method for method in usual if method in there]


def several(label: str, key: str, choices: list, none: str) -> list:
    """A choice of several, kept in the URL; `none` says what an empty one means."""
    address.hold(key, [], address.among(choices))
    found = st.multiselect(label, choices, key=key, placeholder=none)
    address.tell(key, found, [])
    return found


def drawn(plot: str, table: pd.DataFrame, methods: list[str]) -> go.Figure:
    """The plot of that name."""
    if plot == "Bound by size":
        return ratio_figure(table, methods, parts.theme())
    if plot == "Tightness by family":
        return tightness_figure(table, methods, parts.theme())
    return growth_figure(table, methods, PLOTS[plot][0][0], parts.theme())


def words(plot: str, table: pd.DataFrame) -> str:
    """What is to be known of the plot beside its axes."""
    pairs = f"Median over {int(table['pairs'].max())} pairs a cell at most; families count alike. "
    told = {
        "Error by size": "Where the distance is not proven, the best upper bound known stands for it.",
        "Gap by size": "0 means that the distance is known.",
        "Time by size": "`paper` is the closed form as InfiGFusion writes it; POT runs from one start.",
    }
    return pairs + told.get(
        plot, "1 is the distance itself where it is proven. The family decides how wide the gap is."
    )
