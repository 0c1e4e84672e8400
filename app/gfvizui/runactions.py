"""What a user does to a run: stop, resume, tag, export, delete."""

from __future__ import annotations

import time

import streamlit as st
import yaml

from gfviz.errors import GfvizError
from gfviz.figures import duration, number
from gfviz.figures.report import html_report
from gfviz.runs import RunDirectory
from gfvizui import parts
from gfvizui.runcurves import drawings_of, reader_of

STARTING_SECONDS = 180.0


def bar(run: RunDirectory) -> None:
    """The row of actions; each says at once what came of it."""
    status = run.status()
    if status.alive:
        st.session_state.pop("resumed", None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if status.alive and st.button(
            "Stop", icon=":material/stop:", help="Finish the step, write a checkpoint, end", key="stop"
        ):
            attempt(lambda: halt(run), "Asked to stop: it finishes its step and writes a checkpoint.")
        ended = not status.alive and status.state != "finished"
        resumable = ended and run.record().kind == "fusion" and not resuming(run)
        if resumable and st.button(
            "Resume", icon=":material/play_arrow:", help="Go on from the newest checkpoint", key="resume"
        ):
            attempt(lambda: resume(run), "Asked to go on: the process loads its models.")
        with st.popover("Tags", icon=":material/sell:"):
            text = st.text_input("Tags, separated by commas", ", ".join(run.tags), key=f"tags_{run.id}")
            if st.button("Save tags", key="save_tags"):
                attempt(lambda: run.set_tags(text.split(",")), "Tags saved.")
        st.download_button(
            "Report",
            data=lambda: report(run).encode("utf-8"),
            file_name=f"{run.id}.html",
            mime="text/html",
            icon=":material/description:",
            on_click="ignore",
            help="One HTML file with all curves and the configuration",
        )
        # Keys of the run's own: the next run's question is not open already, nor answered by a second click here.
        with st.popover("Delete", icon=":material/delete:", disabled=status.alive, key=f"deleting_{run.id}"):
            st.markdown(f"Delete **{parts.plain(run.id)}** with its metrics, graphs and checkpoints?")
            if st.button("Delete for good", type="primary", key=f"delete_{run.id}"):
                attempt(lambda: remove(run), "Deleted.")
        st.slider("Smoothing", 0.0, 0.99, 0.6, key="smoothing", width=180)


def remove(run: RunDirectory) -> None:
    """Delete the run; the address does not ask for it any more."""
    run.remove()
    st.query_params.pop("run", None)


def halt(run: RunDirectory) -> None:
    """Ask the run's process to finish its step, write a checkpoint and end."""
    from gfviz.fusion.launch import stop

    stop(run)


def resume(run: RunDirectory) -> None:
    """Go on with a run as it was launched; until its process has taken over, the page keeps looking every second."""
    from gfviz.fusion.launch import join_hint, launch_resume

    launch_resume(run)
    if hint := join_hint(run):
        st.toast(parts.plain(hint), icon=":material/lan:", duration="infinite")
    st.session_state["resumed"] = (run.id, time.monotonic())


def resuming(run: RunDirectory) -> bool:
    """Whether this session has resumed the run and may still wait for its process to take over."""
    run_id, when = st.session_state.get("resumed", ("", 0.0))
    return run_id == run.id and time.monotonic() - when < STARTING_SECONDS


def attempt(act, done: str) -> None:
    """Run `act`; tell what came of it and draw the page again."""
    try:
        act()
    except GfvizError as error:
        st.toast(parts.plain(str(error)), icon=":material/error:")
        return
    st.toast(done, icon=":material/check_circle:")
    st.rerun()


def report(run: RunDirectory) -> str:
    """The run as one HTML page."""
    reader = reader_of(run)
    status, record = reader.status(), run.record()
    spent = (status.ended or status.heartbeat or 0) - status.started if status.started else None
    facts = [
        ("run", run.id),
        ("state", f"{status.state} {status.reason}".strip()),
        ("started", parts.when(record.created)),
        ("time", duration(spent)),
        *((name, number(value)) for name, (_, value, _) in reader.latest().items()),
    ]
    drawings = drawings_of(run, reader, status, 0.6, "light")
    figures = {title: drawing.figure() for title, drawing in drawings.items()}
    return html_report(run.id, facts, figures, {"Configuration": yaml.safe_dump(run.config, sort_keys=False)})
