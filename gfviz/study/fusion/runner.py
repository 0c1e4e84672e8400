"""Running the study: models, data, then run by run, each kept as soon as it is done; a stopped study goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gfviz
from gfviz.errors import GfvizError
from gfviz.files import atomic_path, atomic_write_text
from gfviz.study.folder import claim_folder
from gfviz.study.fusion.analysis import finalists, second_try, summary, verdicts
from gfviz.study.fusion.plan import (
    METHODS,
    REGIMES,
    Cell,
    StudySize,
    confirmation_cells,
    plan_rows,
    planned_cells,
    study_size,
)

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
Progress = Callable[[int, int, str], None]

COLUMNS = {
    "stage": "study, or confirm (fresh seeds and another pivot)",
    "regime": "what labels and teacher are like",
    "labels": "clean or noisy",
    "method": "how the pivot was trained",
    "seed": "of the examples, their noise and their order",
    "exact_match": "held-out exact match by generation, over all families",
    "nll": "mean negative log-likelihood of the right answer per token, nats",
    "ece": "expected calibration error",
    "families": "exact match by family, JSON",
    "loss": "loss of the last step",
    "seconds": "wall time of the run",
    "cpu_seconds": "processor time of the run",
}
"""Columns of the table, one row per run."""


@dataclass(frozen=True)
class FusionStudy:
    """A study as far as it has come: `table` (one row per run, `COLUMNS`), `verdicts` of both stages, `config`.

    done, planned: runs that were made and listed, the confirmation's included.
    """

    table: pd.DataFrame
    verdicts: pd.DataFrame
    config: dict[str, Any]
    models: dict[str, Any]
    done: int
    planned: int
    out: Path

    @property
    def evidence(self) -> bool:
        """Whether this is more than a smoke test."""
        return bool(self.config["evidence"])

    def summary(self) -> dict[str, dict[str, Any]]:
        """`{method: {mean, ci95, seeds, beats_sft, beats_controls}}`."""
        return summary(self.table)


def run_fusion_study(
    out: str | Path,
    size: str | StudySize = "cpu",
    *,
    workers: int = 1,
    device: str | None = None,
    limit: int | None = None,
    progress: bool | Progress = True,
) -> FusionStudy:
    """Compare losses and controls over regimes and seeds, then confirm the best cells on fresh seeds.

    Writes to `out`: plan.csv (before anything runs), models/, data/, runs/ (one JSON file a run), table.csv and
    .parquet (`COLUMNS`), verdicts.csv, summary.json, models.json, study.json. What is there already is not made again.

    Args:
        out: folder of the study; made where missing.
        size: "smoke" (no evidence), "cpu" (an hour on two cores), "gpu" (ten minutes on a large one), or a size.
        workers: processes that run side by side; each has the machine's threads divided by their number.
        device: the best one if left out, but for the sizes that are made for a CPU.
        limit: stop after so many new runs; the next call goes on.
        progress: a bar with the time left, none, or a function called with (runs done, runs in all, what now).

    Raises `GfvizError` where `out` holds a study of another configuration, or for an unknown size or device.
    """
    out = Path(out)
    plan = study_size(size) if isinstance(size, str) else size
    chosen = _device(plan, device)
    config = configuration(plan, chosen)
    claim_folder(out, config)
    _write_table(out / "plan", plan_rows(plan))
    cells = planned_cells(plan)
    with _counted(progress, len(cells)) as report, _Pool(workers, chosen) as pool:
        pool.models(out, plan, report)
        first = planned_cells(plan, 1)
        left = pool.run(out, plan, first, limit, report)
        extra: list[Cell] = []
        if all(_run_file(out, cell).is_file() for cell in first):
            extra = confirmation_cells(plan.fresh, finalists(verdicts(_collect(out, first)), plan.finalists))
            # After the list that was fixed first, then after each tier of attempts: no choice depends on later runs.
            for part in range(len(plan.tiers), len(plan.tiers) + len(plan.attempts) + 1):
                listed = planned_cells(plan, part)
                left = pool.run(out, plan, [*extra, *listed], left, report)
                if not all(_run_file(out, cell).is_file() for cell in (*extra, *listed)):
                    break
                again = second_try(_verdicts(out, listed, "study"), _verdicts(out, extra, "confirm"))
                extra += confirmation_cells(plan.again, again)
                left = pool.run(out, plan, [*extra, *listed], left, report)
    return finish(out, plan, config, [*cells, *extra])


def configuration(plan: StudySize, device: str) -> dict[str, Any]:
    """All that decides what a study's numbers are."""
    return json.loads(json.dumps({
        "version": VERSION, "gfviz": gfviz.__version__, "evidence": plan.evidence, "device": device.split(":")[0],
        "size": asdict(plan),
        "methods": {cell.method: asdict(METHODS[cell.method]) for cell in planned_cells(plan)},
        "regimes": {cell.regime: asdict(REGIMES[cell.regime]) for cell in planned_cells(plan)},
    }))  # fmt: skip


def _device(plan: StudySize, device: str | None) -> str:
    from gfviz.capture.models import pick_device

    return pick_device(device if device is not None or plan.name == "gpu" else "cpu")


class _Pool:
    """Runs tasks here, or in processes of their own; a context, so that an interrupt leaves no process behind."""

    def __init__(self, workers: int, device: str) -> None:
        if workers < 1:
            raise GfvizError(f"workers = {workers}: at least 1")
        self.workers = workers
        self.device = device
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        if self.workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=context, initializer=_threads, initargs=(threads,)
            )
        elif self.device == "cpu":
            _threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, tasks: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]]) -> Iterator[tuple[str, Any]]:
        """Results by name, in the order in which they come."""
        if self._pool is None:
            for name, (function, arguments) in tasks.items():
                yield name, function(*arguments)
            return
        waiting: dict[Future[Any], str] = {self._pool.submit(f, *args): name for name, (f, args) in tasks.items()}
        for future in as_completed(waiting):
            yield waiting[future], future.result()

    def models(self, out: Path, plan: StudySize, report: Progress) -> None:
        """Train the study's models that are not there."""
        from gfviz.study.fusion.models import model_names, write_scores

        names = [name for name in model_names(plan) if not (out / "models" / name / "scores.json").is_file()]
        if names:
            report(0, 0, f"training {', '.join(names)}")
        for name, _ in self.each({name: (_model_task, (name, plan, out, self.device)) for name in names}):
            report(0, 0, f"{name} is trained")
        write_scores(out)

    def run(self, out: Path, plan: StudySize, cells: Sequence[Cell], limit: int | None, report: Progress) -> int | None:
        """Make the runs that are not kept yet; returns how many of `limit` are left (None: no limit)."""
        missing = [cell for cell in cells if not _run_file(out, cell).is_file()]
        done, total = len(cells) - len(missing), len(cells)
        report(done, total, "")
        chosen = missing if limit is None else missing[:limit]
        # The data of a group first: two processes must not make the same one.
        groups: dict[tuple[str, str, int], list[str]] = {}
        for cell in chosen:
            groups.setdefault((cell.stage, cell.regime, cell.seed), []).append(cell.method)
        if self.workers > 1:
            tasks = {f"{g}": (_group_task, (out, plan, *g, self.device, names)) for g, names in groups.items()}
            for _ in self.each(tasks):
                pass
        for key, _ in self.each({cell.key: (_run_task, (out, plan, cell, self.device)) for cell in chosen}):
            done += 1
            report(done, total, key)
        return None if limit is None else limit - len(chosen)


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
    _quiet()


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _model_task(name: str, plan: StudySize, out: Path, device: str) -> None:
    from gfviz.study.fusion.models import ensure_model

    _quiet()
    ensure_model(name, plan, out, device, lambda text: None)


def _group_task(
    out: Path, plan: StudySize, stage: str, regime: str, seed: int, device: str, methods: Sequence[str]
) -> None:
    from gfviz.study.fusion.data import ensure_group

    _quiet()
    found = REGIMES[regime]
    ensure_group(out, plan.within(found), found, stage, seed, device, [METHODS[name] for name in methods])


def _run_task(out: Path, plan: StudySize, cell: Cell, device: str) -> None:
    """Make one run and keep its row."""
    from gfviz.study.fusion.data import ensure_group
    from gfviz.study.fusion.loop import run_method
    from gfviz.study.fusion.models import pivot_folder, test_examples

    _quiet()
    regime, method = REGIMES[cell.regime], METHODS[cell.method]
    inside = plan.within(regime)
    data = ensure_group(out, inside, regime, cell.stage, cell.seed, device, [method])
    tests = test_examples(plan, regime.hedged)
    pivot = pivot_folder(out, regime, cell.stage)
    found = run_method(inside, regime, method, cell.seed, pivot, data, tests, device)
    families = {name: score.exact_match for name, score in found.report.families.items()}
    row = {
        **asdict(cell), "labels": regime.labels, "exact_match": found.report.exact_match, "nll": found.report.nll,
        "ece": found.report.ece, "families": json.dumps(families), "loss": found.loss, "seconds": found.seconds,
        "cpu_seconds": found.cpu_seconds,
    }  # fmt: skip
    atomic_write_text(_run_file(out, cell), json.dumps(row) + "\n")


def _run_file(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.key}.json"


def _collect(out: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """The rows of the runs that are kept."""
    import pandas as pd

    rows = []
    for path in (_run_file(out, cell) for cell in cells):
        if path.is_file():
            try:
                rows.append({name: json.loads(path.read_text("utf-8"))[name] for name in COLUMNS})
            except (ValueError, KeyError, TypeError) as error:
                raise GfvizError(f"{path}: not a run of this study: delete it, and it is made again") from error
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _verdicts(out: Path, cells: Sequence[Cell], stage: str) -> pd.DataFrame:
    return verdicts(_collect(out, cells), stage, cells).assign(stage=stage)


def finish(out: Path, plan: StudySize, config: dict[str, Any], cells: Sequence[Cell]) -> FusionStudy:
    """Tables and verdicts of whatever is kept, written beside the runs."""
    import pandas as pd

    from gfviz.study.fusion.models import model_scores

    table = _collect(out, cells)
    listed = {stage: [cell for cell in cells if cell.stage == stage] for stage in ("study", "confirm")}
    parts = [_verdicts(out, part, stage) for stage, part in listed.items()]
    found = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else pd.DataFrame()
    _write_table(out / "table", table)
    _write_table(out / "verdicts", found)
    study = FusionStudy(table, found, config, model_scores(out), len(table), len(cells), out)
    atomic_write_text(out / "summary.json", json.dumps(study.summary(), indent=2) + "\n")
    return study


def _write_table(stem: Path, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    with atomic_path(stem.with_suffix(".csv")) as scratch:
        frame.to_csv(scratch, index=False)
    with atomic_path(stem.with_suffix(".parquet")) as scratch:
        frame.to_parquet(scratch, index=False)


@contextmanager
def _counted(progress: bool | Progress, total: int) -> Iterator[Progress]:
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, count, text: None
        return
    from gfviz.console import messages, progress_bar

    if not messages().is_terminal:
        yield _lines()
        return
    with progress_bar() as bar:
        task = bar.add_task("fusion study", total=total)

        def move(done: int, count: int, text: str) -> None:
            bar.update(task, completed=done, total=count or None, description=f"fusion study  {text}"[:60])

        yield move


def _lines() -> Progress:
    """Progress for a log: a line whenever a twentieth more is done, with the time left at the pace so far."""
    from gfviz.console import messages

    began, first, told = time.monotonic(), -1, -1.0

    def tell(done: int, count: int, text: str) -> None:
        nonlocal first, told, began
        if not count:
            messages().print(f"fusion study: {text}", soft_wrap=True)
            return
        if first < 0:
            began, first = time.monotonic(), done
        if done < count and done - told < count / 20:
            return
        told = done
        pace = (time.monotonic() - began) / (done - first) if done > first else None
        left = "" if pace is None else f", {pace * (count - done) / 60:.0f} minutes left"
        messages().print(f"fusion study: {done} of {count} runs{left}", soft_wrap=True)

    return tell
