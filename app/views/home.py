"""Home: what there is, whether this machine is ready, how to begin."""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import streamlit as st
from gfvizui import parts, places

import gfviz
from gfviz.errors import GfvizError
from gfviz.paths import app_dir, sample_data_dir
from gfviz.runs import RunDirectory, glance
from gfviz.runs.imports import import_runs, is_foreign


def recent_graphs() -> None:
    st.markdown("**Graphs**")
    files = sorted(places.find_graphs(), key=lambda file: -file.modified)[:12]
    if not files:
        parts.empty_graphs()
        return
    table = pd.DataFrame(
        {
            "graph": [file.name for file in files],
            "size": [file.size / 1e6 for file in files],
            "saved": [parts.when(file.modified) for file in files],
        }
    )
    event = st.dataframe(
        table,
        hide_index=True,
        height="content",
        key="home_graphs",
        on_select="rerun",
        selection_mode="single-row",
        # Graphs of a run carry its name: what is cut off is what tells them apart.
        column_config={
            "graph": st.column_config.TextColumn(width=330),
            "size": st.column_config.NumberColumn("MB", format="%.2f", width=60),
            "saved": st.column_config.TextColumn(width=120),
        },
    )
    st.caption("Choose a row to explore it.")
    if event["selection"]["rows"]:
        st.switch_page("views/explore.py", query_params={"graph": files[event["selection"]["rows"][0]].name})


def recent_runs() -> None:
    st.markdown("**Runs**")
    runs = places.find_runs()[:12]
    if not runs:
        parts.empty(
            "No runs yet",
            f"Runs are looked for in {parts.plain(str(places.runs_root()))}.",
            f"{places.demo_command()}\ngfviz fuse CONFIG.yaml",
        )
        return
    looks = [glance(run) for run in runs]
    rows = [
        {"run": look.run.id, "state": look.state, "step": look.step, "started": parts.when(look.created)}
        for look in looks
    ]
    event = st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height="content",
        key="home_runs",
        on_select="rerun",
        selection_mode="single-row",
        column_config={"step": st.column_config.NumberColumn(width="small")},
    )
    st.caption("Choose a row to watch it.")
    parts.damaged(looks)
    if event["selection"]["rows"]:
        st.switch_page("views/runs.py", query_params={"run": runs[event["selection"]["rows"][0]].id})


def import_file() -> None:
    st.markdown("**Import**")
    given = st.file_uploader(
        "A graph (.safetensors), or runs of TensorBoard (an event file) or Trackio (.db), up to 20 MB", key="upload"
    )
    if given is not None and st.button("Import the file", icon=":material/upload:", type="primary"):
        attempt(lambda: uploaded(given.name, given.getvalue()))
    path = st.text_input("Or a folder of runs on this machine", key="import_path", placeholder="/path/to/logs")
    if path and st.button("Import the folder", icon=":material/drive_folder_upload:"):
        attempt(lambda: told(import_runs(Path(path).expanduser(), places.runs_root())))


def attempt(act: Callable[[], str]) -> None:
    """Import something; say what came of it, and show it in the tables."""
    try:
        st.session_state["imported"] = act()
    except GfvizError as error:
        st.error(parts.plain(str(error)), icon=":material/error:")
    else:
        st.rerun()


def uploaded(name: str, content: bytes) -> str:
    if is_foreign(name):
        return told(places.import_upload(name, content))
    path = places.import_graph(name, content)
    return f"Kept as {parts.plain(path.name)}: find it on Explore."


def told(runs: list[RunDirectory]) -> str:
    return (
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} imported: {parts.plain(', '.join(run.id for run in runs[:5]))}"
    )


@st.cache_data(ttl=300, show_spinner=False)
def facts() -> list[tuple[str, str, bool]]:
    """(what, finding, whether it is fine) about this machine."""
    import torch

    versions = {
        name: importlib.metadata.version(name) if importlib.util.find_spec(name) else None
        for name in ("torch", "transformers", "streamlit", "plotly")
    }
    disk = shutil.disk_usage(places.runs_root() if places.runs_root().exists() else ".")
    memory = psutil.virtual_memory()
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: the CPU is used"
    found = [
        ("gfviz", gfviz.__version__, True),
        *((name, version or "missing", version is not None) for name, version in versions.items()),
        ("processor", f"{os.cpu_count()} cores", True),
        ("memory free", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB", memory.available > 1e9),
        ("GPU", cuda, True),
        ("disk free", f"{disk.free / 1e9:.0f} GB", disk.free > 1e9),
    ]
    for name, where in (("sample data", sample_data_dir), ("app", app_dir)):
        try:
            found.append((name, str(where()), True))
        except GfvizError as error:
            found.append((name, str(error), False))
    return found


def system() -> None:
    st.markdown("**This machine**")
    table = pd.DataFrame([(what, finding if fine else f"✗ {finding}") for what, finding, fine in facts()])
    table.columns = ["what", "found"]
    st.dataframe(
        table, hide_index=True, height="content", column_config={"what": st.column_config.Column(width="small")}
    )


def draw() -> None:
    done = st.session_state.pop("imported", None)
    if done:
        st.toast(done, icon=":material/check_circle:")
    parts.heading(
        "Which tokens act together, how far are two models apart, and how sure is that?",
        "Open a graph on Explore, measure a pair on Distance, watch a fusion on Runs.",
    )
    left, right = st.columns([9, 5], gap="medium")
    with left:
        recent_graphs()
        recent_runs()
    with right:
        system()
        import_file()
        st.markdown("**Demo**")
        st.caption("Graphs of two shipped models, their certified distance and a short fusion, in about four minutes.")
        st.code(places.demo_command(), language="bash")


parts.page(draw)
