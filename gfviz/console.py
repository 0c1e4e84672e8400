"""What the commands print with: progress and notes go to standard error, so that standard output stays clean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from gfviz.times import when

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from gfviz.fusion import EvaluationReport, FusionEvent
    from gfviz.graph import CoactivationGraph
    from gfviz.gromov import GromovResult
    from gfviz.runs import RunDirectory


@lru_cache(maxsize=1)
def messages() -> Console:
    """The console for progress and notes (standard error)."""
    from rich.console import Console

    return Console(stderr=True)


def progress_bar() -> Progress:
    """A bar with counts, remaining and elapsed time; silent where standard error is no terminal."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TimeElapsedColumn(),
    )
    console = messages()
    return progress.Progress(*columns, console=console, disable=not console.is_terminal)


@contextlib.contextmanager
def fusion_progress(description: str) -> Iterator[Callable[[FusionEvent], None]]:
    """A live bar for a training run: yields the hook that `gfviz.fuse` takes as `on_event`."""
    bar = progress_bar()
    task = bar.add_task(description, total=None)

    def on_event(event: FusionEvent) -> None:
        if event.kind in ("begin", "step"):
            loss = event.values.get("loss/total")
            shown = description if loss is None else f"{description}  loss {loss:.3f}"
            bar.update(task, total=event.total, completed=event.step, description=shown)
        elif event.kind == "stage":
            bar.update(task, description=f"{description}: {escaped(event.text)}")
        elif event.kind == "bad_step":
            bar.console.print(escaped(event.text), markup=False)

    with bar:
        yield on_event


def output() -> Console:
    """The console for results (standard output); 120 columns wide in a pipe. Markup is off: labels are untrusted."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, markup=False, width=120)


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table in the house's style; the columns named in `numbers` are set flush right."""
    from rich import box
    from rich.table import Table

    made = Table(title=plain(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    return made


def plain(text: str) -> Text:
    """Untrusted text for a cell: no markup, control and direction characters written as escapes.

    >>> str(plain("a\\n\u202e[red]"))
    'a\\\\n\\\\u202e[red]'
    """
    from rich.text import Text

    return Text(escaped(text))


def escaped(text: str) -> str:
    """Untrusted text for a terminal: control and direction characters, which could act there, written as escapes.

    >>> print(escaped(chr(27) + "[2Ja"))
    \\x1b[2Ja
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def milliseconds(seconds: float) -> str:
    """A duration for reading: `0.42 ms`, `31 ms`, `2.4 s`.

    >>> milliseconds(0.00042), milliseconds(0.031), milliseconds(2.4)
    ('0.42 ms', '31 ms', '2.4 s')
    """
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


def print_graph(graph: CoactivationGraph, saved: Path) -> None:
    """A graph in a dozen lines: its size, its most active nodes and its heaviest edges."""
    import numpy as np

    console = output()
    console.print(
        f"{graph.n} {graph.nodes} nodes from {graph.positions} positions ({graph.normalize}, {graph.weighting} weights)"
    )
    activity = graph.diagonal()
    busiest = np.argsort(-activity, kind="stable")[:8]
    edges = graph.edges(limit=8)
    shown = table("Most active nodes and heaviest edges", "node", "C_ii", "edge", "C_ij", numbers=("C_ii", "C_ij"))
    for row in range(max(len(busiest), len(edges.weight))):
        left = right = (plain(""), plain(""))
        if row < len(busiest):
            node = busiest[row]
            left = (plain(repr(graph.labels[node])), plain(f"{activity[node]:.3e}"))
        if row < len(edges.weight):
            names = f"{graph.labels[edges.i[row]]!r} – {graph.labels[edges.j[row]]!r}"
            right = (plain(names), plain(f"{edges.weight[row]:.3e}"))
        shown.add_row(*left, *right)
    console.print(shown)
    console.print(f"saved {saved}")


def print_comparison(
    a: CoactivationGraph, b: CoactivationGraph, result: GromovResult, paper: float, uncertainty: tuple | None = None
) -> None:
    """The ladder as it was spent, and the interval it ends in."""
    console = output()
    title = f"GW_{result.p:g} of {a.source or 'A'} ({a.n} nodes) and {b.source or 'B'} ({b.n} nodes)"
    shown = table(title, "rung", "end", "value", "time", "note", numbers=("value", "time"))
    for rung in result.rungs:
        value = "" if rung.value is None else f"{rung.value:.6g}"
        best = rung.used and rung.name == (result.lower_rung if rung.side == "lower" else result.upper_rung)
        time = milliseconds(rung.seconds) if rung.used else ""
        shown.add_row(plain(rung.name), rung.side, value, time, plain(rung.note), style="bold" if best else None)
    console.print(shown)
    proof = f"proven by {result.proof}" if result.proof else "not closed: both ends are certified"
    console.print(f"{result.lower:.6g} ≤ GW_{result.p:g} ≤ {result.upper:.6g}   gap {result.gap:.1%}   {proof}")
    console.print(f"the paper's closed form (W_1 of the row means): {paper:.6g}, a lower bound of GW_1")
    for estimate in uncertainty or ():
        if estimate is not None:
            console.print(str(estimate))


def print_run(run: RunDirectory) -> None:
    """A run in a few lines: how it stands, and its newest metrics."""
    console, status = output(), run.status()
    console.print(f"run {run.id} in {run.path}")
    progress = f"step {max(status.step, 0)}" + (f" of {status.total_steps}" if status.total_steps else "")
    console.print(f"{status.state}, {progress}{': ' + str(plain(status.reason)) if status.reason else ''}")
    if status.heartbeat is not None:
        console.print(f"last heartbeat {when(status.heartbeat, seconds=True)}")
    with run.reader() as reader:
        newest = reader.latest()
    if newest:
        shown = table("Newest metrics", "metric", "step", "value", numbers=("step", "value"))
        for name, (step, value, _) in sorted(newest.items()):
            shown.add_row(plain(name), str(step), f"{value:.6g}")
        console.print(shown)


def print_evaluation(report: EvaluationReport) -> None:
    """Scores of a model, overall and per family, with their intervals."""
    interval = f"{report.confidence:.0%} interval"
    names = ("family", "exact match", interval, "NLL per token", interval, "ECE", interval, "examples")
    shown = table(f"Scores of {report.model}", *names, numbers=("examples",))
    for name, score in [*report.families.items(), ("all", report.overall)]:
        cells = [f"{score.exact_match:.1%}", f"{score.low:.1%} – {score.high:.1%}"]
        estimates = ((score.nll, score.nll_low, score.nll_high), (score.ece, score.ece_low, score.ece_high))
        for value, low, high in estimates:
            cells += [f"{value:.3f}", "–" if low is None else f"{low:.3f} – {high:.3f}"]
        shown.add_row(plain(name), *cells, str(score.count), style="bold" if name == "all" else None)
    output().print(shown)
    output().print(f"{report.nll_per_byte:.4f} nats per byte")
