"""Many at once on one store: runs, readers and tabs; two launches; a run deleted while it is watched; a reboot."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gfviz.errors import GfvizError
from gfviz.files import atomic_path, claimed, sweep
from gfviz.fusion.config import load_config, parse_config
from gfviz.fusion.launch import launch_resume
from gfviz.fusion.session import create_run, execute
from gfviz.runs import RunDirectory, foreign, list_runs
from gfviz.runs.identity import ProcessIdentity
from tests.faults.forks import run_child
from tests.faults.victims import fusion_mapping, zoo

WRITERS, ROWS = 10, 120
WRITER = """
    import sys
    from gfviz.runs import RunDirectory
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        with RunDirectory.create(sys.argv[1], {"n": number}, name=f"r{number}").writer() as writer:
            writer.beat(total_steps=120)
            for step in range(120):
                writer.log(step, {"loss/total": step * float(number)})
                writer.flush()
"""


def test_ten_runs_and_ten_readers_on_one_folder(tmp_path: Path) -> None:
    """Every reader sees each series only grow, and in the end every row of every run is there."""
    code = textwrap.dedent(WRITER)
    # Ten runs, several of them at a time: more interpreters than cores would only wait for each other.
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(first), str(first + 4)])
        for first in range(0, WRITERS - 2, 4)
    ]
    extra = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "8", "10"])
    problems: list[str] = []
    busy = threading.Event()

    def watch() -> None:
        seen: dict[str, int] = {}
        while not busy.is_set():
            for run in list_runs(tmp_path):
                try:
                    status = run.status()
                    with run.reader() as reader:
                        steps = reader.series("loss/total").steps
                except GfvizError as error:
                    problems.append(str(error))
                    continue
                if not np.array_equal(steps, np.arange(len(steps))) or len(steps) < seen.get(run.id, 0):
                    problems.append(f"{run.id} went back")
                if status.state not in ("queued", "running", "finished"):
                    problems.append(f"{run.id} is {status.state}: {status.reason}")
                seen[run.id] = len(steps)
            time.sleep(0.05)

    readers = [threading.Thread(target=watch) for _ in range(10)]
    for reader in readers:
        reader.start()
    codes = [process.wait(120) for process in [*writers, extra]]
    busy.set()
    for reader in readers:
        reader.join()
    assert codes == [0, 0, 0]
    assert problems == []
    runs = list_runs(tmp_path)
    assert len(runs) == WRITERS
    for run in runs:
        number = float(run.config["n"])
        series = run.reader().series("loss/total")
        np.testing.assert_array_equal(series.values, number * np.arange(ROWS))


@pytest.mark.long
def test_ten_tabs_on_one_app_while_a_run_is_deleted(tmp_path: Path) -> None:
    """Ten tabs go through the pages of one server; half-way one of the runs disappears under them."""
    from tests.app.conftest import make_graph, make_run
    from tests.faults import tabs

    made = [make_run(tmp_path, f"run-{number}") for number in range(10)]
    make_graph().save(tmp_path / "graphs" / "g.safetensors")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def visit(number: int, problems: list[str]) -> None:
        tab = tabs.Tab(port)
        for turn in range(3):
            for page, query in (("runs", f"run={made[number].id}"), ("", ""), ("explore", "")):
                problems += tab.open(page, query, patience=200)
            if turn == 0 and number == 0:
                made[0].remove()
                made[1].remove()
        tab.close()

    def body(tell) -> None:
        def client() -> None:
            import os

            problems: list[str] = [] if tabs.healthy(port) else ["the app does not answer"]
            visitors = [threading.Thread(target=visit, args=(number, problems)) for number in range(10)]
            for visitor in visitors:
                visitor.start()
            for visitor in visitors:
                visitor.join()
            tell(problems)
            os._exit(0)

        threading.Thread(target=client, daemon=True).start()
        tabs.serve(tmp_path, port)

    ended = run_child(body, tmp_path / "app.log", limit=280)
    assert ended.told == [[]], (ended.told, ended.printed[-3000:])
    assert ended.code == 0
    assert len(list_runs(tmp_path)) == 8


def test_a_run_removed_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, {})
    with run.writer() as writer:
        writer.log(1, {"a": 1.0})
    watching = run.reader()
    assert watching.names() == ["a"]
    run.remove()
    for question in (watching.status, lambda: RunDirectory.open(run.path), run.status):
        with pytest.raises(GfvizError, match=r"removed|no run at") as caught:
            question()
        assert "\n" not in str(caught.value)
    assert list_runs(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_two_resumes_of_one_run_make_one_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tabs press Resume before the first worker has begun: the second worker is refused, nothing is overwritten."""
    mapping = fusion_mapping(zoo(tmp_path), tmp_path / "runs", steps=2)
    run = create_run(parse_config({**mapping, "evaluation": {"at_start": False, "at_end": False}}))
    started: list[list[str]] = []

    class Started:
        pid = ProcessIdentity.of().pid

        def __init__(self, command, **_options) -> None:
            started.append(command)

    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "state": "stopped"}))
    with monkeypatch.context() as patched:
        patched.setattr("gfviz.fusion.launch.subprocess.Popen", Started)
        launch_resume(run)
        launch_resume(run)
    assert len(started) == 2
    writer = run.writer()
    with pytest.raises(GfvizError, match="being written"):
        execute(RunDirectory.open(run.path))
    writer.finish("finished")
    # The second worker comes when the first has ended: a finished run is not trained again.
    with pytest.raises(GfvizError, match="has finished"):
        execute(RunDirectory.open(run.path))
    assert run.status().state == "finished"


def test_a_second_trainer_is_refused_while_the_first_lives_and_takes_over_after_its_death(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, {})
    code = (
        "import sys\nfrom gfviz.runs import RunDirectory\nwriter = RunDirectory.open(sys.argv[1]).writer()\n"
        "writer.log(1, {'a': 1.0})\nwriter.flush()\nprint('here', flush=True)\nsys.stdin.read()\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    first.stdout.readline()
    with pytest.raises(GfvizError, match=f"process {first.pid}"):
        run.writer()
    first.kill()
    first.wait()
    with run.writer() as writer:
        writer.log(2, {"a": 2.0})
    assert run.reader().series("a").values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "change",
    [{"boot": "before the power cut"}, {"ticks": 1, "created": 1.0}, {"pid": 2**30}, {"host": "renamed"}],
    ids=["reboot", "recycled pid", "no such pid", "other host name"],
)
def test_the_dead_of_another_boot_hold_nothing(tmp_path: Path, change: dict) -> None:
    """This very process, as it would be recorded before a reboot: its pid lives, it does not."""
    run = RunDirectory.create(tmp_path, {})
    run.writer().close()
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    assert record["state"] == "running"
    parent = ProcessIdentity.of(1)._asdict()
    path.write_text(json.dumps({**record, "process": {**parent, **change}, "started": 1.0, "created": 1.0}))
    if "host" not in change:
        assert run.status().state == "killed"
    with run.writer() as writer:
        writer.log(1, {"a": 1.0})
    assert run.status().state == "finished"


def test_a_living_process_of_this_boot_is_not_taken_over(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, {})
    run.writer().close()
    path = run.path / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "process": ProcessIdentity.of(1)._asdict()}))
    with pytest.raises(GfvizError, match="process 1 "):
        run.writer()


def test_editing_a_configuration_does_not_reach_the_run_that_began_with_it(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(fusion_mapping(zoo(tmp_path), tmp_path / "runs", steps=2)))
    run = create_run(load_config(path))
    path.write_text("not: [a, configuration")
    assert parse_config(run.config).training.steps == 2
    # The run's own copy, half-way through an edit, is one line and leaves the run as it is.
    (run.path / "config.yaml").write_text("pivot: {model")
    with pytest.raises(GfvizError, match=r"config.yaml is not readable YAML"):
        execute(RunDirectory.open(run.path))
    assert run.record().state == "queued"


def test_temporary_files_of_the_living_are_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom gfviz.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1]) / 'a.bin') as scratch:\n"
        "    scratch.write_bytes(b'half')\n    print(scratch, flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    held = Path(other.stdout.readline().strip())
    sweep(tmp_path)
    assert held.exists()
    with atomic_path(tmp_path / "a.bin") as scratch:
        scratch.write_bytes(b"mine")
    assert held.exists()
    other.kill()
    other.wait()
    with atomic_path(tmp_path / "a.bin") as scratch:
        scratch.write_bytes(b"again")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    with claimed(tmp_path / "a.bin") as first, claimed(tmp_path / "a.bin") as second:
        assert (first, second) == (True, False)


def test_half_made_and_half_removed_runs_are_cleared_away(tmp_path: Path) -> None:
    for name in (".new-20260101-000000-x-1a2b", ".removed-20260101-000000-x-1a2b-ffff"):
        (tmp_path / name / "graphs").mkdir(parents=True)
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (tmp_path / ".new-link").symlink_to(outside)
    run = RunDirectory.create(tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".new-link", run.id])
    assert outside.exists()


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    problems: list[str] = []

    def write(number: int) -> None:
        for _ in range(20):
            try:
                with atomic_path(tmp_path / "a.bin") as scratch:
                    scratch.write_bytes(bytes([number]) * 10_000)
            except GfvizError as error:
                problems.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    deadline = time.monotonic() + 60
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        content = (tmp_path / "a.bin").read_bytes() if (tmp_path / "a.bin").exists() else b""
        assert len(set(content)) <= 1
        assert len(content) in (0, 10_000)
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_new_run_that_a_sweep_takes_for_a_dead_one_is_made_again(tmp_path, monkeypatch):
    """Between making its folder and locking it, another process's sweep may come by."""
    real, taken = foreign.claimed, []

    @contextlib.contextmanager
    def swept(path, wait=False):
        if wait and len(taken) < 2:
            taken.append(path)
            if len(taken) == 1:
                shutil.rmtree(path)  # before it is opened
            else:
                with real(path, wait) as mine:
                    shutil.rmtree(path)  # after it is opened, before it is looked at
                    yield mine
                return
        with real(path, wait) as mine:
            yield mine

    monkeypatch.setattr(foreign, "claimed", swept)
    run = RunDirectory.create(tmp_path, {"a": 1}, name="x")
    assert len(taken) == 2
    assert [path.name for path in tmp_path.iterdir()] == [run.id]
    assert (run.path / "graphs").is_dir()
