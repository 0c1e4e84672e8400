"""Runs: all runs in a table; one run live, with its losses, its certified distances, its graphs and its log."""

import time
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from gfvizui import overlay, parts, places, runactions, runviews, scrubber

from gfviz.runs import RunDirectory, RunStatus

# Marks that every text font has: where there is no font for emoji they are empty boxes.
STATE_ICONS = {
    "running": "● running",
    "queued": "○ queued",
    "finished": "✔ finished",
    "stopped": "■ stopped",
    "failed": "✖ failed",
    "killed": "✖ killed",
}


def overview(runs: list[RunDirectory]) -> list[str]:
    """The table of runs; returns the ids of the chosen rows."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        status, record = run.status(), run.record()
        total = status.total_steps or 0
        rows.append(
            {
                "run": run.id,
                "name": record.name,
                "kind": record.kind,
                "state": STATE_ICONS[status.state],
                "progress": min(1.0, max(status.step, 0) / total) if total else np.nan,
                "started": parts.when(record.created),
                "tags": list(run.tags),
            }
        )
    table = pd.DataFrame(rows)
    with st.container(horizontal=True):
        text = st.text_input("Filter", key="filter", bind="query-params", placeholder="name, id or tag", width=260)
        states = sorted(set(table["state"]))
        wanted = st.pills("State", states, selection_mode="multi", key="state_filter") if len(states) > 1 else []
    if text:
        wanted_text = text.lower()
        keep = [wanted_text in f"{row['run']} {row['name']} {' '.join(row['tags'])}".lower() for row in rows]
        table = table[keep]
    if wanted:
        table = table[table["state"].isin(wanted)]
    event = st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 6 else 260,
        key="runs_table",
        on_select="rerun",
        selection_mode="multi-row",
        column_config={
            "progress": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0),
            "tags": st.column_config.ListColumn(),
        },
    )
    return [table["run"].iloc[row] for row in event["selection"]["rows"] if row < len(table)]


def rate(run: RunDirectory, status: RunStatus) -> float | None:
    """Seconds between two looks at a run: one that ended early may be resumed from a terminal at any time."""
    if status.alive or runactions.resuming(run):
        return 1.0
    return None if status.state == "finished" else 5.0


def draw() -> None:
    parts.heading("Runs", "Choose one row to watch it, several to compare them.")
    runs = places.find_runs()
    if not runs:
        parts.empty(
            "No runs yet",
            f"Runs are looked for in {parts.plain(str(places.runs_root()))}.",
            "gfviz demo\ngfviz fuse CONFIG.yaml",
        )
        return
    table, below = st.container(), st.container()
    # The table's script is larger than all others of this page together. Before it has been there nothing is chosen in
    # it, so what the address asks for need not wait for it.
    if "runs_table" in st.session_state:
        with table:
            chosen = overview(runs)
        with below:
            show(runs, chosen)
    else:
        with below:
            show(runs, [])
        with table:
            overview(runs)


def show(runs: list[RunDirectory], chosen: list[str]) -> None:
    """The runs whose rows are chosen, or that the address names; without either the newest."""
    if chosen:
        st.session_state["runs_chosen"] = True
    elif st.session_state.pop("runs_chosen", False):
        st.query_params.pop("compare", None)  # the last row was unchosen
    else:
        chosen = [name for name in st.query_params.get("compare", "").split(",") if name]
    several = [run for run in runs if run.id in chosen]
    if len(several) > 1:
        st.query_params["compare"] = ",".join(run.id for run in several)
        overlay.comparison(several)
        return
    st.query_params.pop("compare", None)
    wanted = chosen[0] if chosen else st.query_params.get("run")
    run = next((run for run in runs if run.id == wanted), None)
    if wanted and run is None:
        st.warning("That run is not here any more: choose another row.", icon=":material/search_off:")
    run = run or runs[0]
    if st.query_params.get("run") != run.id:
        st.query_params["run"] = run.id
    runactions.bar(run)
    status = run.status()
    st.session_state["watched"] = (run.id, status.alive)
    # The rate is set when the whole page runs; the fragment asks for such a run when the state changes.
    st.fragment(runviews.live_run, run_every=rate(run, status))(run, time.time())
    scrubber.scrubber(run)


parts.page(draw)
