"""One run, live: its head, its curves, its log, events and configuration."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures import duration, number
from gfviz.runs import RunDirectory, RunReader, RunStatus
from gfvizui import address, parts, runactions, scrubber
from gfvizui.runcurves import curves, reader_of

LOG_BYTES = 12_000
TABS = ["Log", "Events", "Configuration"]
RECENT = 200  # steps from which the pace is told


def live_run(run: RunDirectory, _started: float) -> None:
    """The fragment that ticks: head, curves, log. Asks for a whole page where state or graphs have changed."""
    began = time.perf_counter()
    try:
        reader = reader_of(run)
        status = reader.status()
        if st.session_state.get("watched") != (run.id, status.alive, scrubber.saved(run)):
            st.rerun()
        head(run, status, reader)
        curves(run, reader, status)
        foot(run, reader)
        st.caption(f"Read and drawn in {1e3 * (time.perf_counter() - began):.0f} ms.")
    except GfvizError as error:
        if not run.path.exists():
            st.rerun()  # deleted by somebody else: the page says so and shows what is left
        st.warning(parts.plain(str(error)), icon=":material/warning:")


def head(run: RunDirectory, status: RunStatus, reader: RunReader) -> None:
    """Name, state, progress, ETA, heartbeat, newest numbers."""
    latest = reader.latest()
    total = status.total_steps or 0
    done = max(status.step, 0)
    now = time.time() if status.alive else (status.ended or status.heartbeat or time.time())
    spent = None if status.started is None else max(now - status.started, 0.0)
    speed = pace(reader, done, latest) if status.alive else None
    left = speed * (total - done) if speed is not None and total > done else None
    beat = None if status.heartbeat is None else max(time.time() - status.heartbeat, 0.0)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{parts.plain(run.id)}**", width="content")
        color = {"running": "green", "finished": "blue", "queued": "gray", "stopped": "orange"}.get(status.state, "red")
        st.badge(status.state, color=color)  # type: ignore[arg-type]
        if status.alive and beat is not None:
            st.caption(f"last sign of life {beat:.0f} s ago", width="content")
        if runactions.resuming(run) and not status.alive:
            st.caption("Going on: the process loads its models …", width="content")
        elif status.reason:
            st.caption(parts.plain(status.reason), width="stretch")
    if total:
        st.progress(min(1.0, max(0.0, done / total)), text=f"Step {max(done, 0):,} of {total:,}")
    newest = {name: latest[name][1] for name in latest}
    parts.cards(
        [
            ("Elapsed", duration(spent), "Since the first start of the run"),
            ("Remaining", duration(left), f"At the pace of the last {RECENT} steps"),
            ("Loss", number(newest.get("loss/total")), "loss/total at the newest step"),
            ("Exact match", number(newest.get("eval/exact_match"), 3), "Held-out, at the newest evaluation"),
            ("Tokens / s", number(newest.get("tokens_per_s"), 3), None),
            ("Memory", f"{newest['memory_mb']:,.0f} MB" if "memory_mb" in newest else "–", "Of the training process"),
        ]
    )


def pace(reader: RunReader, step: int, latest: dict[str, tuple[int, float, float]]) -> float | None:
    """Seconds a step, over the last steps of the metric that is newest; None before there are two rows."""
    if not latest:
        return None
    newest = max(latest, key=lambda name: latest[name][0])
    rows = reader.series(newest, after_step=step - RECENT)
    if len(rows.steps) < 2 or rows.steps[-1] == rows.steps[0]:
        return None
    return float(rows.times[-1] - rows.times[0]) / float(rows.steps[-1] - rows.steps[0])


def foot(run: RunDirectory, reader: RunReader) -> None:
    """Log, events and configuration."""
    # What is not open is neither read nor sent: this runs at every tick.
    address.hold("tab", TABS[0], address.among(TABS))
    log, events, config = st.tabs(TABS, key="tab", on_change="rerun")
    address.tell("tab", st.session_state["tab"], TABS[0])
    address.settle()
    if log.open:
        # Not `st.code`: its highlighter is a megabyte and a half of script, loaded before the charts' own.
        with log, st.container(height=220, key="run_log"):
            parts.log_lines(tail(run))
    if events.open:
        with events:
            listed = reader.newest_events()
            table = pd.DataFrame(
                [(parts.when(event.time), event.step, event.kind, event.text) for event in listed],
                columns=["time", "step", "kind", "what"],
            )
            st.dataframe(table, hide_index=True, height=220)
    if config.open:
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
