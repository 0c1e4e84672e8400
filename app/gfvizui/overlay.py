"""Several runs side by side: their curves over each other, and where their configurations differ."""

from __future__ import annotations

import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures import Line, config_difference, curve_drawing
from gfviz.runs import RunDirectory
from gfvizui import address, canvas, parts
from gfvizui.runcurves import lines_for, reader_of, weight_of

FIRST = ("loss/total", "loss/sft", "eval/exact_match")
LIVE_SECONDS = 2.0


def comparison(runs: list[RunDirectory]) -> None:
    """Curves of several runs over each other (ticking while one is alive), and where their configurations differ."""
    names = sorted({name for run in runs for name in reader_of(run).names()})
    if not names:
        st.caption("None of these runs has logged anything yet.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        preferred = [name for name in FIRST if name in names] or names[:2]
        address.hold("metrics", preferred, address.among(names))
        chosen = st.multiselect("Metrics", names, key="metrics")
        address.tell("metrics", chosen, preferred)
        smoothing = st.slider("Smoothing", 0.0, 0.99, 0.6, key="compare_smoothing", width=200)
    alive = any(run.status().alive for run in runs)
    st.fragment(_curves, run_every=LIVE_SECONDS if alive else None)(runs, chosen, smoothing)
    st.markdown("**Configurations**")
    table = config_difference({run.id: run.config for run in runs})
    if table.empty:
        st.caption("The configurations are the same.")
        return
    st.dataframe(table, hide_index=True, height="content")


def _curves(runs: list[RunDirectory], chosen: list[str], smoothing: float) -> None:
    drawings = []
    for name in chosen:
        lines: dict[str, Line] = {}
        for run in runs:
            try:
                lines |= lines_for(reader_of(run), {run.id: name})
            except GfvizError:
                continue  # removed while it was watched
        drawing = curve_drawing(lines, parts.theme(), weight_of(name, smoothing), name, height=300)
        # Also where a single run has the metric: which one it is.
        drawings.append(drawing._replace(layout={**drawing.layout, "showlegend": True}))
    canvas.curves(drawings, "compare_curves", f"compare/{'/'.join(run.id for run in runs)}")
