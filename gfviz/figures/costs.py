"""Cost curves of `gfviz bench curves`: time against what grows, drawn from the rows of a results file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.figures.palette import CATEGORIES, LIGHT, OTHER
from gfviz.files import atomic_path

AXES = {
    "n": "nodes n of each graph",
    "T": "positions T (V = 32 000)",
    "V": "vocabulary V (T = 256)",
    "k": "kept logits k (T = 256, V = 32 000)",
    "teachers": "teachers (T = 256, V = 32 000)",
}
_NAME = re.compile(r"curves · (?P<series>.+) · (?P<axis>n|T|V|k|teachers) = (?P<x>[0-9]+)")
_MARKERS = "osD^vPX*"
# One colour a series: what is drawn in one panel is met again in another's legend.
_COLORS = (*CATEGORIES, LIGHT.text, OTHER)
_ROUND = tuple(digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5))


def cost_name(axis: str, x: int, series: str) -> str:
    """The name of a row that is a point of a cost curve.

    >>> cost_name("T", 512, "ULD")
    'curves · ULD · T = 512'
    """
    return f"curves · {series} · {axis} = {x}"


def cost_curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[int, float, float | None]]]]:
    """The points (x, milliseconds, floor) of each series of each axis, ascending; other rows are passed over.

    >>> cost_curves([{"name": cost_name("k", 8, "ULD"), "value": 2.0, "floor": 0.5}])
    {'k': {'ULD': [(8, 2.0, 0.5)]}}
    """
    found: dict[str, dict[str, list[tuple[int, float, float | None]]]] = {}
    for row in rows:
        match = _NAME.fullmatch(str(row.get("name")))
        if match is not None and isinstance(row.get("value"), float | int):
            series = found.setdefault(match["axis"], {}).setdefault(match["series"], [])
            series.append((int(match["x"]), float(row["value"]), row.get("floor")))
    return {axis: {name: sorted(points) for name, points in each.items()} for axis, each in found.items()}


def draw_costs(results: str | Path, path: str | Path) -> None:
    """Draw the cost curves of a results file of `gfviz bench`: a panel for each of n, T, V, k and teachers, log–log.

    PNG, SVG or PDF by the ending of `path`. Dotted lines are the floors: bytes moved over the measured copy bandwidth.
    Raises `GfvizError` where the file is no results file or holds no curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    try:
        content = json.loads(Path(results).read_text(encoding="utf-8"))
        curves, machine = cost_curves(content["rows"]), content["machine"]
        about = f"{machine['processor']}, threads: {machine['threads']}, torch {machine['torch']}, {machine['device']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GfvizError(f"{results}: not a results file of `gfviz bench` ({error})") from error
    if not curves:
        raise GfvizError(f"{results}: no cost curves in it: run `gfviz bench curves --out DIR` first")
    style = _style(curves)
    figure = Figure(figsize=(11, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).flatten()
    for axes, (axis, label) in zip(panels, AXES.items()):
        _panel(axes, curves.get(axis, {}), style)
        axes.set_xlabel(label)
        axes.set_ylabel("milliseconds")
    panels[5].set_axis_off()
    handles = {line.get_label(): line for axes in panels[:5] for line in axes.get_lines()}
    order = [name for name in (*style, "floor: bytes over bandwidth") if name in handles]
    panels[5].legend([handles[name] for name in order], order, loc="upper left", fontsize=9, frameon=False)
    panels[5].text(0.02, 0.02, about, fontsize=7, color=LIGHT.quiet, parse_math=False)
    ending = Path(path).suffix.lstrip(".").lower()
    if ending not in ("png", "svg", "pdf"):
        raise GfvizError(f"{path}: curves are drawn as .png, .svg or .pdf")
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format=ending, facecolor="white", metadata={"Date": None} if ending == "svg" else None)


def _style(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each series, the same in every panel."""
    names = list(dict.fromkeys(name for axis in AXES for name in curves.get(axis, {})))
    return {
        name: (_COLORS[i % len(_COLORS)], _MARKERS[(i + i // len(_COLORS)) % len(_MARKERS)])
        for i, name in enumerate(names)
    }


def _panel(axes: Any, series: Mapping[str, list[tuple[int, float, float | None]]], style: Mapping[str, Any]) -> None:
    for name, points in series.items():
        color, marker = style[name]
        x, y, floor = zip(*points)
        axes.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1.6, label=name)
        if None not in floor and min(floor) > 0:
            axes.plot(x, floor, color=color, linestyle=":", linewidth=1, label="floor: bytes over bandwidth")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({point[0] for points in series.values() for point in points})
    if ticks:
        axes.set_xticks(ticks, [f"{x / 1000:g}k" if x >= 4000 else str(x) for x in ticks], fontsize=8)
    axes.minorticks_off()
    low, high = axes.get_ylim()
    if high < 200 * low:  # two powers of ten label too little
        axes.set_yticks([y for y in _ROUND if low <= y <= high], [f"{y:g}" for y in _ROUND if low <= y <= high])
    axes.grid(color=LIGHT.grid, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
