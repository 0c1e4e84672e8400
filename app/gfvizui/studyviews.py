"""The error study on the Distance page: what to expect of each method, by family and size."""

from __future__ import annotations

import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures.study import ratio_figure
from gfviz.study.validate import shipped_results
from gfvizui import parts

FIRST = ("sorted", "centred", "spectral", "rows", "sorted_coupling", "POT")


@st.fragment
def study() -> None:
    """The shipped study, filterable."""
    st.markdown("**How wrong each method usually is**")
    try:
        table, _ = shipped_results("cpu")
    except GfvizError as error:
        st.caption(parts.plain(str(error)))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        families = st.multiselect("Families of graphs", sorted(table["family"].unique()), key="study_families")
        p = st.segmented_control("p", sorted(table["p"].unique()), default=2, key="study_p", required=True)
        chosen = table[(table["p"] == p) & (table["family"].isin(families) if families else True)]
        methods = list(dict.fromkeys(chosen["method"]))
        begin = [method for method in FIRST if method in methods] or methods[:6]
        shown = st.multiselect("Methods", methods, default=begin, key=f"study_methods_{p}")
    if chosen.empty or not shown:
        st.caption("Nothing is left by these filters: choose a family and a method.")
        return
    parts.chart(ratio_figure(chosen, shown, parts.theme()), "study", "Bound over truth by size")
    st.caption(
        f"Median over {int(chosen['pairs'].max())} pairs a cell at most; without a choice, all families count alike. "
        "1 is the distance itself where it is proven. The family decides how wide the gap is: look at yours."
    )
