"""Lists of runs of which one is damaged, and times that no calendar shows."""

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest

from gfviz.console import print_run
from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory, glance, list_runs
from gfviz.times import when


def made(root: Path, name: str) -> RunDirectory:
    run = RunDirectory.create(root, {"a": 1}, name=name)
    with run.writer() as writer:
        writer.beat(total_steps=9)
        writer.log(4, {"loss/total": 1.0})
        writer.event("one")
    return run


def spoil(run: RunDirectory) -> None:
    for suffix in ("-wal", "-shm"):
        run.metrics_path.with_name(f"metrics.db{suffix}").unlink(missing_ok=True)
    run.metrics_path.write_bytes(b"?" * 5000)


def put(run: RunDirectory, script: str) -> None:
    database = sqlite3.connect(run.metrics_path)
    database.executescript(script)
    database.close()


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    good, bad = made(tmp_path, "good"), made(tmp_path, "bad")
    spoil(bad)
    looks = {look.run.id: look for look in map(glance, list_runs(tmp_path))}
    assert (looks[good.id].state, looks[good.id].step, looks[good.id].total_steps) == ("finished", 4, 9)
    assert (looks[bad.id].state, looks[bad.id].step, looks[bad.id].total_steps) == ("damaged", 0, 0)
    assert "metrics.db" in looks[bad.id].reason
    assert looks[bad.id].created == bad.record().created


def test_a_damaged_run_can_be_removed_unless_it_is_written(tmp_path: Path) -> None:
    run = made(tmp_path, "bad")
    writer = run.writer()
    spoil(run)
    with pytest.raises(GfvizError, match="alive"):
        run.remove()
    writer._database.close()
    run.end_writing("failed", "")
    run.remove()
    assert list_runs(tmp_path) == []


@pytest.fixture
def tokyo():
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_times_are_local_and_bounded(tokyo) -> None:
    assert when(1_700_000_000) == "2023-11-15 07:13"
    assert when(1_700_000_000, seconds=True) == "2023-11-15 07:13:20"
    # The last second of the year 9999 in Greenwich: in Tokyo no calendar has a year for it.
    for wrong in (253402300790.0, 1e300, -1e300, float("inf"), float("nan"), None):
        assert when(wrong) == "–"


def test_a_run_with_times_of_no_calendar_is_shown(tmp_path: Path, tokyo, capsys) -> None:
    run = made(tmp_path, "a")
    put(run, "UPDATE state SET value = 1e300 WHERE key = 'heartbeat'; UPDATE events SET time = 1e300, step = NULL")
    assert run.status().heartbeat is None
    print_run(run)
    assert "heartbeat" not in capsys.readouterr().out
    assert [when(event.time) for event in run.reader().newest_events()] == ["–"]
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "created": 253402300790.0}))
    assert when(glance(run).created) == "–"


@pytest.mark.parametrize("script", [
    "UPDATE state SET value = 1e300 WHERE key = 'step'",
    "UPDATE state SET value = -5 WHERE key = 'step'",
    "UPDATE state SET value = 9e15 + 1e16 WHERE key = 'total_steps'",
])  # fmt: skip
def test_counts_beyond_what_counts_can_be_are_damage(tmp_path: Path, script: str) -> None:
    run = made(tmp_path, "a")
    put(run, script)
    with pytest.raises(GfvizError, match="wrong type"):
        run.status()
    assert glance(run).state == "damaged"


def test_an_event_of_another_type_is_damage_not_a_crash(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    put(run, "UPDATE events SET time = 'never'")
    for ask in (run.reader().newest_events, run.reader().events):
        with pytest.raises(GfvizError, match="wrong type"):
            ask()


def test_texts_of_a_record_can_always_be_shown(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "name": "x\ud800", "reason": "\udfff"}))
    (run.path / "tags.json").write_text('{"tags": ["t\\ud800"]}')
    assert (run.record().name, run.record().reason, run.tags) == ("x?", "?", ("t?",))
