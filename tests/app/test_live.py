"""Watching a run in the browser: new points appear, a killed writer is called killed, the app may come and go."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from playwright.sync_api import expect

from tests.app.conftest import Tab, make_graph, serving

pytestmark = pytest.mark.browser

WRITER = """
import sys, time
from gfviz.runs import RunDirectory
run = RunDirectory.create(sys.argv[1], {"training": {"steps": 100000}}, name="live")
writer = run.writer()
writer.beat(total_steps=100000)
print(run.id, flush=True)
for step in range(100000):
    writer.log(step, {"loss/total": 1.0 / (1 + step), "tokens_per_s": 100.0 + step})
    writer.flush()
    time.sleep(1 / 45)
"""


@pytest.fixture
def live(tmp_path):
    """A folder in which a process writes 45 steps a second, its run's id and the process."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    run_id = writer.stdout.readline().strip()
    yield tmp_path, run_id, writer
    writer.kill()
    writer.wait(10)


def shown_step(tab: Tab) -> int:
    text = tab.page.get_by_test_id("stProgress").first.inner_text()
    return int(text.split("of")[0].replace("Step", "").replace(",", "").strip())


def wait_for_step(tab: Tab, above: int, timeout: float = 30) -> int:
    deadline = time.monotonic() + timeout
    while (step := shown_step(tab)) <= above:
        assert time.monotonic() < deadline, f"still at step {step}"
        tab.page.wait_for_timeout(100)
    return step


def test_a_live_run_ticks_outlives_the_app_and_its_death_is_seen(chromium, live, tmp_path_factory):
    root, run_id, writer = live
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    with serving(root, tmp_path_factory.mktemp("live") / "first.log") as address:
        tab = Tab(context.new_page(), address)
        tab.page.goto(f"{address}/runs?run={run_id}")
        expect(tab.page.get_by_test_id("stProgress").first).to_be_visible(timeout=60_000)
        first = shown_step(tab)
        # A graph saved meanwhile is shown without anybody asking for it.
        make_graph(0, "rank").save(root / run_id / "graphs" / "step-000001-student.safetensors")
        expect(tab.page.get_by_text("Graphs over training")).to_be_visible(timeout=20_000)
        wait_for_step(tab, first + 45)
        # What Streamlit notes of each rerun does not heap up in the browser.
        noted = "performance.getEntriesByName('running').length + performance.getEntriesByType('measure').length"
        tab.page.wait_for_function(f"{noted} > 0", timeout=20_000)
        tab.page.wait_for_function(f"{noted} === 0", timeout=20_000)
    assert writer.poll() is None, "the run died with the app"
    with serving(root, tmp_path_factory.mktemp("live") / "second.log") as address:
        tab = Tab(context.new_page(), address)
        tab.page.goto(f"{address}/runs?run={run_id}")
        expect(tab.page.get_by_test_id("stProgress").first).to_be_visible(timeout=60_000)
        again = wait_for_step(tab, shown_step(tab))
        assert again > first
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(10)
        killed = time.monotonic()
        # The state's badge, not the table above it.
        expect(tab.page.get_by_text("killed", exact=True).first).to_be_visible(timeout=20_000)
        # Three seconds on an idle machine; the bench measures it. Tests share their cores, so here only that it comes.
        assert time.monotonic() - killed < 15
        assert tab.errors == []
    context.close()
    assert json.loads((root / run_id / "run.json").read_text())["state"] == "running"
