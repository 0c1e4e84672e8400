"""The main job in one command: graphs of two models, the certified distance between them, a short fusion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.console import fusion_progress, milliseconds, output, plain, table
from gfviz.errors import GfvizError
from gfviz.paths import sample_data_dir

if TYPE_CHECKING:
    from gfviz.graph import CoactivationGraph
    from gfviz.runs import RunDirectory

PROSE_PAIR = ("prose-teacher", "prose-student")
TEACHER, PIVOT = "task-specialist", "task-pivot"
_TEXTS = 80
# Wrong answers among the pivot's training data: what a teacher can help with (README, "The demo").
_LABEL_NOISE = 0.4
_TRAIN_EXAMPLES = 2000


def run_demo(out: str | Path = "runs", steps: int = 300, seed: int = 0) -> RunDirectory:
    """Capture, compare, fuse, score; print a table of each, and return the fused run.

    `out` receives two runs (the fusion and its plain SFT arm of equal steps) and a folder `graphs`. Raises
    `GfvizError` where the sample data is missing or `out` cannot be written. On two CPU cores it takes about the time
    that README quotes; a GPU is used where there is one.
    """
    began = time.perf_counter()
    out = Path(out)
    models = sample_data_dir() / "models"
    for name in (*PROSE_PAIR, TEACHER, PIVOT):
        if not (models / name / "config.json").is_file():
            raise GfvizError(
                f"the sample model '{name}' is missing from {models}: train the models with "
                "`python -m gfviz.study.sample_models --out sample_data/models`"
            )
    graphs = _capture_all(models, out / "graphs")
    _compare(graphs)
    run = _fuse(models, out, steps, seed)
    console = output()
    console.print(f"graphs in {out / 'graphs'}, run {run.id} in {out}   ({time.perf_counter() - began:.0f} s in all)")
    console.print(f"look at it: gfviz app --runs {out} --graphs {out / 'graphs'}")
    return run


def _capture_all(models: Path, folder: Path) -> dict[str, tuple[CoactivationGraph, CoactivationGraph]]:
    """Rank graphs (comparable across tokenizers) and token graphs (readable) of the prose pair and of the task pair."""
    from gfviz.capture import capture, load_model, read_texts

    prose = read_texts(sample_data_dir() / "prose" / "held_out.txt", limit=_TEXTS)
    tasks = read_texts(sample_data_dir() / "tasks" / "validation.jsonl", limit=_TEXTS)
    found: dict[str, list[CoactivationGraph]] = {}
    columns = ("model", "tokenizer", "rank and token nodes", "positions", "time")
    shown = table("Co-activation graphs (k = 64, true probabilities)", *columns, numbers=columns[2:])
    for pair, texts in ((PROSE_PAIR, prose), ((TEACHER, PIVOT), tasks)):
        for name in pair:
            loaded = load_model(models / name)
            started = time.perf_counter()
            tokens = capture(loaded, texts, nodes="token", progress=True)
            seconds = time.perf_counter() - started
            kind = f"{type(loaded.tokenizer.backend_tokenizer.model).__name__}, {len(loaded.tokenizer)} tokens"
            for graph in (tokens.to_rank(), tokens):
                graph.save(folder / f"{name}-{graph.nodes}.safetensors")
                found.setdefault(f"{pair[0]} and {pair[1]}, {graph.nodes} nodes", []).append(graph)
            sizes = f"{tokens.to_rank().n} and {tokens.n}"
            shown.add_row(*map(plain, (name, kind, sizes, str(tokens.positions), milliseconds(seconds))))
    output().print(shown)
    return {title: (pair[0], pair[1]) for title, pair in found.items()}


def _compare(pairs: dict[str, tuple[CoactivationGraph, CoactivationGraph]]) -> None:
    """The paper's closed form, POT's local optimum, and the interval that holds the distance, each with its time."""
    import ot  # noqa: F401  its import takes seconds, which are no method's time

    import gfviz as gv

    columns = ("pair", "method", "GW_2", "time", "what it is")
    shown = table("How far apart the models' graphs are", *columns, numbers=("GW_2", "time"))
    for title, (a, b) in pairs.items():
        rows = [_timed("sorted (the paper's form)", "a lower bound", lambda a=a, b=b: gv.sorted_gw(a, b, p=2))]
        if max(a.n, b.n) <= 256:  # POT needs dense matrices and a cubic step; at token graphs' sizes it takes minutes
            rows.append(_timed("POT", "an upper bound", lambda a=a, b=b: _pot_value(a, b)))
        started = time.perf_counter()
        result = gv.gromov_wasserstein(a, b, p=2, budget="standard")
        proof = f"proven by {result.proof}" if result.proof else f"certified, gap {result.gap:.0%}"
        value = f"{result.lower:.4g} … {result.upper:.4g}"
        rows.append(("certified interval", value, milliseconds(time.perf_counter() - started), proof))
        for i, row in enumerate(rows):
            shown.add_row(*map(plain, (title if i == 0 else "", *row)), end_section=i == len(rows) - 1)
    output().print(shown)


def _timed(method: str, meaning: str, compute: Any) -> tuple[str, str, str, str]:
    started = time.perf_counter()
    value = compute()
    return method, f"{value:.4g}", milliseconds(time.perf_counter() - started), meaning


def _pot_value(a: CoactivationGraph, b: CoactivationGraph) -> float:
    """POT's `gromov_wasserstein` from its default start, on matrices of norm one (its tolerances are absolute)."""
    import numpy as np
    import ot

    c, d = a.dense(), b.dense()
    scale = max(float(np.abs(c).max()), float(np.abs(d).max())) or 1.0
    squared = ot.gromov.gromov_wasserstein2(c / scale, d / scale, a.weights, b.weights, "square_loss")
    return float(np.sqrt(max(float(squared), 0.0)) * scale)


def _fuse(models: Path, out: Path, steps: int, seed: int) -> RunDirectory:
    """Train the pivot twice on noisy answers, with the teacher's signal and without, and print the held-out scores."""
    from gfviz.fusion import fuse
    from gfviz.study.tasks import FAMILIES, label_noise, make_split

    train = label_noise(make_split(list(FAMILIES), "train", _TRAIN_EXAMPLES, seed), _LABEL_NOISE, seed)
    held_out = make_split(list(FAMILIES), "test", 200, seed)
    runs: dict[str, RunDirectory] = {}
    for arm in ("sft", "fused"):
        with fusion_progress(f"train {arm}") as on_event:
            runs[arm] = fuse(
                demo_config(models, out, steps, seed, arm), train=train, evaluation=held_out, on_event=on_event
            )
    _print_scores(runs, steps)
    return runs["fused"]


def demo_config(models: Path, out: Path, steps: int, seed: int, arm: str) -> dict[str, Any]:
    """The configuration of one arm: "sft" is the same run without the teacher."""
    config: dict[str, Any] = {
        "name": f"demo-{arm}",
        "seed": seed,
        "runs": str(out),
        "pivot": {"model": str(models / PIVOT)},
        "training": {"steps": steps, "batch_size": 16, "learning_rate": 2e-3, "warmup": 10, "log_every": 5},
        "evaluation": {"at_start": arm == "sft", "at_end": True, "max_new_tokens": 40},
        "loss": {"lambda": 0.0},
    }
    if arm == "fused":
        config["teachers"] = [{"name": TEACHER, "model": str(models / TEACHER)}]
        config["loss"] = {"lambda": 0.3, "token": "uld", "structure": "anchored", "beta": 3.0}
        config["graph"] = {"every": max(1, steps // 12), "examples": 32, "budget": "fast"}
    return config


def _print_scores(runs: dict[str, RunDirectory], steps: int) -> None:
    columns = ("model", "exact match", "95% interval", "nats per token")
    shown = table(f"Held-out scores after {steps} steps on {_LABEL_NOISE:.0%} wrong answers", *columns)
    for name, run, step in (
        (f"{PIVOT} (the pivot, untrained here)", runs["sft"], 0),
        ("plain SFT", runs["sft"], steps),
        (f"fused with {TEACHER}", runs["fused"], steps),
    ):
        rows = _evaluation_at(run, step)
        interval = f"{rows['exact_match_low']:.1%} – {rows['exact_match_high']:.1%}"
        shown.add_row(plain(name), f"{rows['exact_match']:.1%}", interval, f"{rows['nll']:.3f}")
    output().print(shown)


def _evaluation_at(run: RunDirectory, step: int) -> dict[str, float]:
    with run.reader() as reader:
        found = {}
        for name in ("exact_match", "exact_match_low", "exact_match_high", "nll"):
            series = reader.series(f"eval/{name}")
            found[name] = float(series.values[series.steps == step][-1])
    return found
