"""Student and teacher graphs over the steps of a training, on one fixed layout, with the interval at that step."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import streamlit as st

from gfviz.figures import GraphView, canvas_pane, community_names, graph_view, number, shared_frame
from gfviz.figures.compare import UNMATCHED
from gfviz.figures.view import NO_PARTNER
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory, StepGraph
from gfvizui import address, cached, canvas, parts, places
from gfvizui.runcurves import bands_of, reader_of

SCRUBBED = (400, 1500)  # nodes and edges of a drawn graph
RIM = 1.25


class Frame(NamedTuple):
    """Where nodes stand at all steps, and the box (x0, x1, y0, y1) that is seen."""

    view: GraphView
    box: tuple[float, float, float, float]


def saved(run: RunDirectory) -> tuple[str, ...]:
    """Names of the graphs that the run has saved until now."""
    return tuple(graph.path.name for graph in run.graphs())


@st.fragment
def scrubber(run: RunDirectory) -> None:
    """Student and teacher graphs over the steps on one fixed layout, with the interval at that step."""
    steps = places.step_graphs(run)
    if not steps:
        address.drop("step", "beside")
        address.settle()
        return
    st.markdown("**Graphs over training**")
    teachers = sorted({who for graphs in steps.values() for who in graphs} - {"student"})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        step = choose_step(run, sorted(steps))
        teacher = None
        if teachers:
            address.hold("beside", teachers[0], address.among(teachers))
            teacher = st.selectbox("Beside", teachers, key="beside", width=220)
            address.tell("beside", teacher, teachers[0])
    address.settle()
    shown = [who for who in ("student", teacher) if who and who in steps[step]]
    if not shown:
        return
    frame = fixed_layout(steps)
    views = [on_layout(str(steps[step][who].path), frame.view, who) for who in shown]
    names = [name for name, _ in community_names(frame.view)]
    if any((view.community == UNMATCHED).any() for view in views):
        names.append(NO_PARTNER)
    panes = [canvas_pane(view, frame.box, names) for view in views]
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


def choose_step(run: RunDirectory, listed: list[int]) -> int:
    """The step to look at. Who stands at the newest one goes along with a live run; who looks back stays there."""
    newest = listed[-1]
    before = st.session_state.get("scrubbed")
    if before and "step" in st.session_state and (before[0] != run.id or st.session_state["step"] == before[1]):
        st.session_state["step"] = newest
    st.session_state["scrubbed"] = (run.id, newest)
    address.hold("step", newest, address.among(listed), again=False)
    if len(listed) == 1:
        return newest
    step = st.select_slider("Step", listed, key="step", width="stretch")
    address.tell("step", step, newest)
    return step


def fixed_layout(steps: dict[int, dict[str, StepGraph]]) -> Frame:
    """The layout of a graph that stays as it is while the run goes on: all steps and teachers are drawn on it.

    A teacher's where it has all nodes of the first student graph, else that one.
    """
    graphs = {graph.path: graph for step in sorted(steps) for graph in steps[step].values()}
    students = [graph for graph in graphs.values() if graph.who == "student"]
    teachers = [graph for graph in graphs.values() if graph.step is None and graph.who != "student"]
    first = anchored(str((students or teachers or list(graphs.values()))[0].path))
    for teacher in sorted(teachers, key=lambda graph: graph.who):
        frame = anchored(str(teacher.path))
        if set(first.view.labels) <= set(frame.view.labels):
            return frame
    return first


def anchored(path: str) -> Frame:
    """The graph in `path` as a frame."""
    return cached.derived("frame", (path,), lambda: _anchored(path))


def _anchored(path: str) -> Frame:
    graph = load_graph(path)
    view = graph_view(graph, *SCRUBBED)
    x0, x1, y0, y1 = shared_frame(view)
    # Rank graphs of a run have the same nodes throughout; others may bring some that stand at the rim.
    reach = 1.05 * RIM if graph.nodes == "token" else 0.0
    return Frame(view, (min(x0, -reach), max(x1, reach), min(y0, -reach), max(y1, reach)))


def on_layout(path: str, frame: GraphView, title: str) -> GraphView:
    """The graph in `path` with its nodes where `frame` has them (those it shares with it), in its communities."""
    return cached.derived("step", (path, frame.version, title), lambda: _placed(path, frame, title))


def _placed(path: str, frame: GraphView, title: str) -> GraphView:
    view = graph_view(load_graph(path), *SCRUBBED, title=title)
    place = {label: k for k, label in enumerate(frame.labels)}
    known = np.array([place.get(label, -1) for label in view.labels])
    positions = np.array([at_rim(label) for label in view.labels])
    positions[known >= 0] = frame.positions[known[known >= 0]]
    community = np.where(known >= 0, frame.community[np.maximum(known, 0)], UNMATCHED)
    return replace(view.moved(positions, frame.version), community=community)


def at_rim(label: str) -> tuple[float, float]:
    """Where a node that the frame lacks disturbs nobody: by its name alone, so that it is there at every step."""
    turn = 2 * math.pi * zlib.crc32(label.encode("utf-8", "surrogatepass")) / 2**32
    return RIM * math.cos(turn), RIM * math.sin(turn)
