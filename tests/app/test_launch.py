"""A real fusion of the shipped models, from the Train page: launched, watched, stopped, resumed to its end."""

import re
import time

import pytest
from playwright.sync_api import expect

from gfviz.paths import sample_data_dir
from gfviz.runs import RunDirectory, list_runs
from tests.app.conftest import Tab, serving
from tests.app.test_live import wait_for_step

# Two starts of a trainer and their imports: a minute or more. CI runs it by itself.
pytestmark = [pytest.mark.browser, pytest.mark.long]

STEPS = 160
PATIENCE = 180_000  # ms; on a busy machine the trainer spends most of it on its imports


def template(root) -> RunDirectory:
    """A run that was never started, for its configuration: the form is filled from it."""
    home = sample_data_dir()
    config = {
        "name": "short",
        "pivot": {"model": str(home / "models" / "task-pivot")},
        "teachers": [{"name": "specialist", "model": str(home / "models" / "task-specialist")}],
        "data": {"train": [str(home / "tasks" / "train.jsonl")]},
        "training": {"steps": STEPS, "batch_size": 4, "learning_rate": 0.001, "log_every": 1},
        "evaluation": {"at_start": False, "at_end": False},
        "graph": {"every": 80, "examples": 8},
    }
    return RunDirectory.create(root, config, name="template")


@pytest.mark.timeout(600)
def test_a_fusion_is_launched_watched_stopped_and_resumed_to_its_end(chromium, tmp_path, tmp_path_factory):
    started_from = template(tmp_path)
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    with serving(tmp_path, tmp_path_factory.mktemp("launch") / "server.log") as address:
        tab = Tab(context.new_page(), address)
        tab.open(f"train?start={started_from.id}")
        tab.page.get_by_role("button", name="Launch").click()
        expect(tab.page.get_by_test_id("stProgress").first).to_be_visible(timeout=PATIENCE)
        run = next(run for run in list_runs(tmp_path) if run.id != started_from.id)
        assert run.id in tab.page.url
        wait_for_step(tab, 2, timeout=PATIENCE / 1000)
        tab.page.get_by_role("button", name="Stop").click()
        expect(tab.page.get_by_text("stopped", exact=True).first).to_be_visible(timeout=PATIENCE)
        stopped_at = run.status().step
        assert 2 < stopped_at < STEPS, "it was stopped on its way"
        assert run.checkpoints()[-1][0] == stopped_at
        tab.calm()
        tab.page.get_by_role("button", name="Resume").click()
        expect(tab.page.get_by_text(re.compile("^(finished|failed|killed)$")).first).to_be_visible(timeout=PATIENCE)
        assert tab.outside() == []
        assert tab.errors == []
    context.close()
    status, series = run.status(), run.reader().series("loss/total")
    assert (status.state, status.step) == ("finished", STEPS)
    assert series.steps.tolist() == list(range(1, STEPS + 1)), "no step is lost and none is there twice"
    assert (run.model_path / "model.safetensors").is_file()
    assert {"graph/specialist/lower", "graph/specialist/upper"} <= set(run.reader().names())
    assert time.time() - status.heartbeat < 120
