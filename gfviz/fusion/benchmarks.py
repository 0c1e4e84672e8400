"""The hook to EleutherAI's lm-evaluation-harness (extra `eval`): public benchmarks on any model or a run's."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory

# The eleven of InfiGFusion (arXiv 2505.13893) under the harness's own names (0.4.13); TheoremQA, which it lacks, is a
# task file of ours. HumanEval and MBPP run what the model wrote.
TASKS: dict[str, str] = {
    "bbh": "bbh",
    "gsm8k": "gsm8k",
    "math": "hendrycks_math",
    "mmlu": "mmlu",
    "arc-c": "arc_challenge",
    "humaneval": "humaneval",
    "mbpp": "mbpp",
    "drop": "drop",
    "ifeval": "ifeval",
    "hellaswag": "hellaswag",
    "theoremqa": "gfviz_theoremqa",
}
_RUNS_CODE = ("humaneval", "mbpp")
_OWN_TASKS = Path(__file__).resolve().parent / "recipes" / "tasks"


@dataclass(frozen=True)
class BenchmarkScore:
    """One number of the harness: `benchmark` as it was asked for, `task` and `metric` in the harness's words."""

    benchmark: str
    task: str
    metric: str
    value: float
    stderr: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def task_names(benchmarks: Sequence[str]) -> dict[str, str]:
    """Harness tasks by the benchmark's name; `paper` stands for all eleven, an unknown name for itself.

    >>> task_names(["ARC-C", "piqa"])
    {'arc-c': 'arc_challenge', 'piqa': 'piqa'}
    """
    found: dict[str, str] = {}
    for name in benchmarks:
        key = name.strip().lower()
        if key == "paper":
            found |= TASKS
        elif key:
            found[key] = TASKS.get(key, name.strip())
    return found


def evaluate_benchmarks(
    model: str | Path | RunDirectory,
    benchmarks: Sequence[str],
    *,
    limit: int | None = None,
    batch_size: int = 8,
    device: str | None = None,
    revision: str | None = None,
    chat_template: bool = False,
    run_code: bool = False,
    trust_remote_code: bool = False,
    task_folder: str | Path | None = None,
) -> list[BenchmarkScore]:
    """Scores of a model (folder, hub id) or a run's fused model on benchmarks of lm-evaluation-harness.

    `benchmarks` are names of `TASKS`, `paper` for all of them, or tasks of the harness; `task_folder` holds more task
    files; `limit` examples of each. Datasets are fetched from the hub. Raises `GfvizError` where the extra `eval` is
    not installed, a task is unknown, a dataset cannot be fetched, or a benchmark runs code and `run_code` is off.
    """
    tasks = task_names(benchmarks)
    if not tasks:
        raise GfvizError(f"no benchmark was named: choose paper, or of {', '.join(TASKS)}")
    risky = [name for name, task in tasks.items() if task.startswith(_RUNS_CODE)]
    if risky and not run_code:
        raise GfvizError(f"{', '.join(risky)}: runs the code that the model wrote, on this machine: pass --run-code")
    if importlib.util.find_spec("lm_eval") is None:
        raise GfvizError("benchmarks need lm-evaluation-harness: pip install 'gfviz[eval]'")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from gfviz.fusion.evaluation import load_target

    folders = [str(folder) for folder in (_OWN_TASKS, task_folder) if folder is not None]
    manager = TaskManager(include_path=folders)
    unknown = [task for task in tasks.values() if not manager.match_tasks([task])]
    if unknown:
        raise GfvizError(f"lm-evaluation-harness has no task '{unknown[0]}': its list is `lm-eval ls tasks`")
    loaded = load_target(model, device, revision, trust_remote_code)
    try:
        report = simple_evaluate(
            model=HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size),
            tasks=list(tasks.values()), task_manager=manager, limit=limit, batch_size=batch_size, log_samples=False,
            apply_chat_template=chat_template, confirm_run_unsafe_code=run_code,
        )  # fmt: skip
    except GfvizError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        hint = "is there a network? " if isinstance(error, OSError) or "onnect" in text or "hub" in text.lower() else ""
        raise GfvizError(
            f"lm-evaluation-harness could not run {', '.join(tasks.values())}: {hint}{type(error).__name__}: {text}"
        ) from error
    return read_scores(tasks, report or {})


def read_scores(tasks: Mapping[str, str], report: Mapping[str, Any]) -> list[BenchmarkScore]:
    """The numbers of the harness's report for the tasks that were asked for (a group's own, not its members').

    A group without a number of its own gives its members'. Raises `GfvizError` for a report without any.
    """
    results = {**report.get("results", {}), **report.get("groups", {})}
    members = report.get("group_subtasks", {})
    scores: list[BenchmarkScore] = []
    for benchmark, task in tasks.items():
        own = _numbers(benchmark, task, results.get(task, {}))
        if not own:
            own = [
                score for name in members.get(task, ()) for score in _numbers(benchmark, name, results.get(name, {}))
            ]
        if not own:
            raise GfvizError(f"lm-evaluation-harness reported no score for {task}")
        scores += own
    return scores


def _numbers(benchmark: str, task: str, result: Mapping[str, Any]) -> list[BenchmarkScore]:
    found = []
    for key, value in result.items():
        # Keys are "metric,filter"; strings and "N/A" stand beside the numbers.
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        error = result.get(f"{metric}_stderr,{kind}")
        label = metric if kind == "none" else f"{metric} ({kind})"
        stderr = float(error) if isinstance(error, int | float) else None
        found.append(BenchmarkScore(benchmark, task, label, float(value), stderr))
    return found
