"""What `gfviz study fusion` prints: the list of cells, the summary as JSON, or the verdicts as a table."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from gfviz.console import messages, output, plain, table
from gfviz.study.fusion.pages import write_report
from gfviz.study.fusion.plan import plan_rows, study_size
from gfviz.study.fusion.runner import run_fusion_study

_GPU_WORKERS = 4


def print_plan(size: str) -> None:
    """The list of cells as tab-separated lines with a head."""
    rows = plan_rows(study_size(size))
    print("\t".join(rows[0]))
    for row in rows:
        print("\t".join(str(value) for value in row.values()))
    found = study_size(size)
    if found.finalists:
        messages().print(
            f"After the first tier: of each kind of labels the best {found.finalists} structure loss(es) beside all "
            f"rivals, with another pivot, on the seeds {', '.join(map(str, found.fresh))}.",
            soft_wrap=True,
        )
    if found.again:
        messages().print(
            "After all tiers, and again after each tier of attempts, of each kind of labels without a confirmed one: "
            "the structure loss with the smallest p among those that beat all, in the same way, on the seeds "
            f"{', '.join(map(str, found.again))}.",
            soft_wrap=True,
        )


def study_command(size: str, out: Path, workers: int | None, device: str | None, as_json: bool) -> None:
    """Run or go on with a study, write its report, and print what came out."""
    if workers is None:
        cores = os.cpu_count() or 1
        # Short runs leave most of a large GPU idle: some of them fit side by side.
        workers = min(_GPU_WORKERS, cores) if size == "gpu" else cores
    result = run_fusion_study(out, size, workers=workers, device=device)
    report = write_report(result)
    note = messages()
    if not result.evidence:
        note.print("smoke size: this shows that everything runs and is no evidence about any method")
    note.print(f"{result.done} of {result.planned} runs; {report}", soft_wrap=True)
    if as_json:
        print(json.dumps(result.summary(), indent=2))
        return
    columns = ("regime", "method", "exact match", "− SFT", "− worse control", "− without", "beats")
    shown = table("Exact match and paired differences, points", *columns, numbers=columns[2:6])
    for row in result.verdicts[result.verdicts["stage"] == "study"].to_dict("records"):
        worse = min(row["one-hot"], row["shuffled"])
        beaten = [name for name in ("sft", "controls", "without") if row[f"beats_{name}"]]
        numbers = (row["mean"], row["sft"], worse, row["without"])
        shown.add_row(plain(row["regime"]), plain(row["method"]), *map(_points, numbers), ", ".join(beaten))
    output().print(shown)


def _points(share: Any) -> str:
    return "" if share is None or math.isnan(share) else f"{100 * share:.1f}"
