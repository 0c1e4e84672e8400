"""Whether the app stays small: memory of browser and server while a live run is watched for minutes.

A browser keeps what it no longer needs until it has a reason to give it back: V8 and Blink collect garbage when they
please, and keep emptied pages for what comes next; Chromium starts and ends services of its own. Its memory at a moment
is therefore what the page needs plus an amount that wanders by more than half as much again (330 MB before and 140 MB
after a collection, of the process of one page that needs no more at the end than at the beginning). So every look first
asks the browser for all of it (critical memory pressure, then collections, by the DevTools protocol) and reads what
each process made itself. What a page can still reach no collection takes: a leak stays in every later look, whatever
wanders only adds to some of them. The least of many looks is what stays, and its growth is the leak.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from gfviz.bench.app import WRITER, Row, chromium_on, make_app_row, serving
from gfviz.errors import GfvizError

EVERY_SECONDS = 15.0
# The first quarter is warm-up.
_QUARTERS = (0.25, 0.75)
_SETTLE_SECONDS = 0.2


class Look(NamedTuple):
    """What stays, in MB: of all the browser's processes, of the pages' alone, of live JavaScript; and DOM nodes.

    `before` is that of all processes before the browser was asked to give anything back.
    """

    browser: float
    pages: float
    heap: float
    nodes: float
    before: float


class Sample(NamedTuple):
    """One look, the MB of the server's process and the steps that the page showed."""

    seconds: float
    server: float
    look: Look
    points: int


class Watcher:
    """Looks at one page of a Chromium that a Playwright of this process started."""

    def __init__(self, browser: Any, page: Any) -> None:
        self._page = page
        self._browser = browser.new_browser_cdp_session()
        self._probe = page.context.new_cdp_session(page)
        self._probe.send("Performance.enable")

    def look(self) -> Look:
        """Have the browser give back what it may, then read what stays. About a second of the browser's time."""
        before = self._processes()[0]
        # A page that goes on drawing makes tens of MB of new garbage until all processes are read on a busy machine.
        self._probe.send("Page.setWebLifecycleState", {"state": "frozen"})
        try:
            return self._settled(before)
        finally:
            self._probe.send("Page.setWebLifecycleState", {"state": "active"})

    def _settled(self, before: float) -> Look:
        self._browser.send("Memory.simulatePressureNotification", {"level": "critical"})
        # The first collection lets go of what finalisers and weak references held, the second of what that freed.
        for _ in range(2):
            self._probe.send("HeapProfiler.collectGarbage")
            self._page.wait_for_timeout(1000 * _SETTLE_SECONDS)
        self._probe.send("HeapProfiler.collectGarbage")
        told = {item["name"]: item["value"] for item in self._probe.send("Performance.getMetrics")["metrics"]}
        browser, pages = self._processes()
        return Look(browser, pages, told["JSHeapUsedSize"] / 1e6, told["Nodes"], before)

    def _processes(self) -> tuple[float, float]:
        import psutil

        # Playwright's driver is a child of ours, Chromium a child of the driver; it starts and ends processes.
        found = [one for one in psutil.Process().children(recursive=True) if "chrom" in _name(one)]
        pages = [one for one in found if "--type=renderer" in _arguments(one)]
        return _megabytes(found), _megabytes(pages)


def watch_app(minutes: float) -> list[Row]:
    """Watch a live run of 45 steps a second for `minutes` and tell what stays in memory, and how it grew.

    Raises `GfvizError` for less than a minute, or without Chromium or Playwright.
    """
    if not 1 <= minutes <= 24 * 60:
        raise GfvizError(f"--watch {minutes:g}: give minutes between 1 and 1440")
    with tempfile.TemporaryDirectory() as folder:
        samples = _watch(Path(folder), 60.0 * minutes)
    looks = [sample.look for sample in samples]
    series: dict[str, tuple[list[float], str]] = {
        "server's process": ([sample.server for sample in samples], "MB"),
        "browser's processes": ([look.browser for look in looks], "MB"),
        "page's process": ([look.pages for look in looks], "MB"),
        "page's live objects": ([look.heap for look in looks], "MB"),
        "page's DOM": ([look.nodes for look in looks], "nodes"),
    }
    told = f"watched {minutes:g} min"
    rows = []
    for title, (values, unit) in series.items():
        rows.append(make_app_row(f"{told}: {title}, what stays at the end", least(values, _QUARTERS[1]), unit, None))
        rows.append(make_app_row(f"{told}: {title}, growth of what stays", growth(values), "of it", 0.05))
    before = [look.before for look in looks]
    rows.append(
        make_app_row(
            f"{told}: browser's processes before they give back, median", statistics.median(before), "MB", None
        )
    )
    rows.append(make_app_row(f"{told}: browser's processes before they give back, most", max(before), "MB", None))
    rows.append(make_app_row(f"{told}: steps drawn at the end", float(samples[-1].points), "steps", None))
    return rows


def least(series: list[float], start: float) -> float:
    """The least value of the quarter of a series that begins at the share `start` of it."""
    return min(series[int(start * len(series)) : max(int((start + 0.25) * len(series)), int(start * len(series)) + 1)])


def growth(series: list[float]) -> float:
    """Growth of what stays: the least of the last quarter over the least of the second, less one.

    What wanders adds to some looks and so leaves the least of many alone; what leaks adds to every later one.

    >>> saw = [100.0, 140.0, 180.0, 110.0] * 20
    >>> growth(saw), round(growth([size + i for i, size in enumerate(saw)]), 2)
    (0.0, 0.33)
    """
    early, late = (least(series, start) for start in _QUARTERS)
    return late / early - 1


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
            watcher = Watcher(browser, page)
            began = time.monotonic()
            while time.monotonic() - began < seconds or len(samples) < 4:
                page.wait_for_timeout(1000 * min(EVERY_SECONDS, seconds / 8))
                found = watcher.look()
                text = page.get_by_test_id("stProgress").first.inner_text()
                samples.append(
                    Sample(
                        time.monotonic() - began,
                        _megabytes([psutil.Process(server.pid)]),
                        found,
                        int(text.split(" of ")[0].removeprefix("Step").replace(",", "")),
                    )
                )
                last = samples[-1]
                told = (last.seconds, last.server, *last.look, last.points)
                print(*(f"{value:,.1f}" for value in told), file=sys.stderr, flush=True)
    finally:
        writer.kill()
        writer.wait(10)
    return samples


def _name(process: Any) -> str:
    import psutil

    try:
        return process.name()
    except psutil.Error:
        return ""


def _arguments(process: Any) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _megabytes(processes: list) -> float:
    """What the living of these processes made themselves, what they share among them counted once.

    Not the pages of files that they read: those of the program itself are a process's own (USS) while no other Chromium
    runs on the machine, and shared while one does, which moved a browser's sum by 60 MB and a page's by 10.
    """
    import psutil

    total = 0.0
    for process in processes:
        try:
            rolled = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            with contextlib.suppress(psutil.Error):  # another system than Linux, or a process that has gone
                total += process.memory_full_info().uss / 1e6
            continue
        parts = dict(line.split()[:2] for line in rolled.splitlines()[1:])
        total += (int(parts["Pss_Anon:"]) + int(parts["Pss_Shmem:"])) * 1024 / 1e6
    return total
