"""The study in short: a table small enough to ship, and the one that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError
from gfviz.files import atomic_path, atomic_write_bytes

if TYPE_CHECKING:
    import pandas as pd

    from gfviz.study.validate.runner import ValidationResult

RESULTS = Path(__file__).parent.parent / "results"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per family, size, p and method: medians over the pairs, in five significant digits.

    Columns: family, size, p, method, group, side, pairs, proven (share of pairs with a proven distance), lower_ratio,
    upper_ratio, error, gap (medians), error_max, seconds and cpu_seconds (medians), peak_bytes (largest).
    """
    keys = ["family", "size", "p", "method", "group", "side"]
    grouped = table[table["status"] == "ok"].groupby(keys, sort=False)
    found = grouped.agg(
        pairs=("pair", "count"),
        proven=("truth_kind", lambda kinds: float((kinds == "proven").mean())),
        lower_ratio=("lower_ratio", "median"),
        upper_ratio=("upper_ratio", "median"),
        error=("error", "median"),
        gap=("gap", "median"),
        error_max=("error", "max"),
        seconds=("seconds", "median"),
        cpu_seconds=("cpu_seconds", "median"),
        peak_bytes=("peak_bytes", "max"),
    ).reset_index()
    numbers = found.select_dtypes("float").columns
    found[numbers] = found[numbers].map(lambda value: float(f"{value:.5g}"))
    return found


def keep_results(result: ValidationResult, folder: Path = RESULTS) -> None:
    """Write the summary, the choice of k and the targets of a study to `folder`, to be shipped."""
    size = result.config["size"]
    for name, frame in (("validate", summary(result.table)), ("width", result.width)):
        with atomic_path(folder / f"{name}-{size}.csv") as scratch:
            frame.to_csv(scratch, index=False)
    atomic_write_bytes(folder / f"validate-{size}.json", (result.out / "targets.json").read_bytes())


def shipped_results(size: str = "cpu") -> tuple[pd.DataFrame, dict[str, Any]]:
    """The summary table and the targets (with the study's configuration and machine) that ship with gfviz.

    Raises `GfvizError` where none of that size ships.
    """
    import pandas as pd

    table, targets = RESULTS / f"validate-{size}.csv", RESULTS / f"validate-{size}.json"
    if not (table.is_file() and targets.is_file()):
        raise GfvizError(
            f"no study of the size {size!r} ships with gfviz: run `gfviz validate --size {size} --out DIR`"
        )
    return pd.read_csv(table, keep_default_na=True), json.loads(targets.read_text("utf-8"))
