"""Student and teacher graphs over the steps of a training, on one fixed layout, with the interval at that step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import streamlit as st

from gfviz.figures import GraphView, canvas_pane, community_names, graph_view, number, shared_frame
from gfviz.figures.compare import UNMATCHED
from gfviz.figures.view import NO_PARTNER
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory
from gfvizui import cached, canvas, parts, places
from gfvizui.runcurves import bands_of, reader_of

SCRUBBED = (400, 1500)  # nodes and edges of a drawn graph


@st.fragment
def scrubber(run: RunDirectory) -> None:
    """Student and teacher graphs over the steps on one fixed layout, with the interval at that step."""
    steps = places.step_graphs(run)
    if not steps:
        return
    listed = sorted(steps)
    st.markdown("**Graphs over training**")
    whos = sorted({who for step in listed for who in steps[step]})
    teachers = [who for who in whos if who != "student"]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        step = (
            st.select_slider("Step", listed, value=listed[-1], key="scrub_step", width="stretch")
            if len(listed) > 1
            else listed[0]
        )
        teacher = st.selectbox("Beside", teachers, key="scrub_teacher", width=220) if teachers else None
    shown = [who for who in ("student", teacher) if who and who in steps[step]]
    if not shown:
        return
    frame = fixed_layout(run, shown[0], steps)
    views = [on_layout(str(steps[step][who].path), frame, who) for who in shown]
    names = [name for name, _ in community_names(frame)]
    if any((view.community == UNMATCHED).any() for view in views):
        names.append(NO_PARTNER)
    box = shared_frame(*views)
    panes = [canvas_pane(view, parts.theme(), box, names) for view in views]
    canvas.graph_canvas(panes, "scrub_canvas", f"scrub/{run.id}/{'/'.join(shown)}", height=380)
    bands = bands_of(reader_of(run), reader_of(run).names())
    if teacher in bands:
        at, lower, upper = bands[teacher]
        near = np.flatnonzero(at <= step)
        if len(near):
            k = near[-1]
            st.caption(
                f"Distance student–{parts.plain(str(teacher))} at step {at[k]}: certified between {number(lower[k])} "
                f"and {number(upper[k])}."
            )


def fixed_layout(run: RunDirectory, who: str, steps: dict) -> GraphView:
    """The layout of the newest graph of `who`: all steps, and the teacher's graph, are drawn on it."""
    newest = max(step for step in steps if who in steps[step])
    path = str(steps[newest][who].path)
    return cached.derived("fixed", (path, newest), lambda: graph_view(load_graph(path), *SCRUBBED))


def on_layout(path: str, frame: GraphView, title: str) -> GraphView:
    """The graph in `path` with its nodes where `frame` has them (those it shares with it), in its communities."""
    return cached.derived("step", (path, frame.version, title), lambda: _placed(path, frame, title))


def _placed(path: str, frame: GraphView, title: str) -> GraphView:
    view = graph_view(load_graph(path), *SCRUBBED, title=title)
    place = {label: k for k, label in enumerate(frame.labels)}
    known = np.array([place.get(label, -1) for label in view.labels])
    positions = view.positions.copy()
    positions[known >= 0] = frame.positions[known[known >= 0]]
    # A node that the newest graph lacks sits at the rim, where it disturbs nobody.
    turn = np.linspace(0, 2 * math.pi, max(int((known < 0).sum()), 1), endpoint=False)[: int((known < 0).sum())]
    positions[known < 0] = 1.25 * np.stack([np.cos(turn), np.sin(turn)], 1)
    community = np.where(known >= 0, frame.community[np.maximum(known, 0)], UNMATCHED)
    return replace(view.moved(positions, frame.version), community=community)
