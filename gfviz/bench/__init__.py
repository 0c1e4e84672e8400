"""Floor 6: benchmarks against peers and floors; every target a row that says whether it is met."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from gfviz.errors import GfvizError

if TYPE_CHECKING:
    from gfviz.bench.measure import Row

Size = Literal["full", "tiny"]
SUITES = ("start", "gw", "losses", "capture", "train", "store", "curves", "app")


def run_bench(
    names: Iterable[str], device: str | None = None, size: Size = "full", watch: float | None = None
) -> list[Row]:
    """Run the named benchmarks ("all": every one of `SUITES`) and return their rows.

    `device` is "cpu" (default) or a CUDA device for `losses`, `capture` and `train`; the others are the CPU's.
    `size="tiny"` runs the same code on inputs of a few kilobytes: its times mean nothing, and no target is tested.
    `watch` (minutes) lets `app` watch a live run for so long, and measures what that does to its memory instead.
    Peers are measured where they are installed (`gfviz[peers]`). Raises `GfvizError` for an unknown name or a device
    that is not there. Cost at full size: `losses` and `curves` some
    minutes (5 GB where TRL is installed), the rest a minute each.
    """
    import torch

    from gfviz.bench.measure import make_row

    asked = list(names)
    unknown = [name for name in asked if name not in (*SUITES, "all")]
    if unknown or size not in ("full", "tiny"):
        raise GfvizError(f"benchmark {(unknown or [size])[0]!r} is unknown: choose from {', '.join((*SUITES, 'all'))}")
    if watch is not None and asked != ["app"]:
        raise GfvizError("--watch is the app's: give it with `app` alone")
    place = torch.device(device or "cpu")
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and not torch.cuda.is_available()):
        raise GfvizError(f"device {device!r} is not there: use cpu, or cuda on a machine with an NVIDIA GPU")
    rows: list[Row] = []
    for name in SUITES if "all" in asked else asked:
        if name == "app":
            from gfviz.bench.app import bench_app
            from gfviz.bench.watch import watch_app

            for row in bench_app() if watch is None else watch_app(watch):
                target = None if row["target"] is None else f"<= {row['target']:g}"
                rows.append(make_row(f"app · {row['name']}", row["value"], row["unit"], target=target))
            continue
        found = import_module(f"gfviz.bench.{name}").run(place, size)
        rows += found if size == "full" else [make_row(row.name, row.value, row.unit) for row in found]
    return rows


def __getattr__(name: str):
    homes = {"Row": "measure", "render": "report", "rows_to_json": "report", "save_results": "report"}
    if name not in homes:
        raise AttributeError(f"module 'gfviz.bench' has no attribute {name!r}")
    return getattr(import_module(f"gfviz.bench.{homes[name]}"), name)
