"""The curves of one run: losses, certified distances, scores, speed; the controls' lines beside them."""

from __future__ import annotations

import re

import numpy as np
import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures import Drawing, Line, curve_drawing, distance_drawing, lines_of
from gfviz.runs import CoarseSeries, RunDirectory, RunReader, RunStatus
from gfvizui import canvas, parts
from gfvizui.controls import Control, controls_of

BUCKETS = 400
_BOUND = re.compile(r"graph/(?P<teacher>.+)/(?P<side>lower|upper)")
_TEACHER = re.compile(r"loss/(?P<teacher>.+)/(?P<part>token|structure)")
_SCORE = re.compile(r"eval/(?:(?P<family>.+)/)?exact_match")
OTHERS = {
    "tokens_per_s": "Tokens per second",
    "memory_mb": "Memory (MB)",
    "grad_norm": "Gradient norm",
    "lr": "Learning rate",
}


@st.cache_resource(max_entries=32)
def _reader(path: str) -> RunReader:
    return RunDirectory.open(path).reader()


def reader_of(run: RunDirectory) -> RunReader:
    """One open reader a run, for all sessions."""
    return _reader(str(run.path.resolve()))


@st.cache_resource(max_entries=512, show_spinner=False)
def _coarse(path: str, name: str, _reader: RunReader) -> CoarseSeries:
    return CoarseSeries(_reader, name, BUCKETS)


def lines_for(reader: RunReader, names: dict[str, str]) -> dict[str, Line]:
    """Lines of metrics at plotting resolution; `names` maps what a line is called to its metric."""
    path, generation = str(reader.run.path), reader.status().generation
    return lines_of({shown: _coarse(path, name, reader).buckets(generation) for shown, name in names.items()})


def curves(run: RunDirectory, reader: RunReader, status: RunStatus) -> None:
    """All curves of a run; read again only when a newer row is there."""
    chosen = st.session_state.get("smoothing", 0.6)
    mark = tuple(sorted((name, step) for name, (step, _, _) in reader.latest().items())), status.generation
    key = (str(reader.run.path), parts.theme(), chosen, mark)
    kept = st.session_state.get("run_drawings")
    if kept is None or kept[0] != key:
        kept = (key, list(drawings_of(run, reader, status, chosen, parts.theme()).values()))
        st.session_state["run_drawings"] = kept
    canvas.curves(kept[1], "run_curves", f"run/{run.id}")


def drawings_of(
    run: RunDirectory, reader: RunReader, status: RunStatus, smoothing: float, theme: str
) -> dict[str, Drawing]:
    """Title → drawing, in reading order."""
    names, arms = reader.names(), session_controls(run)
    # Runs to judge by have come to their end: beside them a young run keeps to its place.
    total = status.total_steps if arms else shown_steps(status.step, status.total_steps)
    losses = {"total": "loss/total", "SFT": "loss/sft"}
    made = {
        "Loss": curve_drawing(
            lines_for(reader, {shown: name for shown, name in losses.items() if name in names}),
            theme,
            smoothing,
            "Loss",
            total_steps=total,
            beside=beside(arms, "loss/sft", "SFT, {}"),
        )
    }
    bands = bands_of(reader, names)
    # An ended run that compared no graphs has nothing to wait for.
    if bands or status.alive:
        made["Distance to the teachers"] = distance_drawing(
            bands, theme, "Certified distance to the teachers", total_steps=total
        )
    scores = score_names(names)
    if scores:
        made["Held-out scores"] = curve_drawing(
            lines_for(reader, scores),
            theme,
            0.0,
            "Held-out exact match",
            total_steps=total,
            beside={**beside(arms, "eval/exact_match", "all, {}"), **unfused(arms)},
        )
    teachers = teacher_names(names)
    if teachers:
        made["Teachers"] = curve_drawing(
            lines_for(reader, teachers), theme, smoothing, "Losses against each teacher", total_steps=total
        )
    for name, title in OTHERS.items():
        if name in names:
            line = lines_for(reader, {title: name})
            made[title] = curve_drawing(line, theme, smoothing, title, height=200, total_steps=total)
    if not made["Loss"].traces:
        made |= everything_else(reader, names, smoothing, theme, total)
    return made


def weight_of(name: str, smoothing: float) -> float:
    """How much a metric is smoothed: a score or a certified distance is a result, and is shown as it was measured."""
    return 0.0 if name.startswith(("eval/", "graph/")) else smoothing


def shown_steps(step: int, total: int | None) -> int | None:
    """How far the axis of steps goes: to the end, or while that is far away to a round step not far ahead."""
    if not total:
        return None
    power = 10 ** (len(str(max(step, 10))) - 1)
    ahead = next(power * tenths // 10 for tenths in (15, 20, 30, 50, 75, 100) if power * tenths // 10 > step)
    return max(step, min(total, ahead))


def everything_else(
    reader: RunReader, names: list[str], smoothing: float, theme: str, total: int | None
) -> dict[str, Drawing]:
    """Metrics of a run that another program wrote: a chart each, at most a dozen."""
    known = {*OTHERS, *score_names(names).values(), *teacher_names(names).values()}
    rest = [name for name in names if name not in known and not _BOUND.fullmatch(name)][:12]
    return {
        name: curve_drawing(
            lines_for(reader, {name: name}), theme, weight_of(name, smoothing), name, height=220, total_steps=total
        )
        for name in rest
    }


def score_names(names: list[str]) -> dict[str, str]:
    """What a score's line is called → its metric: "all" first, then the families."""
    found = {name: _SCORE.fullmatch(name) for name in names}
    scores = {match["family"] or "all": name for name, match in found.items() if match}
    return {shown: scores[shown] for shown in sorted(scores, key=lambda shown: (shown != "all", shown))}


def teacher_names(names: list[str]) -> dict[str, str]:
    """What a teacher's loss is called → its metric; with one teacher its name goes without saying."""
    found = [(name, match) for name in names if (match := _TEACHER.fullmatch(name))]
    alone = len({match["teacher"] for _, match in found}) == 1
    return {match["part"] if alone else f"{match['teacher']} {match['part']}": name for name, match in found}


def session_controls(run: RunDirectory) -> list[Control]:
    """The run's controls, looked for once a visit: a list of all runs is read for it."""
    kept = st.session_state.get("run_controls")
    if kept is None or kept[0] != run.id:
        kept = (run.id, controls_of(run))
        st.session_state["run_controls"] = kept
    return kept[1]


def beside(arms: list[Control], name: str, title: str) -> dict[str, Line]:
    """The controls' lines of one metric, those that have it."""
    found: dict[str, Line] = {}
    for control in arms:
        try:
            found |= lines_for(reader_of(control.run), {title.format(control.title): name})
        except GfvizError:
            continue  # removed since it was listed
    return found


def unfused(arms: list[Control]) -> dict[str, Line]:
    """The pivot's own score before any training, where an arm has measured it."""
    for control in arms:
        try:
            rows = reader_of(control.run).series("eval/exact_match")
        except GfvizError:
            continue
        if len(rows.steps) and rows.steps[0] == 0:
            last = float(max(rows.steps[-1], 1))
            return {"pivot, untrained": Line(np.array([0.0, last]), np.array([rows.values[0]] * 2))}
    return {}


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
