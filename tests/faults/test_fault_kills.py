"""The harness itself: a handful of kills in each run of the tests, and that it would see what it looks for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gfviz.fusion.cache import shard_path
from tests.faults.app_victim import KINDS
from tests.faults.commands import COMMANDS, ROOT, environment
from tests.faults.forks import run_child
from tests.faults.victims import Cache, Store, Victim, differing, leftovers, only_run

RESULTS = Path(__file__).parent / "results"


def harness(*arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--json", *arguments], cwd=ROOT, env=environment(), timeout=280,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_handful_of_kills_loses_nothing() -> None:
    report = harness("--kills", "5", "--only", "trainer,store", "--seed", "3")
    assert (report["kills"], report["survived"], report["lost"], report["findings"]) == (5, 5, 0, [])
    assert set(report) >= {"kills", "survived", "lost", "inputs", "crashes", "findings", "machine", "date"}


@pytest.mark.parametrize("kind", [*KINDS, *COMMANDS], ids=lambda kind: kind.name)
def test_every_kind_can_be_a_victim(kind: type[Victim], tmp_path: Path) -> None:
    victim = kind(tmp_path / "victim", tmp_path / "shared" / "whole")
    assert victim.broken.is_dir()


@pytest.mark.long
def test_kills_of_every_kind_and_hostile_inputs() -> None:
    report = harness("--kills", "24", "--inputs", "5000", "--seed", "5")
    assert report["lost"] == report["crashes"] == 0
    assert report["kills"] == report["survived"] == 24
    assert report["inputs"] >= 4900


def test_a_child_is_killed_when_it_is_told_and_what_it_told_is_known(tmp_path: Path) -> None:
    def endless(tell) -> None:
        number = 0
        while True:
            tell(number)
            number += 1

    ended = run_child(endless, tmp_path / "log", kill_after=0.2)
    assert ended.killed
    assert ended.told == list(range(len(ended.told)))
    assert run_child(lambda tell: tell("x"), tmp_path / "log").told == ["x"]
    assert "ZeroDivisionError" in run_child(lambda tell: tell(1 / 0), tmp_path / "log").printed


def test_a_lost_row_is_seen(tmp_path: Path) -> None:
    """A harness that finds nothing must be able to find something."""
    whole = Store.reference(tmp_path / "shared")
    victim = Store(tmp_path / "victim", whole)
    victim.start(0.8 * Store.seconds, False)
    assert victim.check() == []
    if not victim.acknowledged:
        victim.acknowledged.append(0)
    run = only_run(tmp_path / "victim" / "runs")
    assert run is not None
    import sqlite3

    database = sqlite3.connect(run.metrics_path)
    database.execute("DELETE FROM scalars WHERE step = (SELECT min(step) FROM scalars)")
    database.commit()
    database.close()
    assert victim.check() != []


def test_a_lost_shard_a_changed_curve_and_a_leftover_are_seen(tmp_path: Path) -> None:
    whole = Cache.reference(tmp_path / "shared")
    victim = Cache(tmp_path / "victim", whole)
    assert victim.start(None, False).code == 0
    assert victim.check() == []
    path = shard_path(tmp_path / "victim" / "cache", 3)
    content = path.read_bytes()
    path.unlink()
    assert victim.check() == ["shard 3 was acknowledged and is missing"]
    path.write_bytes(content[:-8])
    assert any("damaged" in text or "written again" in text for text in victim.check())
    (tmp_path / "victim" / ".a.xyz.tmp").touch()
    assert leftovers(tmp_path / "victim") == ["left behind: .a.xyz.tmp"]
    steps, values = np.arange(3), np.array([1.0, 2.0, 3.0])
    assert differing({"a": (steps, values)}, {"a": (steps, values + [0, 0, 1e-15 * 4])}) != []
    assert differing({"a": (steps, values)}, {}) != []
    assert differing({"a": (steps, values)}, {"a": (steps, values.copy())}) == []


def test_the_committed_results_are_whole() -> None:
    """What the README quotes carries its command, machine and date, and nothing in it was lost."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    assert sum(report["inputs"] for report in reports) >= 1_000_000
    assert sum(report["kills"] for report in reports) >= 100
    for report in reports:
        assert report["machine"]
        assert report["date"]
        assert report["command"].startswith("python -m tests.faults")
        assert report["lost"] == 0
        assert report["survived"] == report["kills"]
        assert report["crashes"] <= len(report["findings"])
