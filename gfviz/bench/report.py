"""Rows as a table, as JSON, as a file."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gfviz.bench.measure import Row, machine
from gfviz.figures.costs import cost_curves, draw_costs
from gfviz.files import atomic_write_text

if TYPE_CHECKING:
    from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """JSON-ready rows {name, value, unit, floor, peer, ratio, target, met}.

    >>> from gfviz.bench.measure import make_row
    >>> rows_to_json([make_row("a", 1.0, "s")])[0]["unit"]
    's'
    """
    return [{key: _rounded(value) for key, value in asdict(row).items()} for row in rows]


def render(rows: Sequence[Row]) -> Table:
    """The rows as a Rich table; a dash is what does not apply or could not be measured here."""
    from rich.table import Table
    from rich.text import Text

    table = Table("measured", "value", "unit", "floor", "peer", "ratio", "target", "met")
    for column in (1, 3, 4, 5):
        table.columns[column].justify = "right"
    for row in rows:
        met = {None: Text("–"), True: Text("yes", "green"), False: Text("no", "red")}[row.met]
        numbers = [_shown(number) for number in (row.value, row.floor, row.peer, row.ratio)]
        table.add_row(Text(row.name), numbers[0], Text(row.unit), *numbers[1:], row.target or "–", met)
    return table


def save_results(rows: Sequence[Row], device: str | None = None, folder: str | Path = RESULTS) -> Path:
    """Write rows and machine to <folder>/<machine>-<date>.json; rows of the same name in today's file are replaced.

    Cost curves among the rows are drawn beside it, as curves.png.
    """
    about = machine(torch.device(device or "cpu"))
    label = re.sub(r"[^a-z0-9]+", "-", f"{about.get('gpu') or about['processor']} {about['cores']} cores".lower())
    path = Path(folder) / f"{label.strip('-')}-{datetime.date.today().isoformat()}.json"
    kept: list[dict[str, Any]] = []
    if path.is_file():
        names = {row.name for row in rows}
        kept = [row for row in json.loads(path.read_text())["rows"] if row["name"] not in names]
    content = {"machine": about, "rows": [*kept, *rows_to_json(rows)]}
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if cost_curves(rows_to_json(rows)):
        draw_costs(path, path.with_name("curves.png"))
    return path


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
