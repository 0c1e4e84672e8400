"""Whether the app stays small: memory of browser and server while a live run is watched for minutes.

A browser keeps what it no longer needs until it has a reason to give it back: V8 and Blink collect garbage when they
please, and keep emptied pages for what comes next; Chromium starts and ends services of its own. Its memory at a moment
is therefore what the page needs plus an amount that wanders. So every look first asks the browser for all of it
(critical memory pressure, then collections, by the DevTools protocol) and reads what each process made itself. What a
page can still reach no collection takes: a leak stays in every later look, whatever wanders only adds to some of them.
The least of many looks is what stays, and its growth is the leak.

Nothing is attached to the browser between two looks (`devtools` says why). A page of Streamlit alone, in a browser of
its own, is watched beside the app's and tells what any page that ticks would grow by.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gfviz.bench.app import WRITER, Row, make_app_row, serving
from gfviz.bench.devtools import Chromium, Devtools
from gfviz.errors import GfvizError

EVERY_SECONDS = 15.0
# The first quarter is warm-up.
_QUARTERS = (0.25, 0.75)
_SETTLE_SECONDS = 0.2
_STEP = "document.querySelector('[data-testid=stProgress]')?.innerText"

# Streamlit and nothing else: a second's tick that changes about as much as the page of a run, without its charts.
BARE = """
import time
import streamlit as st

@st.fragment(run_every=1.0)
def tick():
    now = int(45 * time.time()) % 1_000_000
    st.progress(now / 1e6, text=f"Step {now:,} of 1,000,000")
    for at, column in enumerate(st.columns(6)):
        column.metric(f"number {at}", f"{now % (977 + at)}", border=True)
    for column in st.columns(2):
        column.caption(f"at {now}")
    for tab in st.tabs(["one", "two"]):
        tab.markdown(f"{now}")

tick()
"""


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
    """One look at the app's page and one at the bare one, the server's MB and the steps that the page showed."""

    seconds: float
    server: float
    look: Look
    bare: Look
    points: int


def look(browser: Chromium) -> Look:
    """Have the browser give back what it may, then read what stays. About a second of the browser's time."""
    with browser.attached() as devtools:
        page = devtools.page()
        before = _processes(devtools)[0]
        devtools.ask("Performance.enable", page)
        devtools.ask("Memory.simulatePressureNotification", level="critical")
        # The first collection lets go of what finalisers and weak references held, the second of what that freed.
        for _ in range(2):
            devtools.ask("HeapProfiler.collectGarbage", page)
            time.sleep(_SETTLE_SECONDS)
        devtools.ask("HeapProfiler.collectGarbage", page)
        all_of_it, pages = _processes(devtools)
        told = {item["name"]: item["value"] for item in devtools.ask("Performance.getMetrics", page)["metrics"]}
        return Look(all_of_it, pages, told["JSHeapUsedSize"] / 1e6, told["Nodes"], before)


def _processes(devtools: Devtools) -> tuple[float, float]:
    # A browser starts and ends processes as it goes, and another one may run beside it.
    found = devtools.ask("SystemInfo.getProcessInfo")["processInfo"]
    pages = [one["id"] for one in found if one["type"] == "renderer"]
    return _megabytes([one["id"] for one in found]), _megabytes(pages)


def watch_app(minutes: float) -> list[Row]:
    """Watch a live run of 45 steps a second for `minutes` and tell what stays in memory, and how it grew.

    Raises `GfvizError` for less than a minute, or without Chromium.
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
    floor: dict[str, list[float]] = {
        "browser's processes": [sample.bare.browser for sample in samples],
        "page's process": [sample.bare.pages for sample in samples],
    }
    told = f"watched {minutes:g} min"
    rows = []
    for title, (values, unit) in series.items():
        rows.append(make_app_row(f"{told}: {title}, what stays at the end", least(values, _QUARTERS[1]), unit, None))
        rows.append(make_app_row(f"{told}: {title}, growth of what stays", growth(values), "of it", 0.05))
        if title in floor:
            bare = f"{told}: floor, {title} under a bare Streamlit page that ticks"
            rows.append(make_app_row(f"{bare}, what stays at the end", least(floor[title], _QUARTERS[1]), unit, None))
            rows.append(make_app_row(f"{bare}, growth of what stays", growth(floor[title]), "of it", None))
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
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    samples: list[Sample] = []
    try:
        run_id = writer.stdout.readline().strip()
        with serving(root) as (address, server), Chromium(root, f"{address}/runs?run={run_id}") as browser:
            browser.wait_for(_STEP)
            with _bare(root / "bare") as bare:
                began = time.monotonic()
                while time.monotonic() - began < seconds or len(samples) < 4:
                    time.sleep(min(EVERY_SECONDS, seconds / 8))
                    now, found, beside = time.monotonic() - began, look(browser), look(bare)
                    points = int(re.sub(r"\D", "", browser.wait_for(_STEP).split(" of ")[0]))
                    samples.append(Sample(now, _megabytes([server.pid]), found, beside, points))
                    told = (now, samples[-1].server, *found, *beside, points)
                    print(*(f"{value:,.1f}" for value in told), file=sys.stderr, flush=True)
    finally:
        writer.kill()
        writer.wait(10)
    return samples


@contextlib.contextmanager
def _bare(root: Path) -> Iterator[Chromium]:
    """A Chromium on `BARE`, with a server and files of its own."""
    root.mkdir()
    script = root / "bare.py"
    script.write_text(BARE, encoding="utf-8")
    with serving(root, script) as (address, _), Chromium(root, address) as beside:
        beside.wait_for(_STEP)
        yield beside


def _megabytes(processes: list[int]) -> float:
    """What the living of these processes made themselves, what they share among them counted once.

    Not the pages of files that they read: those of the program itself are a process's own (USS) while no other Chromium
    runs on the machine, and shared while one does, which moved a browser's sum by 60 MB and a page's by 10.
    """
    import psutil

    total = 0.0
    for process in processes:
        try:
            rolled = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            with contextlib.suppress(psutil.Error):  # another system than Linux, or a process that has gone
                total += psutil.Process(process).memory_full_info().uss / 1e6
            continue
        parts = dict(line.split()[:2] for line in rolled.splitlines()[1:])
        total += (int(parts["Pss_Anon:"]) + int(parts["Pss_Shmem:"])) * 1024 / 1e6
    return total
