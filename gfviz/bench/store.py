"""The run directory's metrics: a million scalars in, the newest and a plot's worth out."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from gfviz.bench.measure import Row, copy_bandwidth, make_row, times
from gfviz.runs import RunDirectory

_NAMES = tuple(f"loss/part{i}" for i in range(10))


def run(device: torch.device, size: str) -> list[Row]:
    """Write scalars (ten a step), then read the newest of each and 500 buckets of one; the floor is the disk's own."""
    steps = 100_000 if size == "full" else 50
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder), {"training": {"steps": steps}}, name="bench")
        writer = directory.writer()
        begun = time.perf_counter()
        for step in range(steps):
            writer.log(step, dict.fromkeys(_NAMES, 1.0 / (1 + step)))
        writer.flush()
        written = time.perf_counter() - begun
        held = sum(path.stat().st_size for path in directory.path.glob("metrics.db*"))
        floor = _disk_seconds(Path(folder) / "plain", held)
        reader = directory.reader()
        reads = times(
            {"latest": reader.latest, "buckets": lambda: reader.buckets(_NAMES[0], 500)},
            cpu,
            9 if size == "full" else 1,
        )
        writer.finish("finished")
    # A step and a value, eight bytes each, of every row that must be seen.
    bandwidth = copy_bandwidth(cpu, 1 << 26 if size == "full" else 1 << 12)
    count = f"{steps * len(_NAMES):,} scalars".replace(",", " ")
    newest, buckets = (1000 * statistics.median(reads[key]) for key in ("latest", "buckets"))
    return [
        make_row(
            f"store · write {count} (ratio: to writing as many bytes)", written, "s", floor=floor, ratio=written / floor
        ),
        make_row(f"store · newest of {len(_NAMES)} series", newest, "ms", floor=1000 * 16 * len(_NAMES) / bandwidth),
        make_row(
            f"store · 500 buckets of a series of {steps:,} steps".replace(",", " "),
            buckets,
            "ms",
            floor=1000 * 16 * steps / bandwidth,
        ),
    ]


def _disk_seconds(path: Path, size: int) -> float:
    begun = time.perf_counter()
    with open(path, "wb") as plain:
        plain.write(bytes(size))
        plain.flush()
        os.fsync(plain.fileno())
    return time.perf_counter() - begun
