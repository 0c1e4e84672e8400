"""`gfviz runs`: list, show, stop, resume, compare, import and remove runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gfviz.errors import GfvizError

runs_app = typer.Typer(
    name="runs", help="List, show, stop, resume, compare, import and remove runs.", no_args_is_help=False
)
Folder = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
_TRUST = "Run code that comes with the run's models where its configuration asks it, and read pickled checkpoints."
Which = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its folder.")]


def find_run(which: str, root: Path):
    """The run of an id below `root`, or of a folder. Raises `GfvizError` for neither."""
    from gfviz.runs import RunDirectory

    folder = Path(which)
    return RunDirectory.open(folder) if (folder / "run.json").is_file() else RunDirectory.find(root, which)


@runs_app.callback(invoke_without_command=True)
def _default(context: typer.Context, root: Folder = Path("runs")) -> None:
    if context.invoked_subcommand is None:
        list_all(root)


@runs_app.command("list")
def list_all(root: Folder = Path("runs")) -> None:
    """All runs of a folder, newest first."""
    from gfviz.console import output, plain, table
    from gfviz.runs import glance, list_runs
    from gfviz.times import when

    found = list_runs(root)
    if not found:
        output().print(f"no runs in {root}: start one with `gfviz demo` or `gfviz fuse CONFIG.yaml`")
        return
    shown = table(f"Runs in {root}", "run", "state", "step", "created", "reason", numbers=("step",))
    for run in map(glance, found):
        step = f"{run.step}" + (f"/{run.total_steps}" if run.total_steps else "")
        shown.add_row(
            plain(run.run.id), run.state, "" if run.status is None else step, when(run.created), plain(run.reason)
        )
    output().print(shown)


@runs_app.command()
def show(which: Which, root: Folder = Path("runs")) -> None:
    """How a run stands, and its newest metrics."""
    from gfviz.console import print_run

    print_run(find_run(which, root))


@runs_app.command()
def stop(
    which: Which,
    root: Folder = Path("runs"),
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0)] = 60.0,
) -> None:
    """Ask a run to finish its step, write a checkpoint and end."""
    from gfviz.fusion import stop as stop_run

    run = find_run(which, root)
    ended = stop_run(run, wait)
    print(f"{run.id} has stopped" if ended else f"{run.id} was asked to stop and still finishes its step")


@runs_app.command()
def resume(
    which: Which,
    root: Folder = Path("runs"),
    detach: Annotated[bool, typer.Option("--detach", help="Go on as a process of its own.")] = False,
    processes: Annotated[int | None, typer.Option(help="Processes; as many as before if left out.", min=1)] = None,
    accelerate_config: Annotated[
        Path | None, typer.Option(help="An Accelerate configuration; that of its launch if left out.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help=_TRUST)] = False,
) -> None:
    """Go on with a run from its newest checkpoint, launched as it was unless told otherwise."""
    from gfviz.fusion.launch import resume_launcher, start_resume
    from gfviz.fusion.trust import allow_code

    if trust_remote_code:
        allow_code()
    run = find_run(which, root)
    if detach or resume_launcher(run, processes, accelerate_config).name != "python":
        from gfviz.cli_fusion import watch

        watch(start_resume(run, processes=processes, accelerate_config=accelerate_config), "resumed", detach)
        return
    from gfviz.console import fusion_progress, print_run
    from gfviz.fusion import resume as resume_here

    with fusion_progress(run.id) as on_event:
        resume_here(run, on_event)
    print_run(run)


@runs_app.command()
def compare(
    which: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two runs or more.")], root: Folder = Path("runs")
) -> None:
    """The newest metrics of several runs side by side, and where their configurations differ."""
    from gfviz.console import output, plain, table

    if len(which) < 2:
        raise GfvizError("compare needs two runs or more")
    runs = [find_run(one, root) for one in which]
    newest = []
    for run in runs:
        with run.reader() as reader:
            newest.append(reader.latest())
    names = sorted(set().union(*newest))
    ids = [run.id for run in runs]
    shown = table("Newest metrics", "metric", *ids, numbers=tuple(ids))
    for name in names:
        shown.add_row(plain(name), *(f"{rows[name][1]:.6g}" if name in rows else "" for rows in newest))
    output().print(shown)
    flat = [flatten(run.config) for run in runs]
    changed = table("Configuration", "key", *ids)
    for key in sorted(set().union(*flat)):
        values = [str(one.get(key, "")) for one in flat]
        if len(set(values)) > 1:
            changed.add_row(plain(key), *map(plain, values))
    output().print(changed)


@runs_app.command("import")
def bring_in(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Event file, folder of them, or Trackio database.")],
    root: Folder = Path("runs"),
) -> None:
    """Bring runs that TensorBoard or Trackio logged into the runs folder."""
    from gfviz.console import escaped
    from gfviz.runs.imports import import_note, import_runs

    for run in import_runs(path, root):
        note = import_note(run)
        said = f"; {escaped(note)}" if note else ""
        print(f"{run.id}: {len(run.reader().names())} metrics, newest step {run.status().step}{said}")


@runs_app.command("rm")
def remove(
    which: Which,
    root: Folder = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a run with its checkpoints and model; refused while it is alive."""
    run = find_run(which, root)
    if not yes:
        typer.confirm(f"Remove {run.path} with its checkpoints and model?", abort=True)
    run.remove()
    print(f"removed {run.id}")


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings and lists as one mapping with dotted keys.

    >>> flatten({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c.0': 2}
    """
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {prefix: value}
    found: dict[str, object] = {}
    for key, item in items:
        found |= flatten(item, f"{prefix}.{key}" if prefix else key)
    return found
