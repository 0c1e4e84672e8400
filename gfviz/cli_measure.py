"""The commands that measure: `validate`, `study fusion`, `bench`, and `cache` (a teacher's signals, offline)."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class StudySize(StrEnum):
    """Sizes of the error study."""

    smoke = "smoke"
    cpu = "cpu"
    full = "full"


class FusionStudySize(StrEnum):
    """Sizes of the fusion study."""

    smoke = "smoke"
    cpu = "cpu"
    gpu = "gpu"


class SignalPrecision(StrEnum):
    """How a cache stores log-probabilities."""

    float16 = "float16"
    float32 = "float32"


def validate(
    out: Annotated[Path, typer.Option("--out", help="Folder of the study; a run that was stopped goes on there.")],
    size: Annotated[StudySize, typer.Option(help="smoke: a minute, no evidence; cpu; full.")] = StudySize.cpu,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic families.", min=0)] = 0,
    family: Annotated[list[str] | None, typer.Option("--family", help="Only this family. Repeatable.")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Folder of a model's training checkpoints.")] = None,
) -> None:
    """The error study: how wrong each method is, on families of graphs whose distance is proven."""
    from gfviz.console import output, plain, table
    from gfviz.study.validate import run_validation, write_report

    result = run_validation(out, size.value, seed, family, checkpoints=checkpoints)
    report = write_report(result)
    columns = [str(name) for name in result.targets.columns]
    shown = table("Targets", *columns)
    for row in result.targets.itertuples(index=False):
        shown.add_row(*(plain(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row))
    output().print(shown)
    print(report)


study_app = typer.Typer(name="study", help="Studies of whole methods, with their controls.", no_args_is_help=True)


@study_app.callback()
def study() -> None:
    """Studies of whole methods, with their controls."""


@study_app.command("fusion")
def study_fusion(
    size: Annotated[FusionStudySize, typer.Option(help="smoke: no evidence; cpu; gpu.")] = FusionStudySize.cpu,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, nothing else.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the study; a stopped one goes on there.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the list of cells and run nothing.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes side by side; all cores if left out.", min=1)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; the CPU for all sizes but gpu.")] = None,
) -> None:
    """The fusion study: losses beside their controls, over regimes of labels and teachers, paired over seeds."""
    from gfviz.study.fusion.commands import print_plan, study_command

    if plan:
        print_plan(size.value)
    else:
        study_command(size.value, out or Path(f"fusion-study-{size.value}"), workers, device, as_json)


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[start|gw|losses|capture|train|store|curves|app|all]...")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or a CUDA device.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON rows instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder in which the results file is written.")] = None,
    watch: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="app: watch a live run so long, for its memory.")
    ] = None,
) -> None:
    """Benchmarks against peers and against what the memory allows, on this machine."""
    from gfviz.bench import render, rows_to_json, run_bench, save_results  # type: ignore[attr-defined]
    from gfviz.console import output

    rows = run_bench(names or ["all"], device, watch=watch)
    if as_json:
        print(json.dumps(rows_to_json(rows), indent=2))
    else:
        output().print(render(rows))
    if out is not None:
        print(save_results(rows, device, out), file=sys.stderr)


def cache(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Model folder or hub id.")],
    data: Annotated[list[Path], typer.Option("--data", help="JSONL with prompt and answer. Repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the cache; an interrupted one goes on.")],
    k: Annotated[int | None, typer.Option("-k", help="Logits kept per position; min(64, V) if left out.")] = None,
    precision: Annotated[SignalPrecision, typer.Option(help="Of the stored values.")] = SignalPrecision.float16,
    temperature: Annotated[float, typer.Option(help="Divides the logits before they are kept.", min=1e-6)] = 1.0,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Put prompts into the chat template.")] = False,
    batch_size: Annotated[int, typer.Option(help="Examples per forward pass.", min=1)] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; the best one if left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    processes: Annotated[int, typer.Option(help="Processes (devices) that share the work.", min=1)] = 1,
) -> None:
    """Keep a teacher's signals on disk, so that fusions need not load it."""
    from gfviz.fusion import read_examples

    examples = read_examples(data)  # before the imports that take seconds
    from gfviz.console import messages, progress_bar
    from gfviz.fusion.cache import build_cache
    from gfviz.fusion.shares import cache_shared

    options: dict[str, Any] = {"k": k, "dtype": precision.value, "temperature": temperature, "device": device}
    options |= {"chat_template": chat_template, "batch_size": batch_size, "revision": revision}
    options["trust_remote_code"] = trust_remote_code
    if processes > 1:
        with messages().status(f"{processes} processes cache {len(examples)} examples"):
            report = cache_shared(teacher, data, out, processes, **options)
    else:
        with progress_bar() as bar:
            task = bar.add_task(f"cache {Path(teacher).name}", total=len(examples))

            def advance(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            report = build_cache(teacher, examples, out, **options, on_progress=advance)
    reused = f", {report.reused_shards} shards were there already" if report.reused_shards else ""
    print(f"{report.examples} examples, {report.tokens} tokens, {report.bytes_per_token:.0f} bytes a token{reused}")
    print(report.folder)
