"""The commands: each a few lines over the library, heavy imports inside the command that needs them."""

from __future__ import annotations

import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gfviz import __version__, cli_fusion, cli_measure
from gfviz.cli_runs import runs_app
from gfviz.errors import GfvizError

if TYPE_CHECKING:
    from gfviz.graph import CoactivationGraph

app = typer.Typer(
    name="gfviz",
    help="Build, compare, certify, visualise and use logit co-activation graphs of language models.",
    epilog="Start with: gfviz demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(runs_app)
app.add_typer(cli_measure.study_app)


class Nodes(StrEnum):
    """Node kinds."""

    token = "token"
    rank = "rank"


class Normalize(StrEnum):
    """Normalisations of the kept logits."""

    prob = "prob"
    raw = "raw"
    zscore = "zscore"


class Weights(StrEnum):
    """Node weightings."""

    uniform = "uniform"
    mass = "mass"


class ExportFormat(StrEnum):
    """Export formats."""

    graphml = "graphml"
    gexf = "gexf"
    csv = "csv"
    png = "png"


_SOURCE = "Model folder or hub id; logits (.npy, .safetensors); or a server's log-probabilities (.jsonl)."
_TEXTS = "Texts for a model: .txt (a text per line) or .jsonl (text, or prompt and answer). Repeatable."
RunsFolder = Annotated[Path, typer.Option("--runs", help="Folder of the runs.", show_default=True)]


def _version(asked: bool) -> None:
    if asked:
        print(f"gfviz {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # transformers' advisory chatter would bury the tables; its errors still come through as exceptions.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--runs", help="Folder in which the runs and graphs are written.")] = Path(
        "runs"
    ),
    steps: Annotated[int, typer.Option(help="Steps of each training arm.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Seed of data order and noise.", min=0)] = 0,
    open_app: Annotated[bool, typer.Option("--app/--no-app", help="Open the app on the demo's run at the end.")] = True,
    port: Annotated[int | None, typer.Option(help="Port of the app.")] = None,
) -> None:
    """Graphs of the shipped models, the certified distance, a short fusion, then the app on it."""
    from gfviz.demo import run_demo

    run_demo(out, steps=steps, seed=seed)
    if open_app:
        _serve(out, out / "graphs", port, browser=True)


@app.command()
def graph(
    source: Annotated[str, typer.Argument(metavar="MODEL", help=_SOURCE)],
    texts: Annotated[list[Path] | None, typer.Option("--texts", help=_TEXTS)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to save: graphs/NAME-NODES.safetensors.")
    ] = None,
    nodes: Annotated[Nodes, typer.Option(help="token: vocabulary ids; rank: the i-th largest logit.")] = Nodes.token,
    k: Annotated[int | None, typer.Option("-k", help="Logits kept per position; min(64, V) if left out.")] = None,
    normalize: Annotated[Normalize, typer.Option(help="How the kept logits are normalised.")] = Normalize.prob,
    weights: Annotated[Weights, typer.Option(help="Node weights of the distance.")] = Weights.uniform,
    limit: Annotated[int | None, typer.Option(help="Use only so many texts.", min=1)] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens per window; the context, at most 1024.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Tokenizer folder that names the ids of logits.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best one if left out.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code the model brings.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    processes: Annotated[int, typer.Option(help="Processes (devices) that share the texts.", min=1)] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Build a graph and save it."""
    suffix = Path(source).suffix.lower()
    name = Path(source).stem if suffix in (".npy", ".safetensors", ".jsonl") else Path(source).name or source
    target = out or Path("graphs") / f"{name}-{nodes.value}.safetensors"
    if target.suffix != ".safetensors":
        raise GfvizError(f"{target}: graphs are saved as .safetensors (export other formats with `gfviz export`)")
    if target.exists() and not force:
        raise GfvizError(f"{target} exists: pass --force to overwrite it, or --out for another place")
    options: dict[str, Any] = {"nodes": nodes.value, "normalize": normalize.value, "weights": weights.value}
    if suffix in (".npy", ".safetensors"):
        made = _graph_of_logits(Path(source), tokenizer, k, options)
    elif suffix == ".jsonl":
        made = _graph_of_server(Path(source), k, options)
    else:
        options |= {"k": k, "max_length": max_length}
        loading = {"device": device, "trust_remote_code": trust_remote_code, "revision": revision}
        made = _graph_of_model(source, texts or [], limit, processes, loading, options)
    made.save(target)
    from gfviz.console import print_graph

    print_graph(made, target)


def _graph_of_logits(path: Path, tokenizer: str | None, k: int | None, options: dict[str, Any]) -> CoactivationGraph:
    import gfviz as gv

    names = None
    if tokenizer is not None:
        from gfviz.capture import load_tokenizer

        names = load_tokenizer(tokenizer)
    signal = gv.TopKLogits.from_logits(gv.read_logits(path), k)
    return gv.CoactivationGraph.from_signal(signal, **options, labels=names, source=path.stem)


def _graph_of_server(path: Path, k: int | None, options: dict[str, Any]) -> CoactivationGraph:
    import gfviz as gv
    from gfviz.signals import Vocabulary

    served = gv.read_served_logprobs(path)
    signal = served.signal if k is None else served.signal.top(k)
    names = Vocabulary(served.tokens)
    return gv.CoactivationGraph.from_signal(signal, **options, labels=names, texts=served.texts, source=path.stem)


def _graph_of_model(
    source: str,
    files: list[Path],
    limit: int | None,
    processes: int,
    loading: dict[str, Any],
    options: dict[str, Any],
) -> CoactivationGraph:
    if not files:
        raise GfvizError("give the texts to run the model over: --texts FILE")
    from gfviz.capture import capture, load_model, read_texts

    if processes > 1:
        from gfviz.fusion.shares import capture_shared

        return capture_shared(source, files, processes, limit=limit, **loading, **options)
    texts = [text for file in files for text in read_texts(file)][:limit]
    return capture(load_model(source, **loading), texts, progress=True, **options)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A graph file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another graph file.")],
    budget: Annotated[str, typer.Option(help="fast, standard, thorough, or a number of seconds.")] = "standard",
    p: Annotated[float, typer.Option(help="The exponent of GW_p.", min=1.0)] = 2.0,
    bootstrap: Annotated[int, typer.Option(help="Draws of texts for the distance's uncertainty.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The Gromov-Wasserstein distance of two graphs, as an interval with its proof."""
    import gfviz as gv
    from gfviz.console import print_comparison

    first, second = gv.load_graph(a), gv.load_graph(b)
    result = gv.gromov_wasserstein(first, second, p=p, budget=_budget(budget))
    paper = gv.sorted_gw(first, second, p=1)
    uncertainty = None
    if bootstrap:
        from gfviz.study.uncertainty import bootstrap_distance, permutation_test

        uncertainty = (
            bootstrap_distance(first, second, bootstrap, seed=seed),
            permutation_test(first, second, bootstrap, seed=seed) if first.space == second.space else None,
        )
    if as_json:
        found = {"a": str(a), "b": str(b), "sorted_gw_1": paper, **result.to_dict()}
        if uncertainty is not None:
            found["bootstrap"] = uncertainty[0].to_dict()
            found["permutation"] = None if uncertainty[1] is None else uncertainty[1].to_dict()
        print(json.dumps(found, indent=2))
    else:
        print_comparison(first, second, result, paper, uncertainty)


def _budget(text: str) -> str | float:
    from gfviz.gromov import BUDGETS

    if text in BUDGETS:
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise GfvizError(f"budget = '{text}': choose {', '.join(BUDGETS)}, or a positive number of seconds")
    return seconds


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="GRAPH", help="A graph file.")],
    to: Annotated[ExportFormat, typer.Option("--to", help="The format.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; beside the graph if left out.")
    ] = None,
    edges: Annotated[int | None, typer.Option(help="Keep only so many of the heaviest edges.", min=1)] = None,
    min_weight: Annotated[float, typer.Option(help="Keep only edges heavier than this.", min=0.0)] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a graph for other programs."""
    import gfviz as gv

    target = out or source.with_suffix(f".{to.value}")
    if target.exists() and not force:
        raise GfvizError(f"{target} exists: pass --force to overwrite it, or --out for another place")
    loaded = gv.load_graph(source)
    if to is ExportFormat.png:
        from gfviz.figures.still import draw_png

        draw_png(loaded, target, edges=edges or 400, min_weight=min_weight)
    else:
        gv.export_graph(loaded, target, to.value, edges, min_weight)
    print(target)


@app.command("app")
def open_app(
    runs: RunsFolder = Path("runs"),
    graphs: Annotated[Path, typer.Option("--graphs", help="Folder of graph files.")] = Path("graphs"),
    port: Annotated[int | None, typer.Option(help="Port; Streamlit's choice from 8501 on if left out.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
) -> None:
    """Explore graphs and watch runs in the browser (on this machine only)."""
    _serve(runs, graphs, port, browser)


def _serve(runs: Path, graphs: Path, port: int | None, browser: bool) -> None:
    import importlib.util
    import subprocess

    from gfviz.app_options import app_command

    if importlib.util.find_spec("streamlit") is None:
        raise GfvizError('the app needs Streamlit: pip install "gfviz[app]"')
    command = app_command(runs.resolve(), graphs.resolve(), port, browser)
    print("Opening the app: press Ctrl+C to end it.", file=sys.stderr)
    sys.stdout.flush()
    if os.name == "posix":
        # Becoming the server leaves no parent that could die without it.
        os.execv(command[0], command)
    raise typer.Exit(subprocess.call(command))


app.command()(cli_fusion.fuse)
app.command("eval")(cli_fusion.evaluate_model)
for _command in (cli_measure.validate, cli_measure.cache, cli_measure.bench):
    app.command()(_command)


def main() -> NoReturn:
    """Run the command line; a mistake in the input is one line on standard error and exit code 2."""
    try:
        app()
    except GfvizError as error:
        _refuse(str(error))
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        # A name that is too long, a folder that may not be looked into, a full disk: the system's refusal of what the
        # user gave. Any other fault of input and output is our own, and is shown as one.
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        where = "" if error.filename is None else f"{str(error.filename)[:200]}: "
        _refuse(f"{where}{error.strerror or error}")
    sys.exit(0)


def _refuse(reason: str) -> NoReturn:
    from gfviz.console import escaped

    print(f"error: {escaped(' '.join(reason.split()))}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
