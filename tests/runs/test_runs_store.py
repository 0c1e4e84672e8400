"""The store: what is acknowledged stays, readers see only what is newer, one writer at a time."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory, check_run_id, list_runs
from gfviz.runs.identity import ProcessIdentity


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", {"seed": 1}, name="a test")


def spawn(code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def test_layout_and_record(run: RunDirectory) -> None:
    assert run.config == {"seed": 1}
    assert (run.path / "graphs").is_dir()
    assert (run.path / "checkpoints").is_dir()
    assert run.status().state == "queued"
    assert run.status().step == -1
    with run.writer() as writer:
        writer.beat(total_steps=10)
        writer.log(3, {"loss/total": 1.5})
        writer.flush()
        status = run.status()
        assert (status.state, status.step, status.total_steps, status.pid) == ("running", 3, 10, os.getpid())
    assert run.status().state == "finished"


def test_only_newer_rows_and_nan(run: RunDirectory) -> None:
    with run.writer() as writer:
        for step in range(10):
            writer.log(step, {"a": step * 0.5, "b": float("nan") if step == 4 else -step}, time=100.0 + step)
        writer.log(9, {"a": 77.0}, time=200.0)
        writer.flush()
        reader = run.reader()
        newer = reader.series("a", after_step=6)
        np.testing.assert_array_equal(newer.steps, [7, 8, 9])
        np.testing.assert_array_equal(newer.values, [3.5, 4.0, 77.0])
        np.testing.assert_array_equal(newer.times, [107.0, 108.0, 200.0])
        assert np.isnan(reader.series("b").values[4])
        assert reader.latest() == {"a": (9, 77.0, 200.0), "b": (9, -9.0, 109.0)}
        assert reader.names() == ["a", "b"]
        assert len(reader.series("absent").steps) == 0


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(-1e6, 1e6)), min_size=1, max_size=60), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_buckets_against_numpy(tmp_path_factory: pytest.TempPathFactory, rows: list, count: int) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("r"), {})
    with run.writer() as writer:
        for step, value in rows:
            writer.log(step, {"x": value})
    table = dict(rows)
    buckets = run.reader().buckets("x", count)
    assert buckets.rows.sum() == len(table)
    assert len(buckets.rows) <= count
    for first, last, low, mean, high, number in zip(*buckets):
        inside = [value for step, value in table.items() if first <= step <= last]
        assert len(inside) == number
        assert low == min(inside)
        assert high == max(inside)
        assert mean == pytest.approx(np.mean(inside), rel=1e-12, abs=1e-9)


def test_rows_after_the_checkpoint_are_replaced(run: RunDirectory) -> None:
    writer = run.writer()
    for step in range(10):
        writer.log(step, {"a": float(step)})
    writer.close()
    with run.writer() as writer:
        writer.truncate_after(4)
        assert run.status().generation == 1
        writer.log(5, {"a": 50.0})
        writer.flush()
        np.testing.assert_array_equal(run.reader().series("a").values, [0, 1, 2, 3, 4, 50])
        assert run.status().step == 5


def test_events_by_id(run: RunDirectory) -> None:
    with run.writer() as writer:
        writer.event("one")
        writer.event("two", kind="warning", step=3)
    first, second = run.reader().events()
    assert (first.text, second.text, second.kind, second.step) == ("one", "two", "warning", 3)
    assert run.reader().events(after_id=first.id) == [second]


def test_exception_marks_failed(run: RunDirectory) -> None:
    with pytest.raises(RuntimeError), run.writer():
        raise RuntimeError("no more memory")
    assert run.status().state == "failed"
    assert "no more memory" in run.status().reason


WRITER = """
    import sys
    from gfviz.runs import RunDirectory
    writer = RunDirectory.open(sys.argv[1]).writer()
    for step in range(10**9):
        writer.log(step, {"a": step * 1.0, "b": -step})
        if step % 7 == 0:
            writer.flush()
            print(step, flush=True)
"""


@pytest.mark.parametrize("after", [1, 40, 333])
def test_kill_nine_loses_nothing_acknowledged(run: RunDirectory, after: int) -> None:
    process = spawn(WRITER, str(run.path))
    assert process.stdout is not None
    acknowledged = -1
    for _ in range(after):
        acknowledged = int(process.stdout.readline())
    with pytest.raises(GfvizError, match="being written by process"):
        run.writer()
    with pytest.raises(GfvizError, match="alive"):
        run.remove()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    # Not reaped yet: a zombie counts as dead.
    deadline = time.monotonic() + 10
    while run.status().alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.status().state == "killed"
    process.wait()
    acknowledged = max([acknowledged, *map(int, rest)])
    for name, sign in (("a", 1.0), ("b", -1.0)):
        series = run.reader().series(name)
        np.testing.assert_array_equal(series.values, sign * series.steps)
        np.testing.assert_array_equal(series.steps[: acknowledged + 1], np.arange(acknowledged + 1))
    check = sqlite3.connect(run.metrics_path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    with run.writer() as writer:
        writer.log(acknowledged + 1, {"a": 0.0})
    assert run.status().state == "finished"


def test_recycled_pid_is_another_process(run: RunDirectory) -> None:
    run.writer().close()
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        record["process"] = ProcessIdentity.of(child.pid)._asdict()
        path.write_text(json.dumps(record))
        assert run.status().state == "running"
        record["process"]["ticks"] -= 5
        path.write_text(json.dumps(record))
        assert run.status().state == "killed"
        record["process"] = {**ProcessIdentity.of(child.pid)._asdict(), "boot": "another boot"}
        path.write_text(json.dumps(record))
        assert run.status().state == "killed"
        run.writer().close()
    finally:
        child.communicate(b"\n")


def test_second_writer_in_one_process_is_refused(run: RunDirectory) -> None:
    writer = run.writer()
    with pytest.raises(GfvizError, match="being written"):
        RunDirectory.open(run.path).writer()
    writer.finish("finished")
    RunDirectory.open(run.path).writer().finish("finished")


@pytest.mark.parametrize("bad", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "-x", ".x", "a" * 101, "a\0b", "a..b"])
def test_ids_cannot_leave_the_folder(tmp_path: Path, bad: str) -> None:
    with pytest.raises(GfvizError, match="run id"):
        check_run_id(bad)
    with pytest.raises(GfvizError):
        RunDirectory.find(tmp_path, bad)


def test_links_are_no_runs(run: RunDirectory) -> None:
    link = run.path.parent / "link"
    link.symlink_to(run.path)
    with pytest.raises(GfvizError, match="no run at"):
        RunDirectory.open(link)


def test_listing_finding_tagging_removing(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert list_runs(root) == []
    older = RunDirectory.create(root, {}, name="older")
    newer = RunDirectory.create(root, {}, name="newer ../..//x")
    (root / "junk").mkdir()
    broken = root / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    assert {run.id for run in list_runs(root)} == {older.id, newer.id}
    assert newer.path.parent == root
    assert RunDirectory.find(root, older.id).id == older.id
    older.set_tags(["good", " good ", "b"])
    assert older.tags == ("b", "good")
    reader = older.reader()
    older.writer().finish("finished")
    assert reader.names() == []
    older.remove()
    assert not older.path.exists()
    with pytest.raises(GfvizError, match="removed"):
        reader.status()


def test_newer_formats_are_refused_with_the_way_out(run: RunDirectory) -> None:
    run.writer().finish("finished")
    database = sqlite3.connect(run.metrics_path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(GfvizError, match="upgrade"):
        run.reader().names()
    with pytest.raises(GfvizError, match="upgrade"):
        run.writer()
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(GfvizError, match="upgrade"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize("text", ["", "[]", "nul", '{"version": "x"}', '{"version": 1, "state": "odd"}', "[" * 5000])
def test_broken_records_are_one_line(run: RunDirectory, text: str) -> None:
    (run.path / "run.json").write_text(text)
    with pytest.raises(GfvizError) as caught:
        RunDirectory.open(run.path)
    assert "\n" not in str(caught.value)


def test_broken_store_is_one_line(run: RunDirectory) -> None:
    run.metrics_path.write_bytes(b"this is not a database, not at all" * 100)
    with pytest.raises(GfvizError, match="metrics store"):
        run.reader().names()


def full_disk(writer) -> None:
    # max_page_count is SQLite's own full disk: every growth fails with SQLITE_FULL.
    pages = writer._database.execute("PRAGMA page_count").fetchone()[0]
    writer._database.execute(f"PRAGMA max_page_count = {pages}")


def test_full_disk_stop(run: RunDirectory) -> None:
    writer = run.writer(on_failure="stop")
    full_disk(writer)
    values = {f"series/{number}": 1.0 for number in range(100_000)}
    with pytest.raises(GfvizError, match="full"):
        writer.log(1, values)
    writer._open = False
    writer._database.close()
    run.end_writing("failed", "disk full")
    assert run.status().state == "failed"


def test_full_disk_continue_keeps_rows(run: RunDirectory, capsys: pytest.CaptureFixture) -> None:
    writer = run.writer(on_failure="continue")
    full_disk(writer)
    for step in range(5000):
        writer.log(step, {"a": float(step)})
    writer.flush()
    assert capsys.readouterr().err.count("cannot be written") == 1
    assert len(run.reader().series("a").steps) < 5000
    writer._database.execute("PRAGMA max_page_count = 100000000")
    writer.finish("finished")
    np.testing.assert_array_equal(run.reader().series("a").values, np.arange(5000))


def test_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GfvizError, match="cannot make a run"):
        RunDirectory.create(tmp_path / "file" / "runs", {})


def test_reading_a_finished_run_on_a_readonly_folder(run: RunDirectory) -> None:
    with run.writer() as writer:
        writer.log(1, {"a": 2.0})
    run.path.chmod(0o555)
    try:
        assert run.reader().latest()["a"][:2] == (1, 2.0)
    finally:
        run.path.chmod(0o755)


def test_leftovers_of_a_killed_writer_are_removed(run: RunDirectory) -> None:
    stale = run.path / "graphs" / ".a.safetensors.xyz.tmp"
    stale.write_text("half")
    run.writer().finish("finished")
    assert not stale.exists()


def test_a_reader_never_meets_a_half_made_store(run: RunDirectory) -> None:
    code = """
        import sys
        from gfviz.runs import RunDirectory
        print("ready", flush=True)
        RunDirectory.open(sys.argv[1]).writer().finish("finished")
    """
    process = spawn(code, str(run.path))
    assert process.stdout is not None
    process.stdout.readline()
    while process.poll() is None:
        assert run.status().state in ("queued", "running", "finished")
        assert run.reader().names() == []
    assert run.status().state == "finished"


def test_a_launcher_that_comes_late_does_not_undo_what_its_process_said(run: RunDirectory) -> None:
    with run.writer():
        run.mark_launched(os.getppid())
        assert run.record().state == "running"
        assert run.record().process == ProcessIdentity.of()
    run.mark_launched(os.getppid())
    assert run.record().state == "finished"


def test_facts_of_the_writer_before_survive_the_next(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    early = run.record()
    with run.writer():
        run.add_facts({"seed": 7})
    true, calls = RunDirectory.record, iter([early])
    # The first read is from before the other writer, as where both begin at once.
    monkeypatch.setattr(RunDirectory, "record", lambda self: next(calls, None) or true(self))
    run.writer().finish("finished")
    assert run.record().facts == {"seed": 7}


def test_a_run_that_nobody_started_can_be_removed(run: RunDirectory) -> None:
    record = json.loads((run.path / "run.json").read_text())
    assert run.status().state == "queued"
    (run.path / "run.json").write_text(json.dumps({**record, "created": time.time() - 3600}))
    assert run.status().state == "killed"
    run.remove()
    assert not run.path.exists()


def test_a_run_whose_process_dies_before_it_writes_is_seen_as_killed_at_once(tmp_path: Path) -> None:
    made = """
        import sys
        from gfviz.runs import RunDirectory
        from gfviz.runs.identity import ProcessIdentity
        run = RunDirectory.create(sys.argv[1], {}, process=ProcessIdentity.of())
        print(run.path, run.status().state, flush=True)
    """
    path, state = spawn(made, str(tmp_path)).communicate(timeout=60)[0].split()
    assert state == "queued"
    run = RunDirectory.open(path)
    assert run.status().state == "killed"
    assert "before it began" in run.status().reason
    run.remove()


def test_a_run_that_ends_while_somebody_looks_is_not_called_killed(run: RunDirectory, monkeypatch) -> None:
    writer = run.writer()

    def ends(_process: ProcessIdentity) -> bool:
        writer.finish("finished")
        return False

    monkeypatch.setattr(ProcessIdentity, "alive", ends)
    assert run.status().state == "finished"


def test_a_configuration_that_yaml_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(GfvizError, match="cannot make a run"):
        RunDirectory.create(tmp_path, {"object": object()})
    assert list(tmp_path.iterdir()) == []
