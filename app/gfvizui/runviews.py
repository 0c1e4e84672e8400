"""The parts of the Runs page: one live run, the scrubber over its graphs, several runs side by side."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pandas as pd
import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures import (
    GraphView,
    Line,
    canvas_pane,
    config_difference,
    curve_figure,
    distance_figure,
    duration,
    graph_view,
    lines_of,
    number,
    shared_frame,
)
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory, RunReader, RunStatus
from gfvizui import cached, canvas, parts, places

BUCKETS = 400
LOG_BYTES = 12_000
_BOUND = re.compile(r"graph/(?P<teacher>.+)/(?P<side>lower|upper)")


@st.cache_resource(max_entries=32)
def _reader(path: str) -> RunReader:
    return RunDirectory.open(path).reader()


def reader_of(run: RunDirectory) -> RunReader:
    """One open reader a run, for all sessions."""
    return _reader(str(run.path.resolve()))


# -- one run, live -----------------------------------------------------------------------------------------------------


def live_run(run: RunDirectory, _started: float) -> None:
    """The fragment that ticks: head, curves, log. Asks for a whole page where the run's state has changed."""
    began = time.perf_counter()
    try:
        reader = reader_of(run)
        status = reader.status()
        if st.session_state.get("watched") != (run.id, status.alive):
            st.rerun()
        head(run, status, reader)
        curves(reader, status)
        foot(run, reader)
        st.caption(f"Read and drawn in {1e3 * (time.perf_counter() - began):.0f} ms.")
    except GfvizError as error:
        st.warning(parts.plain(str(error)), icon=":material/warning:")


def head(run: RunDirectory, status: RunStatus, reader: RunReader) -> None:
    """Name, state, progress, ETA, heartbeat, newest numbers."""
    latest = reader.latest()
    total = status.total_steps or 0
    done = max(status.step, 0)
    now = time.time() if status.alive else (status.ended or status.heartbeat or time.time())
    spent = None if status.started is None else max(now - status.started, 0.0)
    left = spent / done * (total - done) if spent and done > 0 and total > done and status.alive else None
    beat = None if status.heartbeat is None else max(time.time() - status.heartbeat, 0.0)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{parts.plain(run.id)}**", width="content")
        color = {"running": "green", "finished": "blue", "queued": "gray", "stopped": "orange"}.get(status.state, "red")
        st.badge(status.state, color=color)  # type: ignore[arg-type]
        if status.alive and beat is not None:
            st.caption(f"last sign of life {beat:.0f} s ago", width="content")
        if status.reason:
            st.caption(parts.plain(status.reason), width="stretch")
    if total:
        st.progress(min(1.0, max(0.0, done / total)), text=f"Step {max(done, 0):,} of {total:,}")
    newest = {name: latest[name][1] for name in latest}
    parts.cards(
        [
            ("Elapsed", duration(spent), "Since the first start of the run"),
            ("Remaining", duration(left), "At the mean speed so far"),
            ("Loss", number(newest.get("loss/total")), "loss/total at the newest step"),
            ("Exact match", number(newest.get("eval/exact_match"), 3), "Held-out, at the newest evaluation"),
            ("Tokens / s", number(newest.get("tokens_per_s"), 3), None),
            ("Memory", f"{newest['memory_mb']:,.0f} MB" if "memory_mb" in newest else "–", "Of the training process"),
        ]
    )


def lines_for(reader: RunReader, names: list[str]) -> dict[str, Line]:
    """Lines of the named metrics at plotting resolution."""
    return lines_of({name: reader.buckets(name, BUCKETS) for name in names})


def curves(reader: RunReader, status: RunStatus) -> None:
    """Losses, certified distances, scores and speed; drawn again only when a newer row is there."""
    names = reader.names()
    chosen = st.session_state.get("smoothing", 0.6)
    key = (str(reader.run.path), parts.theme(), chosen)
    mark = tuple(sorted((name, step) for name, (step, _, _) in reader.latest().items())), status.generation
    kept = st.session_state.get("run_figures")
    if kept is None or kept[0] != (key, mark):
        kept = ((key, mark), figures_of(reader, names, status, chosen, parts.theme()))
        st.session_state["run_figures"] = kept
    charts = kept[1]
    left, right = st.columns(2, gap="medium")
    for index, (title, figure) in enumerate(charts.items()):
        with left if index % 2 == 0 else right:
            parts.chart(figure, f"run_{index}", title)


def figures_of(reader: RunReader, names: list[str], status: RunStatus, smoothing: float, theme: str) -> dict:
    """Title → figure, in reading order."""
    total = status.total_steps
    losses: list[str] = [name for name in ("loss/total", "loss/sft") if name in names]
    teachers = [name for name in names if name.startswith("loss/") and name.count("/") == 2]
    scores = [name for name in names if name.startswith("eval/")]
    others = [name for name in ("tokens_per_s", "grad_norm", "lr", "memory_mb") if name in names]
    made = {
        "Loss": curve_figure(lines_for(reader, losses), theme, smoothing, "Loss", total_steps=total),
        "Distance to the teachers": distance_figure(
            bands_of(reader, names), theme, "Certified distance to the teachers", total_steps=total
        ),
    }
    if scores:
        exact = [name for name in scores if name.endswith("exact_match")]
        made["Held-out scores"] = curve_figure(
            lines_for(reader, exact or scores), theme, 0.0, "Held-out scores", total_steps=total
        )
    if teachers:
        made["Teachers"] = curve_figure(
            lines_for(reader, teachers), theme, smoothing, "Losses against each teacher", total_steps=total
        )
    for name in others:
        made[name] = curve_figure(lines_for(reader, [name]), theme, smoothing, name, height=200, total_steps=total)
    return made


def bands_of(reader: RunReader, names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Teacher → (steps, lower, upper), at the steps where both ends were logged."""
    found = {}
    for name in names:
        match = _BOUND.fullmatch(name)
        if match and match["side"] == "lower" and f"graph/{match['teacher']}/upper" in names:
            lower, upper = reader.series(name), reader.series(f"graph/{match['teacher']}/upper")
            steps, at_low, at_high = np.intersect1d(lower.steps, upper.steps, return_indices=True)
            found[match["teacher"]] = (steps, lower.values[at_low], upper.values[at_high])
    return found


def foot(run: RunDirectory, reader: RunReader) -> None:
    """Log, events and configuration."""
    log, events, config = st.tabs(["Log", "Events", "Configuration"], key="run_tab")
    with log:
        st.code(tail(run), language=None, height=220)
    with events:
        listed = reader.events()
        table = pd.DataFrame(
            [(parts.when(event.time), event.step, event.kind, event.text) for event in listed],
            columns=["time", "step", "kind", "what"],
        )
        st.dataframe(table, hide_index=True, height=220)
    with config:
        st.json(run.config, expanded=1)


def tail(run: RunDirectory) -> str:
    """The last lines of the run's log, progress bars reduced to their newest state."""
    if not run.log_path.is_file():
        return "No log: this run printed to the terminal that started it."
    with open(run.log_path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - LOG_BYTES))
        text = file.read(LOG_BYTES).decode("utf-8", "replace")
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(line for line in lines[-60:] if line.strip()) or "Nothing printed yet."


# -- the scrubber ------------------------------------------------------------------------------------------------------


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
    layouts = {who: fixed_layout(run, who, listed[-1], steps) for who in shown}
    panes = []
    for who in shown:
        view = on_layout(str(steps[step][who].path), layouts[who], f"{who} · step {step}")
        panes.append(canvas_pane(view, parts.theme(), shared_frame(layouts[who])))
    if panes:
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


def fixed_layout(run: RunDirectory, who: str, last: int, steps: dict) -> GraphView:
    """The layout of the newest graph of `who`: all steps are drawn on it."""
    newest = max(step for step in steps if who in steps[step])
    path = str(steps[newest][who].path)
    return cached.derived("fixed", (path, newest), lambda: graph_view(load_graph(path), 400, 1500))


def on_layout(path: str, frame: GraphView, title: str) -> GraphView:
    """The graph in `path` with its nodes at their places in `frame` (those it shares with it)."""
    return cached.derived("step", (path, frame.version, title), lambda: _placed(path, frame, title))


def _placed(path: str, frame: GraphView, title: str) -> GraphView:
    view = graph_view(load_graph(path), 400, 1500, title=title)
    place = {label: k for k, label in enumerate(frame.labels)}
    known = np.array([place.get(label, -1) for label in view.labels])
    positions = view.positions.copy()
    positions[known >= 0] = frame.positions[known[known >= 0]]
    # A node that the newest graph lacks sits at the rim, where it disturbs nobody.
    turn = np.linspace(0, 2 * math.pi, max(int((known < 0).sum()), 1), endpoint=False)[: int((known < 0).sum())]
    positions[known < 0] = 1.25 * np.stack([np.cos(turn), np.sin(turn)], 1)
    return view.moved(positions, frame.version)


# -- several runs ------------------------------------------------------------------------------------------------------


def comparison(runs: list[RunDirectory]) -> None:
    """Curves of several runs over each other, and where their configurations differ."""
    names = sorted({name for run in runs for name in reader_of(run).names()})
    if not names:
        st.caption("None of these runs has logged anything yet.")
        return
    preferred = [name for name in ("loss/total", "eval/exact_match") if name in names] or names[:2]
    chosen = st.multiselect("Metrics", names, default=preferred, key="compare_metrics")
    smoothing = st.slider("Smoothing", 0.0, 0.99, 0.6, key="compare_smoothing", width=260)
    columns = st.columns(2, gap="medium")
    for index, name in enumerate(chosen):
        lines: dict[str, Line] = {}
        for run in runs:
            found = lines_for(reader_of(run), [name])
            if name in found:
                lines[run.id] = found[name]
        with columns[index % 2]:
            figure = curve_figure(lines, parts.theme(), smoothing, name, height=300)
            parts.chart(figure.update_layout(showlegend=True), f"compare_{index}", name)
    st.markdown("**Configurations**")
    first, second = runs[0], runs[1]
    table = config_difference(first.config, second.config)
    if table.empty:
        st.caption("The configurations are the same.")
        return
    table.columns = ["key", first.id, second.id]
    st.dataframe(table, hide_index=True, height="content")
