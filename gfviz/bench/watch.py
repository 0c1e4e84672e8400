"""Whether the app stays small: memory of browser and server while a live run is watched for minutes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from gfviz.bench.app import WRITER, Row, chromium_on, make_app_row, serving
from gfviz.errors import GfvizError

EVERY_SECONDS = 10.0


class Sample(NamedTuple):
    """One look: MB of the server's and the browser's processes, of the page's live objects, and its DOM nodes."""

    seconds: float
    server: float
    browser: float
    heap: float
    nodes: float
    points: int


def watch_app(minutes: float) -> list[Row]:
    """Watch a live run of 45 steps a second for `minutes` and tell how memory moved.

    What a page replaced is freed some time later, so sizes go up and down; what leaks stays. The growth of each is that
    of its tenth percentile (`growth`). Raises `GfvizError` for less than a minute, or without Chromium or Playwright.
    """
    if not 1 <= minutes <= 24 * 60:
        raise GfvizError(f"--watch {minutes:g}: give minutes between 1 and 1440")
    with tempfile.TemporaryDirectory() as folder:
        samples = _watch(Path(folder), 60.0 * minutes)
    rows = []
    for name, unit in (("server", "MB"), ("browser", "MB"), ("heap", "MB"), ("nodes", "nodes")):
        series = [getattr(sample, name) for sample in samples]
        title = {"heap": "page's live objects", "nodes": "page's DOM"}.get(name, f"{name}'s processes")
        rows.append(
            make_app_row(
                f"watched {minutes:g} min: {title}, at the end",
                statistics.median(series[-len(series) // 4 :]),
                unit,
                None,
            )
        )
        rows.append(make_app_row(f"watched {minutes:g} min: {title}, growth", growth(series), "of it", 0.05))
    rows.append(
        make_app_row(f"watched {minutes:g} min: steps drawn at the end", float(samples[-1].points), "steps", None)
    )
    return rows


def growth(series: list[float]) -> float:
    """Growth of what stays: the tenth percentile of the last quarter of the time over that of the second, less one.

    The first quarter is warm-up.

    >>> saw = [100.0, 140.0, 180.0, 110.0] * 20
    >>> growth(saw), round(growth([size + i for i, size in enumerate(saw)]), 2)
    (0.0, 0.31)
    """
    early, late = (
        sorted(series[int(start * len(series)) : int((start + 0.25) * len(series))]) for start in (0.25, 0.75)
    )
    return late[len(late) // 10] / early[len(early) // 10] - 1


def _watch(root: Path, seconds: float) -> list[Sample]:
    import psutil

    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    samples: list[Sample] = []
    try:
        run_id = writer.stdout.readline().strip()
        with serving(root) as (address, server), chromium_on(root) as browser:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{address}/runs?run={run_id}")
            page.get_by_test_id("stProgress").first.wait_for(timeout=120_000)
            probe = page.context.new_cdp_session(page)
            probe.send("Performance.enable")
            # Playwright's driver is a child of ours, Chromium a child of the driver.
            chromium = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
            began = time.monotonic()
            while time.monotonic() - began < seconds or len(samples) < 4:
                page.wait_for_timeout(1000 * min(EVERY_SECONDS, seconds / 8))
                probe.send("HeapProfiler.collectGarbage")
                told = {item["name"]: item["value"] for item in probe.send("Performance.getMetrics")["metrics"]}
                text = page.get_by_test_id("stProgress").first.inner_text()
                samples.append(
                    Sample(
                        time.monotonic() - began,
                        _megabytes([psutil.Process(server.pid)]),
                        _megabytes(chromium),
                        told["JSHeapUsedSize"] / 1e6,
                        told["Nodes"],
                        int(text.split(" of ")[0].removeprefix("Step").replace(",", "")),
                    )
                )
                print(*(f"{value:,.1f}" for value in samples[-1]), file=sys.stderr, flush=True)
    finally:
        writer.kill()
        writer.wait(10)
    return samples


def _megabytes(processes: list) -> float:
    """Memory of their own (USS) of the processes that live: shared pages would change with any other Chromium."""
    import psutil

    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total / 1e6
