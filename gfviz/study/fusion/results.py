"""What ships of a study: every run, the verdicts, and how it was made, small enough for the wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError
from gfviz.files import atomic_path, atomic_write_text
from gfviz.study.validate.results import RESULTS

if TYPE_CHECKING:
    import pandas as pd

    from gfviz.study.fusion.runner import FusionStudy

_DIGITS = 5


def keep_results(study: FusionStudy, folder: Path = RESULTS) -> None:
    """Write the runs, the verdicts, and configuration, models and machine of a study to `folder`, to be shipped."""
    from gfviz.study.validate.runner import machine

    size = study.config["size"]["name"]
    for name, frame in (("runs", study.table), ("verdicts", study.verdicts)):
        numbers = frame.select_dtypes("float").columns
        short = frame.copy()
        short[numbers] = short[numbers].map(lambda value: float(f"{value:.{_DIGITS}g}"))
        with atomic_path(folder / f"fusion-{size}-{name}.csv") as scratch:
            short.to_csv(scratch, index=False)
    content = {
        "done": study.done,
        "planned": study.planned,
        "evidence": study.evidence,
        "study": study.config,
        "models": study.models,
        "machine": machine(),
        "summary": study.summary(),
    }
    atomic_write_text(folder / f"fusion-{size}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def shipped_fusion_results(size: str = "cpu") -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """The runs, the verdicts and the facts (configuration, models, machine, how many runs) that ship with gfviz.

    Raises `GfvizError` where none of that size ships.
    """
    import pandas as pd

    files = [RESULTS / f"fusion-{size}-{name}.csv" for name in ("runs", "verdicts")]
    facts = RESULTS / f"fusion-{size}.json"
    if not all(path.is_file() for path in (*files, facts)):
        raise GfvizError(
            f"no fusion study of the size {size!r} ships with gfviz: run `gfviz study fusion --size {size} --out DIR`"
        )
    runs, found = (pd.read_csv(path) for path in files)
    return runs, found, json.loads(facts.read_text("utf-8"))
