"""How fast the app is for the person before it: measured in headless Chromium against the app as its own process.

Needs the extras `app` and `test` (Playwright) and a Chromium on the path; nothing is imported from the app.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gfviz.app_options import app_command
from gfviz.bench.devtools import FLAGS, Chromium, Devtools, find_chromium
from gfviz.errors import GfvizError

Row = dict[str, Any]
VIEWPORT = {"width": 1440, "height": 900}
REST_MS = 1500
RELOADS = 5
SECOND_ROW = 88  # pixels from the top of a table to the middle of its second row

# A frame is asked for at once but drawn later: a pixel read back is there only when all of it is. Then one more frame,
# in which the browser shows it.
_DRAWN = """async () => {
  const root = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.gfviz')).find(Boolean)
  await new Promise(requestAnimationFrame)
  for (const canvas of root.querySelectorAll('canvas.sigma-nodes, canvas.sigma-edges')) {
    const gl = canvas.getContext('webgl2') ?? canvas.getContext('webgl')
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4))
  }
  await new Promise(requestAnimationFrame)
}"""
_SEEN_WHOLE = f"""async () => {{
  const drawn = {_DRAWN}
  if (![...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.gfviz[data-ready]'))) return false
  await drawn()
  return true
}}"""
_TIMED = """(() => {
  const seen = SEEN
  const look = async () => {
    if (await seen()) window.gfvizSeen = performance.now()
    else setTimeout(look, 10)
  }
  look()
})()"""
_PATIENCE = 120.0
_SLIDE = f"""async () => {{
  const drawn = {_DRAWN}
  const root = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.gfviz')).find(Boolean)
  const slider = root.querySelector('.threshold')
  const times = []
  for (const position of [300, 600, 450, 800, 100]) {{
    const began = performance.now()
    slider.value = position
    slider.dispatchEvent(new Event('input', {{bubbles: true}}))
    await drawn()
    times.push(performance.now() - began)
  }}
  return Math.max(...times)
}}"""

WRITER = """
import sys, time
from gfviz.runs import RunDirectory
run = RunDirectory.create(sys.argv[1], {"training": {"steps": 1000000}}, name="live")
writer = run.writer()
writer.beat(total_steps=1000000)
print(run.id, flush=True)
step = 0
while True:
    writer.log(step, {"loss/total": 1.0 / (1 + step), "loss/sft": 0.5, "tokens_per_s": 100.0})
    if step % 45 == 0:
        writer.log(step, {"graph/t/lower": 0.1, "graph/t/upper": 0.2, "eval/exact_match": 0.5})
    writer.flush()
    step += 1
    time.sleep(1 / 45)
"""


def bench_app(seconds_live: float = 20.0) -> list[Row]:
    """Rows {name, value, unit, target, met} of Part "app": first draws, slider, a live run, a large run, a killed run.

    "Cold" is a browser that has never seen the app, "reload" one that has (median of five), both from the address to
    the picture; no page of Streamlit's is faster than one with nothing on it, which is measured beside them ("floor").
    "In the open app" is what somebody waits for who has the app before him and asks it for another graph or run.

    `seconds_live` is how long the live run is watched. Raises `GfvizError` where Chromium or Playwright is missing.
    Cost: about two minutes.
    """
    # A browser shares the machine with whatever else runs: without this number the others mean little.
    rows = [make_app_row("load average of the last minute, before", os.getloadavg()[0], "", None)]
    with tempfile.TemporaryDirectory() as folder, chromium_on(Path(folder)) as browser:
        root = Path(folder)
        _write_graph(root / "graphs" / "small.safetensors", 1000, 5000)
        _write_graph(root / "graphs" / "large.safetensors", 10_000, 50_000)
        _write_graph(root / "graphs" / "other.safetensors", 200, 800)
        large_run = _write_run(root, "large", 1_000_000)
        _write_run(root, "other", 200)
        rows += _floor(root)
        began = time.perf_counter()
        with serving(root) as (address, _):
            rows.append(make_app_row("app: from its start until it answers", time.perf_counter() - began, "s", None))
            rows += _canvas(browser, root, address, "1 000 nodes / 5 000 edges", "small", "1+000", 3.0, 1.0, 0.2)
            rows += _canvas(browser, root, address, "10 000 / 50 000", "large", "10+000", 6.0, None, 0.5)
            rows += _large_run(browser, root, address, large_run)
            rows += _live(browser, address, root, seconds_live)
    return rows


@contextlib.contextmanager
def chromium_on(root: Path) -> Iterator[Any]:
    """A headless Chromium, its own files under `root`. Raises `GfvizError` where it or Playwright is missing."""
    if find_chromium() is None:
        raise GfvizError("the app's benchmark needs Chromium: apt-get install -y chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise GfvizError('the app\'s benchmark needs Playwright: pip install "gfviz[test]"') from error
    with sync_playwright() as playwright:
        downloads = root / "downloads"
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=list(FLAGS), headless=True, downloads_path=downloads
        )
        try:
            yield browser
        finally:
            browser.close()


def make_app_row(name: str, value: float, unit: str, target: float | None) -> Row:
    met = None if target is None else bool(value <= target)
    return {"name": name, "value": round(float(value), 3), "unit": unit, "target": target, "met": met}


def _write_graph(path: Path, n: int, m: int) -> None:
    """A graph of n nodes in which the app finds about m edges worth drawing."""
    from scipy import sparse

    from gfviz.graph import CoactivationGraph

    random = np.random.default_rng(0)
    fame = (random.pareto(1.5, n) + 1) / n
    group = random.integers(0, 12, n)
    i, j = random.choice(n, 8 * m, p=fame / fame.sum()), random.integers(0, n, 8 * m)
    keep = np.flatnonzero((i != j) & ((group[i] == group[j]) | (random.random(8 * m) < 0.05)))[: int(1.15 * m)]
    upper = sparse.coo_array((random.random(len(keep)) + 0.1, (i[keep], j[keep])), shape=(n, n)).tocsr()
    both = upper + upper.T
    # A dominant diagonal makes it positive semidefinite, as a co-activation matrix is.
    matrix = both + sparse.diags_array(np.asarray(both.sum(axis=1)).ravel() + 0.1)
    labels = [f" token{k}" for k in range(n)]
    CoactivationGraph(
        "token", "prob", "uniform", 1000, np.arange(n), labels, "vocab:bench", accumulated=sparse.csr_array(matrix)
    ).save(path)


def _write_run(root: Path, name: str, steps: int) -> str:
    from gfviz.runs import RunDirectory

    run = RunDirectory.create(root, {"training": {"steps": steps}}, name=name)
    writer = run.writer()
    writer.beat(total_steps=steps)
    for step in range(steps):
        writer.log(step, {"loss/total": 1.0 / (1 + step)})
    writer.finish("finished")
    return run.id


@contextlib.contextmanager
def serving(root: Path, script: Path | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """The app on `root` (or another Streamlit `script`) as a process of its own: its address and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = app_command(root, port=port)
    if script is not None:
        options = command[command.index("run") + 2 : command.index("--")]
        command = [command[0], "-m", "streamlit", "run", str(script), *options]
    with open(root / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=root)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise GfvizError(f"the app did not start: {(root / 'server.log').read_text()[-500:]}")
        yield address, server
    finally:
        server.terminate()
        server.wait(20)


def _floor(root: Path) -> list[Row]:
    """What no page of Streamlit's goes below: one line of text under the app's options, cold and reloaded."""
    script = root / "blank.py"
    script.write_text('import streamlit as st\n\nst.write("blank")\n', encoding="utf-8")
    with serving(root, script) as (address, _):
        times = _loads(root, address, "async () => document.querySelector('[data-testid=stMarkdown]') !== null")
    return [
        make_app_row("floor: a blank Streamlit page, cold", times[0], "s", None),
        make_app_row("floor: a blank Streamlit page, reload", times[1], "s", None),
    ]


def _loads(root: Path, url: str, seen: str) -> list[float]:
    """Seconds from the address until `seen`: in a browser without any cache; median of reloads in it.

    By the page's own clock, from its navigation on, in a browser that nothing else drives. Playwright has every request
    and script told, which a page with a hundred files waits for. `seen` is an async JavaScript function.
    """
    times = []
    with Chromium(Path(tempfile.mkdtemp(dir=root)), "about:blank") as browser:
        browser.wait_for("document.readyState === 'complete'")
        with browser.attached() as devtools:
            page = devtools.page()
            devtools.ask("Page.enable", page)
            devtools.ask("Page.addScriptToEvaluateOnNewDocument", page, source=_TIMED.replace("SEEN", seen))
            for _ in range(1 + RELOADS):
                devtools.ask("Page.navigate", page, url=url)
                times.append(_seen_after(devtools, page) / 1000)
                time.sleep(REST_MS / 1000)
    return [times[0], statistics.median(times[1:])]


def _seen_after(devtools: Devtools, page: str) -> float:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if found := devtools.evaluate(page, "window.gfvizSeen"):
            return float(found)
    raise GfvizError(f"the page was not drawn in {_PATIENCE:g} s")


def _whole_picture(page) -> None:
    page.locator(".gfviz[data-ready]").wait_for(timeout=120_000)
    page.evaluate(_DRAWN)


def _canvas(
    browser, root: Path, address: str, name: str, graph: str, size: str, cold: float, warm: float | None, slider: float
) -> list[Row]:
    """First draw, until the picture is whole: cold, reloaded, chosen in the open app; the slowest of five slides."""
    url = f"{address}/explore?size={size}"
    times = _loads(root, f"{url}&graph={graph}", _SEEN_WHOLE)
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    page.goto(f"{url}&graph=other")
    _whole_picture(page)
    page.wait_for_timeout(REST_MS)
    other = page.locator(".gfviz").get_attribute("data-ready")
    page.get_by_role("combobox").first.fill(graph)
    began = time.perf_counter()
    page.keyboard.press("Enter")
    page.locator(f'.gfviz[data-ready]:not([data-ready="{other}"])').wait_for(timeout=120_000)
    page.evaluate(_DRAWN)
    within = time.perf_counter() - began
    page.wait_for_timeout(REST_MS)
    moved = page.evaluate(_SLIDE) / 1000
    drawn = page.locator(".gfviz").get_attribute("data-nodes")
    context.close()
    return [
        make_app_row(f"{name}: first draw, cold ({drawn} nodes)", times[0], "s", cold),
        make_app_row(f"{name}: first draw, warm (reload)", times[1], "s", warm),
        make_app_row(f"{name}: chosen in the open app (laid out before), until drawn", within, "s", warm),
        make_app_row(f"{name}: slider, slowest of 5", moved, "s", slider),
    ]


def _large_run(browser, root: Path, address: str, run_id: str) -> list[Row]:
    """A run with a million logged steps, until its first curve is drawn: from the table of runs, then by its address.

    In this order: who clicks opens it as the first, and waits for the server's first reading of all its rows.
    """
    curve = f'.curves[data-ready="run/{run_id}"] path.line'
    drawn = f"e => e.shadowRoot?.querySelector({json.dumps(curve)})"
    context = browser.new_context(viewport=VIEWPORT)
    page = context.new_page()
    page.goto(f"{address}/runs")
    page.locator(".curves path.line").first.wait_for(state="attached", timeout=60_000)
    table = page.get_by_test_id("stDataFrame").first
    table.wait_for(timeout=60_000)
    page.wait_for_timeout(REST_MS)
    # The second row: the newest run is the other one, which the page shows by itself.
    table.hover(position={"x": 20, "y": SECOND_ROW})
    began = time.perf_counter()
    page.mouse.down()
    page.mouse.up()
    page.locator(curve).first.wait_for(state="attached", timeout=60_000)
    within = time.perf_counter() - began
    context.close()
    times = _loads(
        root, f"{address}/runs?run={run_id}", f"async () => [...document.querySelectorAll('*')].some({drawn})"
    )
    name = "run of 1 000 000 steps"
    return [
        make_app_row(f"{name}: chosen in the open app's table, until its curve is drawn", within, "s", 1.5),
        make_app_row(f"{name}: until its curve is drawn, cold", times[0], "s", 1.5),
        make_app_row(f"{name}: until its curve is drawn, reload", times[1], "s", 1.5),
    ]


def _live(browser, address: str, root: Path, seconds: float) -> list[Row]:
    """45 steps a second: age of the newest step just after it is shown, time of a tick, memory, and kill -9."""
    from gfviz.runs import RunDirectory

    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    context = browser.new_context(viewport=VIEWPORT)
    try:
        run_id = writer.stdout.readline().strip()
        page = context.new_page()
        page.goto(f"{address}/runs?run={run_id}")
        progress = page.get_by_test_id("stProgress").first
        progress.wait_for(timeout=60_000)
        page.wait_for_timeout(4000)
        shown: list[tuple[int, float]] = []
        ticks: list[float] = []
        deadline, before = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            text = progress.inner_text()
            if text != before and text.startswith("Step"):
                shown.append((int(text.split(" of ")[0].removeprefix("Step").replace(",", "")) - 1, time.time()))
                found = page.get_by_text("Read and drawn in").first.inner_text()
                ticks.append(float(found.split(" in ")[1].split()[0]))
                before = text
            page.wait_for_timeout(20)
        series = RunDirectory.open(root / run_id).reader().series("loss/total")
        # The very first text was there before we looked.
        ages = [seen - series.times[step] for step, seen in shown[1:]]
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(10)
        killed = time.perf_counter()
        page.get_by_text("killed", exact=True).first.wait_for(timeout=30_000)
        gone = time.perf_counter() - killed
    finally:
        context.close()
        writer.kill()
        writer.wait(10)
    return [
        make_app_row("live run, 45 steps/s: age of the newest step shown, median", statistics.median(ages), "s", 0.5),
        make_app_row("live run: tick on the server, median", statistics.median(ticks) / 1000, "s", 0.05),
        make_app_row("live run: ticks seen", float(len(shown)), f"in {seconds:.0f} s", None),
        make_app_row("kill -9: until it is shown", gone, "s", 3.0),
    ]
