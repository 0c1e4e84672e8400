"""Running the study: cell by cell, each kept as soon as it is done, so that an interrupted study goes on."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gfviz
from gfviz.errors import GfvizError
from gfviz.files import atomic_path, atomic_write_text, read_small_text
from gfviz.gromov import BUDGETS, predict_cost
from gfviz.study.folder import claim_folder
from gfviz.study.validate.families import SYNTHETIC, Family
from gfviz.study.validate.methods import measure_pair
from gfviz.study.validate.models import (
    Trace,
    find_checkpoints,
    find_models,
    fingerprint,
    model_families,
    study_texts,
    trace_model,
)
from gfviz.study.validate.plan import Cell, StudySize, cells, check_families, effort, study_size
from gfviz.study.validate.targets import targets_table
from gfviz.study.validate.width import measure_width, synthetic_traces, width_pairs

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
Progress = Callable[[int, int], None]

COLUMNS = {
    "family": "family of graph pairs",
    "kind": "synthetic or model",
    "size": "nominal number of nodes",
    "pair": "number of the pair within family, size and p",
    "about": "what the two sides are",
    "level": "noise of a perturbed pair",
    "n": "nodes of the first graph",
    "m": "nodes of the second graph",
    "psd": "whether the family is positive semidefinite by construction",
    "assignable": "whether an optimal coupling is a permutation (p = 2, PSD, n = m, uniform weights)",
    "norm": "‖C‖ + ‖D‖, weighted Frobenius norms: no distance (p = 2) is larger",
    "p": "exponent of GW_p",
    "method": "a budget, a rung run alone, `rung (matching)` for the coupling of a lower bound, the paper's form, POT",
    "group": "budget, rung, estimate, peer, or scale (fast on a scaled pair, scaled back)",
    "side": "the end that the method bounds: lower, upper, interval, or estimate",
    "status": "ok, skipped (too long) or not valid for this pair",
    "lower": "lower bound on GW_p (root taken)",
    "upper": "upper bound on GW_p",
    "value": "the number a user would take from the method: a budget's upper end, else its only number",
    "proof": "how the interval was closed, empty where it was not",
    "truth": "GW_p where proven by any method on this pair, else the smallest upper bound of all methods",
    "truth_kind": "proven or best known",
    "best_lower": "largest lower bound of all methods",
    "lower_ratio": "lower / truth: tightness of a lower bound, at most 1 where the truth is proven",
    "upper_ratio": "upper / truth: at least 1",
    "error": "|value / truth − 1|",
    "gap": "(upper − lower) / upper of a budget",
    "seconds": "wall time, the best of three where below 0.3 s; of a rung its own part, once",
    "cpu_seconds": "processor time of the same call (budgets, the paper's form, POT): what it takes on an idle core",
    "peak_bytes": "largest memory of Python and numpy during the call (first pair of each size)",
    "note": "why it was left out, or where the value came from",
}
"""Columns of the table, one row per pair and method."""


@dataclass(frozen=True)
class ValidationResult:
    """A finished study: `table` (one row per pair and method, `COLUMNS`), `targets`, `width` (k and T), `config`."""

    table: pd.DataFrame
    targets: pd.DataFrame
    width: pd.DataFrame
    config: dict[str, Any]
    out: Path


def run_validation(
    out: str | Path,
    size: str = "cpu",
    seed: int = 0,
    families: Sequence[str] | None = None,
    *,
    models: str | Path | None = None,
    checkpoints: str | Path | None = None,
    progress: bool | Progress = True,
) -> ValidationResult:
    """Measure how wrong each method is: families of graph pairs × sizes × methods, against proven or best values.

    Writes to `out`: table.parquet and .csv (`COLUMNS`), width.parquet and .csv (k and T), targets.json, study.json
    (the configuration), cells/ and graphs/. A run that was stopped goes on where it was; everything but the times is
    the same for the same seed.

    Args:
        out: folder of the study; made where missing.
        size: "smoke" (seconds), "cpu" (about half an hour on one idle core) or "full" (many hours).
        seed: of every synthetic pair.
        families: names to run, all available by default.
        models: folder of model folders, the shipped ones by default; task* read the tasks, others prose.
        checkpoints: folder of one model's checkpoints, named by step; adds the family "checkpoints".
        progress: a bar with the time left, none, or a function called with (cells done, cells in all).

    Raises `GfvizError` where `out` holds a study of another configuration, or for an unknown size or family.
    """
    out, plan = Path(out), study_size(size)
    folders = find_models(None if models is None else Path(models))
    steps = [] if checkpoints is None else find_checkpoints(Path(checkpoints))
    if families is not None and not set(families) - set(SYNTHETIC):
        folders, steps = [], []
    check_families(families, len(folders), len(steps))
    config = _configuration(plan, seed, families, folders, steps)
    claim_folder(out, config)
    traces = [trace_model(folder, out, plan.texts, folder.name) for folder in folders]
    stages = [trace_model(folder, out, plan.texts, f"{folder.parent.name}-{folder.name}") for folder in steps]
    available = {**SYNTHETIC, **model_families(traces, stages)}
    chosen = available if families is None else {name: available[name] for name in families}
    sources = {name: stages if name == "checkpoints" else traces for name in chosen}
    planned = cells(plan, chosen, sources)
    width_traces = traces if len(traces) > 1 else synthetic_traces(max(plan.positions), seed)
    widths = [(a, b, t) for a, b in width_pairs(width_traces) for t in plan.positions]
    rows, curves = _run(out, plan, seed, chosen, planned, widths, progress)
    return _finish(out, config, rows, curves)


def _configuration(
    plan: StudySize, seed: int, families: Sequence[str] | None, folders: Sequence[Path], steps: Sequence[Path]
) -> dict[str, Any]:
    example = np.eye(2)
    rungs = {name: [found.rung for found in predict_cost(example, example, budget=name)] for name in BUDGETS}
    texts = {kind: study_texts(kind, plan.texts) for kind in ("prose", "task")} if folders or steps else {}
    return {
        "version": VERSION,
        "gfviz": gfviz.__version__,
        "size": plan.name,
        "pairs": {str(n): count for n, count in plan.pairs.items()},
        "seed": seed,
        "families": None if families is None else list(families),
        "models": {folder.name: fingerprint(folder) for folder in folders},
        "checkpoints": {folder.name: fingerprint(folder) for folder in steps},
        "texts": {kind: len(found) for kind, found in texts.items()},
        "rungs": rungs,
    }


def _run(
    out: Path,
    plan: StudySize,
    seed: int,
    families: Mapping[str, Family],
    planned: Sequence[Cell],
    widths: Sequence[tuple[Trace, Trace, int]],
    progress: bool | Progress,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    # The first distance of a process pays for imports and caches; no row should.
    warm = SYNTHETIC["token"].pair(6, 0, seed)
    measure_pair(warm, 2, effort(plan, Cell(6, 2.0, 1, "token")))
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    total, done = len(planned) + len(widths), 0
    with _counted(progress, total) as report:
        for cell in planned:
            rows += _kept(out / "cells" / f"{cell.key}.json", partial(_measure, cell, families, plan, seed))
            done += 1
            report(done, total)
        for first, second, positions in widths:
            path = out / "cells" / f"width-{first.name}-{second.name}-{positions}.json"
            curves += _kept(path, partial(measure_width, first, second, positions, plan.ks))
            done += 1
            report(done, total)
    return rows, curves


def _measure(cell: Cell, families: Mapping[str, Family], plan: StudySize, seed: int) -> list[dict[str, Any]]:
    family = families[cell.family]
    pair = family.pair(cell.n, cell.index, seed)
    shares = pair.shares()
    head = {
        "family": family.name,
        "kind": family.kind,
        "size": cell.n,
        "pair": cell.index,
        "about": pair.about,
        "level": pair.level,
        "n": len(shares[0]),
        "m": len(shares[1]),
        "psd": family.psd,
        "assignable": family.assignable and cell.p == 2,
        "norm": sum(float(np.sqrt(w @ (c * c) @ w)) for c, w in zip(pair.matrices(), shares)),
        "p": cell.p,
    }
    return [{**head, **row} for row in measure_pair(pair, cell.p, effort(plan, cell))]


def _kept(path: Path, compute: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of a cell: read where they were kept, else computed and kept (whole or not at all)."""
    if path.is_file():
        try:
            rows = json.loads(read_small_text(path))
        except (OSError, ValueError, RecursionError) as error:
            raise GfvizError(
                f"{path}: not a cell of this study ({error}): delete it, and it is computed again"
            ) from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise GfvizError(f"{path}: not a cell of this study: delete it, and it is computed again")
        return rows
    rows = compute()
    atomic_write_text(path, json.dumps(rows) + "\n")
    # JSON has one kind of number and no None apart from null: a fresh cell must look like a kept one.
    return json.loads(json.dumps(rows))


def _finish(
    out: Path, config: dict[str, Any], rows: list[dict[str, Any]], curves: list[dict[str, Any]]
) -> ValidationResult:
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"level": "float64"})
    width = pd.DataFrame(curves)
    targets = targets_table(table)
    for name, frame in (("table", table), ("width", width)):
        with atomic_path(out / f"{name}.parquet") as scratch:
            frame.to_parquet(scratch, index=False)
        with atomic_path(out / f"{name}.csv") as scratch:
            frame.to_csv(scratch, index=False)
    content = {"study": config, "machine": machine(), "targets": json.loads(targets.to_json(orient="records"))}
    atomic_write_text(out / "targets.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return ValidationResult(table, targets, width, config, out)


def machine() -> dict[str, str]:
    """What the times were measured on."""
    import ot
    import scipy
    import torch

    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "POT": ot.__version__,
        "threads": str(torch.get_num_threads()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


@contextmanager
def _counted(progress: bool | Progress, total: int) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif progress:
        from gfviz.console import progress_bar

        with progress_bar() as bar:
            task = bar.add_task("error study", total=total)
            yield lambda done, _: bar.update(task, completed=done)
    else:
        yield lambda done, _: None
