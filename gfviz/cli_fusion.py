"""The commands that fuse and score: `fuse` (with `--plan`) and `eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gfviz.errors import GfvizError

if TYPE_CHECKING:
    from gfviz.fusion import FusionConfig
    from gfviz.fusion.benchmarks import BenchmarkScore
    from gfviz.fusion.launch import Started
    from gfviz.runs import RunDirectory

_TRUST = "Run code that comes with those models for which the configuration asks it."
_CONFIG = "A configuration, or a shipped recipe's name."
_PROCESSES = "Processes (devices), on all machines; what --accelerate-config says, else one."
_JOIN = "Start this machine's processes of a run that machine 0 made, on storage that they share."
_ACCELERATE = "An Accelerate configuration file, or a shipped one: fsdp2, zero2, zero3, multi-gpu."


def fuse(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml", help=_CONFIG)] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys of it.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it takes: memory, speed, hours.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it as a process of its own and return.")] = False,
    processes: Annotated[int | None, typer.Option(help=_PROCESSES, min=1)] = None,
    accelerate_config: Annotated[Path | None, typer.Option(help=_ACCELERATE)] = None,
    join: Annotated[Path | None, typer.Option(metavar="RUN", help=_JOIN)] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help=_TRUST)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON instead of a table.")] = False,
) -> None:
    """Fuse teachers into a pivot, as a configuration says."""
    from gfviz.fusion import load_config
    from gfviz.fusion.recipes import recipe_path
    from gfviz.fusion.trust import allow_code

    if trust_remote_code:
        allow_code()
    if join is not None:
        if config is not None or overrides or plan or processes is not None or accelerate_config is None:
            raise GfvizError("--join takes --accelerate-config FILE and no CONFIG.yaml: the run has its own")
        _join(join, accelerate_config, detach)
        return
    if config is None:
        raise GfvizError("give a configuration: gfviz fuse CONFIG.yaml, or a shipped recipe's name")
    checked = load_config(recipe_path(config), overrides or [])  # before the imports that take seconds
    if plan:
        _plan(checked, processes, accelerate_config, as_json)
    elif detach or (processes or 1) > 1 or accelerate_config is not None:
        _launch(checked, processes, accelerate_config, detach)
    else:
        _fuse_here(checked)


def _fuse_here(config: FusionConfig) -> None:
    from gfviz.console import fusion_progress
    from gfviz.fusion import fuse as fuse_here
    from gfviz.fusion.launcher import check_frameworks

    check_frameworks(config)
    with fusion_progress("fuse") as on_event:
        run = fuse_here(config, on_event=on_event)
    _print_ended(run)


def _launch(config: FusionConfig, processes: int | None, accelerate_config: Path | None, detach: bool) -> None:
    from gfviz.fusion.launch import start_fusion

    watch(start_fusion(config, processes=processes, accelerate_config=accelerate_config), "started", detach)


def _join(folder: Path, accelerate_config: Path, detach: bool) -> None:
    from gfviz.fusion.launch import join_run
    from gfviz.runs import RunDirectory

    run, process = join_run(RunDirectory.open(folder), accelerate_config)
    print(f"joined {run.id}: machine 0 writes the run, this one prints to {run.path}/stdout-N.log", flush=True)
    if detach:
        return
    try:
        code = process.wait()
    except KeyboardInterrupt:
        print(f"left running: stop the run on machine 0 with `gfviz runs stop {run.path}`", file=sys.stderr)
        return
    if code:
        print(f"error: this machine's processes ended with code {code}: see its log in {run.path}", file=sys.stderr)
        raise typer.Exit(1)


def _plan(config: FusionConfig, processes: int | None, accelerate_config: Path | None, as_json: bool) -> None:
    from gfviz.console import messages, output, plain, table
    from gfviz.fusion.plan import plan

    with messages().status("sizing the models, then some steps of training where they can be run here"):
        found = plan(config, processes=processes, accelerate_config=accelerate_config)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    models = table("Models", "name", "model", "parameters", "sized by", numbers=("parameters",))
    for one in found.models:
        models.add_row(plain(one.name), plain(one.model), f"{one.parameters / 1e6:,.0f}M", plain(one.source))
    output().print(models)
    memory = table(
        f"Memory of one of {found.processes} × {found.device} ({found.strategy})", "part", "GB", numbers=("GB",)
    )
    for part, size in found.memory.items():
        memory.add_row(part, f"{size / 1e9:.2f}")
    memory.add_row("peak (not all at one time)", f"{found.peak_bytes / 1e9:.2f}", style="bold")
    if found.measured_peak_bytes is not None:
        memory.add_row("peak, measured", f"{found.measured_peak_bytes / 1e9:.2f}")
    output().print(memory)
    batch = f"batches of {found.rows} × {found.length} tokens, logits at {found.window} of them"
    output().print(f"{batch}; {'unknown' if found.steps is None else found.steps} steps")
    if found.seconds_per_step is not None:
        hours = "" if found.hours is None else f"; {found.hours:.2g} hours in all"
        how = (
            "measured" if found.processes == 1 else f"at best, measured on one device and taken {found.processes} times"
        )
        output().print(f"{how}: {found.seconds_per_step:.3g} s a step, {found.tokens_per_s:,.0f} tokens/s{hours}")
    for note in found.notes:
        output().print(plain(f"note: {note}"))


def watch(started: Started, done: str, detach: bool) -> None:
    """Say how to watch a run that was `done` (started, resumed) and, unless it is detached, follow it to its end."""
    from gfviz.fusion.launch import join_hint

    run = started.run
    print(f"{done} {run.id}: watch it with `gfviz runs show {run.path}` or `gfviz app --runs {run.path.parent}`")
    if hint := join_hint(run):
        print(hint)
    sys.stdout.flush()
    if not detach:
        _follow(started)


def _follow(started: Started) -> None:
    """Show a run's progress until its process ends; Ctrl+C leaves it running. Exit code 1 where it failed."""
    import time

    from gfviz.console import progress_bar

    run, process = started
    with progress_bar() as bar, run.reader() as reader:
        task = bar.add_task(run.id, total=None)
        try:
            # A run that is resumed is not alive before its process has begun to write it.
            while process.poll() is None or run.status().alive:
                status = run.status()
                newest = reader.latest().get("loss/total")
                loss = "" if newest is None else f"  loss {newest[1]:.3f}"
                done = max(status.step, 0)
                bar.update(task, total=status.total_steps, completed=done, description=f"{run.id}{loss}")
                time.sleep(0.5)
        except KeyboardInterrupt:
            print(f"left running: stop it with `gfviz runs stop {run.path}`", file=sys.stderr)
            return
    _print_ended(run, process.returncode)


def _print_ended(run: RunDirectory, code: int = 0) -> None:
    from gfviz.console import print_run

    print_run(run)
    state = run.status().state
    if code and state not in ("failed", "killed", "finished"):
        print(f"error: its process ended with code {code}: see {run.log_path}", file=sys.stderr)
    if state in ("failed", "killed") or (code and state != "finished"):
        raise typer.Exit(1)


def evaluate_model(
    model: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="Model folder, hub id or run folder.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="JSONL with prompt, answer, target, family. Repeatable.")
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(help="Of lm-evaluation-harness, with commas: paper, bbh, gsm8k, mmlu, …, or its own task names."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many examples (of each benchmark).", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts generated together.", min=1)] = 64,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens generated at most (with --data).", min=1)] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; the best one if left out.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Let benchmarks that score code (HumanEval, MBPP) run what it wrote.")
    ] = False,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put the prompts into the model's own chat template.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Score a model or a run's fused model: exact match by generation, likelihood, calibration; or benchmarks."""
    from gfviz.runs import RunDirectory

    if (benchmarks is None) == (not data):
        raise GfvizError("give --data FILE (your own examples) or --benchmarks NAMES, one of the two")
    target = RunDirectory.open(model) if (Path(model) / "run.json").is_file() else model
    if benchmarks is not None:
        from gfviz.fusion.benchmarks import evaluate_benchmarks

        scores = evaluate_benchmarks(
            target, benchmarks.split(","), limit=limit, batch_size=batch_size, device=device, revision=revision,
            chat_template=chat_template, run_code=run_code, trust_remote_code=trust_remote_code,
        )  # fmt: skip
        _print_scores(scores, as_json)
        return
    from gfviz.console import print_evaluation, progress_bar
    from gfviz.fusion import evaluate

    with progress_bar() as bar:
        task = bar.add_task("evaluate", total=None)
        report = evaluate(
            target,
            data or [],
            limit=limit,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            device=device,
            revision=revision,
            chat_template=chat_template,
            trust_remote_code=trust_remote_code,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_evaluation(report)


def _print_scores(scores: list[BenchmarkScore], as_json: bool) -> None:
    from gfviz.console import output, plain, table

    if as_json:
        print(json.dumps([score.to_dict() for score in scores], indent=2))
        return
    shown = table("Benchmarks", "benchmark", "task", "metric", "value", "± stderr", numbers=("value", "± stderr"))
    for score in scores:
        error = "" if score.stderr is None else f"{score.stderr:.4f}"
        shown.add_row(plain(score.benchmark), plain(score.task), plain(score.metric), f"{score.value:.4f}", error)
    output().print(shown)
