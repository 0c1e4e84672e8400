"""Runs: all runs in a table; one run live, with its losses, its certified distances, its graphs and its log."""

import time
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from gfvizui import address, overlay, parts, places, runactions, runviews, scrubber

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory, RunStatus, glance

# Marks that every text font has: where there is no font for emoji they are empty boxes.
STATE_ICONS = {
    "running": "● running",
    "queued": "○ queued",
    "finished": "✔ finished",
    "stopped": "■ stopped",
    "failed": "✖ failed",
    "killed": "✖ killed",
    "damaged": "✖ damaged",
}


def listing(runs: list[RunDirectory]) -> pd.DataFrame:
    """What the table says of each run."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        look = glance(run)
        rows.append(
            {
                "run": run.id,
                "name": look.record.name if look.record else "",
                "kind": look.record.kind if look.record else "",
                "state": look.state,
                "progress": min(1.0, look.step / look.total_steps) if look.total_steps else np.nan,
                "started": parts.when(look.created),
                "tags": list(look.tags),
                "why": look.reason if look.status is None else "",
            }
        )
    table = pd.DataFrame(rows)
    return table if table["why"].any() else table.drop(columns="why")


def filtered(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that the filters leave."""
    with st.container(horizontal=True):
        address.hold("filter", "", str)
        text = st.text_input("Filter", key="filter", placeholder="name, id or tag", width=260)
        address.tell("filter", text, "")
        states = [state for state in STATE_ICONS if state in set(table["state"])]
        address.hold("state", [], address.among(STATE_ICONS))
        # A state that no run is in any more can still be taken off.
        offered = [state for state in STATE_ICONS if state in {*states, *st.session_state["state"]}]
        wanted: list[str] = []
        if len(offered) > 1:
            wanted = st.pills(
                "State", offered, selection_mode="multi", key="state", format_func=lambda state: STATE_ICONS[state]
            )
        address.tell("state", wanted, [])
    if text:
        told = zip(table["run"], table["name"], table["tags"])
        table = table[[text.lower() in f"{run} {name} {' '.join(tags)}".lower() for run, name, tags in told]]
    return table[table["state"].isin(wanted)] if wanted else table


def choice(runs: list[RunDirectory]) -> list[str]:
    """Ids of the chosen runs. The table knows its rows by number alone, and runs come and go and are filtered."""
    kept = st.session_state.get("runs_chosen", [])
    arrived = "runs_table" not in st.session_state
    if address.came_by_history() or (arrived and ("compare" in st.query_params or "run" in st.query_params)):
        kept = [name for name in st.query_params.get("compare", "").split(",") if name]
    elif not arrived:
        listed = st.session_state.get("runs_listed", [])
        rows = st.session_state["runs_table"]["selection"]["rows"]
        kept = [name for name in kept if name not in listed] + [listed[row] for row in rows if row < len(listed)]
    here = {run.id for run in runs}
    st.session_state["runs_chosen"] = chosen = [name for name in kept if name in here]
    return chosen


def overview(runs: list[RunDirectory], chosen: list[str]) -> None:
    """The table of runs, with the chosen ones marked wherever they stand now."""
    table = filtered(listing(runs))
    listed = table["run"].tolist()
    marked = [row for row, name in enumerate(listed) if name in chosen]
    before = st.session_state["runs_table"]["selection"]["rows"] if "runs_table" in st.session_state else []
    if sorted(before) != marked:
        st.session_state["runs_table"] = {"selection": {"rows": marked, "columns": [], "cells": []}}
    st.session_state["runs_listed"] = listed
    st.dataframe(
        table.assign(state=table["state"].map(STATE_ICONS)),
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
    hidden = len(chosen) - len(marked)
    if hidden:
        st.caption(f"{hidden} of the chosen runs {'is' if hidden == 1 else 'are'} not among the filtered ones.")


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
            f"{places.demo_command()}\ngfviz fuse CONFIG.yaml",
        )
        return
    table, below = st.container(), st.container()
    # The table's script is larger than all others of this page together: what the address asks for need not wait.
    arrived = "runs_table" not in st.session_state
    chosen = choice(runs)
    if not arrived:
        with table:
            overview(runs, chosen)
    with below:
        try:
            show(runs, chosen)
        except GfvizError as error:
            # One run that cannot be read takes nothing from the others: the table stays.
            st.error(parts.plain(str(error)), icon=":material/error:")
    if arrived:
        with table:
            overview(runs, chosen)


def show(runs: list[RunDirectory], chosen: list[str]) -> None:
    """The chosen runs, or the one that the address names; without either the newest."""
    several = [run for run in runs if run.id in chosen]
    if len(several) > 1:
        address.tell("compare", ",".join(run.id for run in several))
        address.drop("step", "beside", "tab")
        overlay.comparison(several)
        return
    address.drop("compare", "metrics")
    wanted = chosen[0] if chosen else st.query_params.get("run")
    run = next((run for run in runs if run.id == wanted), None)
    if wanted and run is None:
        st.warning("That run is not here any more: choose another row.", icon=":material/search_off:")
    run = run or runs[0]
    address.tell("run", run.id)
    runactions.bar(run)
    status = run.status()
    st.session_state["watched"] = (run.id, status.alive, scrubber.saved(run))
    # The rate is set when the whole page runs; the fragment asks for such a run when the state changes.
    st.fragment(runviews.live_run, run_every=rate(run, status))(run, time.time())
    scrubber.scrubber(run)


parts.page(draw)
