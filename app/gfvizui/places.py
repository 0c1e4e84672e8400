"""Where runs and graphs are found. Names from a URL are only ever looked up in these lists, never made into paths."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from gfviz.errors import GfvizError
from gfviz.files import atomic_path
from gfviz.runs import RunDirectory, StepGraph, list_runs

_SAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
MAX_FILES = 2000


@dataclass(frozen=True)
class GraphFile:
    """A saved graph: `name` is unique and goes into URLs, `group` is its run or folder."""

    name: str
    group: str
    path: Path
    modified: float
    size: int


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--runs", default=os.environ.get("GFVIZ_RUNS", "runs"))
    parser.add_argument("--graphs", default=os.environ.get("GFVIZ_GRAPHS"))
    return parser.parse_known_args(sys.argv[1:])[0]


def runs_root() -> Path:
    """Folder of the runs: `--runs`, else $GFVIZ_RUNS, else ./runs."""
    return Path(_arguments().runs)


def graphs_root() -> Path:
    """Folder of loose graphs and of imports: `--graphs`, else $GFVIZ_GRAPHS, else RUNS/graphs."""
    given = _arguments().graphs
    return Path(given) if given else runs_root() / "graphs"


def demo_command() -> str:
    """The command that fills this folder."""
    return "gfviz demo" if str(runs_root()) == "runs" else f"gfviz demo --runs {quote(str(runs_root()))}"


def find_runs() -> list[RunDirectory]:
    """All runs, newest first."""
    return list_runs(runs_root())


def find_run(run_id: str | None) -> RunDirectory | None:
    """The listed run of that id; None where there is none."""
    return next((run for run in find_runs() if run.id == run_id), None)


def find_graphs() -> list[GraphFile]:
    """Saved graphs, newest group first: loose files, then each run's (without the steps of a training)."""
    found: list[GraphFile] = []
    root = graphs_root()
    if root.is_dir():
        for path in sorted(root.rglob("*.safetensors"))[:MAX_FILES]:
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                found += _described(path, path.relative_to(root).with_suffix("").as_posix(), root.name)
    for run in find_runs():
        for graph in run.graphs():
            if graph.step is None:
                found += _described(graph.path, f"{run.id}/{graph.path.stem}", run.id)
        steps = [graph for graph in run.graphs() if graph.step is not None]
        for who in sorted({graph.who for graph in steps}):
            last = max((graph for graph in steps if graph.who == who), key=lambda graph: graph.step or 0)
            found += _described(last.path, f"{run.id}/{last.path.stem}", run.id)
    return found


def _described(path: Path, name: str, group: str) -> list[GraphFile]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return []  # its run was removed while the list was made
    return [GraphFile(name, group, path, facts.st_mtime, facts.st_size)]


def step_graphs(run: RunDirectory) -> dict[int, dict[str, StepGraph]]:
    """Graphs saved during a run: step → who → file; graphs without a step are repeated at every step."""
    graphs = run.graphs()
    fixed = {graph.who: graph for graph in graphs if graph.step is None}
    steps: dict[int, dict[str, StepGraph]] = {}
    for graph in graphs:
        if graph.step is not None:
            steps.setdefault(graph.step, dict(fixed))[graph.who] = graph
    return steps


def import_upload(name: str, content: bytes) -> list[RunDirectory]:
    """Bring in the runs of an uploaded event file or Trackio database. Raises `GfvizError` where it is none."""
    from gfviz.runs.imports import import_runs

    if name.endswith((".db-wal", ".db-shm")) or not content:
        raise GfvizError(f"{name[:80]}: choose the event file or the .db file itself")
    with tempfile.TemporaryDirectory() as folder:
        stem = _SAFE_NAME.sub("-", Path(name).name).strip("-.")[:120] or "events.tfevents"
        scratch = Path(folder) / "imported" / stem
        scratch.parent.mkdir()
        scratch.write_bytes(content)
        return import_runs(scratch, runs_root())


def import_graph(name: str, content: bytes) -> Path:
    """Check that `content` is a graph and keep it among the loose graphs. Raises `GfvizError` where it is none."""
    from gfviz.graph import load_graph

    stem = _SAFE_NAME.sub("-", Path(name).stem).strip("-.")[:80] or "graph"
    target = graphs_root() / f"{stem}.safetensors"
    number = 2
    while target.exists():
        target = graphs_root() / f"{stem}-{number}.safetensors"
        number += 1
    # Checked before it has its name: the app may be killed at any moment, and nobody looks at it again.
    with atomic_path(target) as scratch:
        scratch.write_bytes(content)
        try:
            load_graph(scratch)
        except GfvizError as error:
            raise GfvizError(str(error).replace(str(scratch), target.name)) from error
    return target
