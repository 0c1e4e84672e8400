"""Launching: how a run was started is kept for its resume, mistakes leave no run, several machines share one run."""

import gc
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gfviz.cli import app
from gfviz.errors import GfvizError
from gfviz.fusion import fuse, launcher, resume
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.launch import join_run, launch_detached, launch_resume, stop
from gfviz.fusion.recipes import accelerate_path
from gfviz.fusion.session import create_run
from gfviz.runs import RunDirectory, list_runs
from gfviz.runs.identity import ProcessIdentity
from tests.fusion.comparing import assert_same_training
from tests.fusion.test_fusion_trainer import poison, settings, wait
from tests.fusion.tiny import sums

CPUS = {"distributed_type": "MULTI_CPU", "use_cpu": True, "num_processes": 2, "mixed_precision": "no"}


def written(zoo, folder: Path, **changes) -> dict:
    """A configuration whose data are files."""
    write_examples(folder / "train.jsonl", sums())
    return settings(zoo, folder, data={"train": [str(folder / "train.jsonl")]}, **changes)


def accelerate(folder: Path, name: str = "accelerate.yaml", **settings) -> Path:
    path = folder / name
    path.write_text(json.dumps(settings))
    return path


def machine(folder: Path, number: int, port: int = 29500) -> Path:
    """Accelerate's configuration of one of two machines with one process each."""
    place = {"num_machines": 2, "machine_rank": number, "main_process_ip": "127.0.0.1", "main_process_port": port}
    return accelerate(folder, f"machine{number}.yaml", **CPUS, **place)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been started, less this Python."""
    commands: list[list[str]] = []

    class Popen:
        pid = ProcessIdentity.of().pid
        returncode = 0

        def __init__(self, command, **_options) -> None:
            commands.append(command[1:])

        def poll(self) -> int:
            return 0

    monkeypatch.setattr("gfviz.fusion.launch.subprocess.Popen", Popen)
    return commands


def end(run: RunDirectory, state: str = "stopped") -> None:
    """As the worker leaves a run that was stopped."""
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "state": state, "process": None}))


def contents(run: RunDirectory) -> dict[Path, bytes]:
    """All of a run but what SQLite's readers share; those that nobody holds any more are closed."""
    gc.collect()
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and "-shm" not in path.name}


def test_a_run_is_resumed_as_it_was_launched(zoo, tmp_path: Path, started) -> None:
    """The configuration is the run's own: that of the launch may be changed or gone."""
    given = accelerate(tmp_path, **CPUS)
    run = launch_detached(written(zoo, tmp_path), accelerate_config=given)
    first = started[-1]
    assert first[:3] == ["-m", "torch.distributed.run", "--standalone"]
    assert first[first.index("--nproc-per-node") + 1] == "2"
    given.unlink()
    end(run)
    launch_resume(run)
    assert started[-1] == first
    shards = launch_detached(written(zoo, tmp_path), accelerate_config="fsdp2", processes=4)
    kept = shards.path / "accelerate.yaml"
    assert kept.read_bytes() == accelerate_path("fsdp2").read_bytes()
    assert started[-1][:4] == ["-m", "accelerate.commands.launch", "--config_file", str(kept)]
    assert started[-1][started[-1].index("--num_processes") + 1] == "4"
    end(shards)
    done = CliRunner().invoke(app, ["runs", "resume", str(shards.path), "--detach"])
    assert done.exit_code == 0, done.output
    assert started[-1] == started[-2]


def test_a_resume_is_told_otherwise_and_that_is_kept(zoo, tmp_path: Path, started) -> None:
    run = launch_detached(written(zoo, tmp_path), processes=2)
    end(run)
    other = accelerate(tmp_path, **{**CPUS, "num_processes": 3})
    done = CliRunner().invoke(app, ["runs", "resume", str(run.path), "--detach", "--accelerate-config", str(other)])
    assert done.exit_code == 0, done.output
    assert started[-1][started[-1].index("--nproc-per-node") + 1] == "3"
    end(run)
    launch_resume(run)
    assert started[-1] == started[-2]


def test_deepspeeds_file_is_kept_too(zoo, tmp_path: Path, started, monkeypatch) -> None:
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _name: object())
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    options = {"deepspeed_config_file": str(tmp_path / "ds.json"), "deepspeed_multinode_launcher": "standard"}
    given = accelerate(tmp_path, distributed_type="DEEPSPEED", num_processes=4, deepspeed_config=options)
    run = launch_detached(written(zoo, tmp_path), accelerate_config=given)
    (tmp_path / "ds.json").unlink()
    end(run)
    launch_resume(run)
    assert started[-1] == started[-2]
    kept = Path(started[-1][started[-1].index("--deepspeed_config_file") + 1])
    assert json.loads(kept.read_text()) == {"zero_optimization": {"stage": 3}}
    assert run.path in kept.parents


def test_another_number_of_processes_is_refused_before_anything_changes(zoo, tmp_path: Path, started) -> None:
    run = fuse(settings(zoo, tmp_path, training={"steps": 2, "checkpoint_every": 1}), train=sums())
    end(run)
    before = contents(run)
    done = CliRunner().invoke(app, ["runs", "resume", str(run.path), "--processes", "2"])
    assert isinstance(done.exception, GfvizError)
    assert "written by 1 process and cannot be resumed by 2: pass --processes 1" in str(done.exception)
    with pytest.raises(GfvizError, match="cannot be resumed by 2"):
        launch_resume(run, accelerate_config=accelerate(tmp_path, **CPUS))
    assert started == []
    assert contents(run) == before


def test_who_may_not_go_on_leaves_the_facts_as_they_are(zoo, tmp_path: Path) -> None:
    run = fuse(settings(zoo, tmp_path, training={"steps": 2, "checkpoint_every": 1}), train=sums())
    state = run.checkpoints()[-1][1] / "fusion.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "world_size": 4}) + "\n")
    record = json.loads((run.path / "run.json").read_text())
    record["facts"]["world_size"] = 4
    (run.path / "run.json").write_text(json.dumps({**record, "state": "stopped"}))
    with pytest.raises(GfvizError, match="written by 4 processes"):
        resume(run)
    assert run.record().facts == record["facts"]
    assert run.reader().series("loss/total").steps.tolist() == [1, 2]


def test_a_pair_that_was_begun_is_asked_too(zoo, tmp_path: Path, started) -> None:
    run = create_run(parse_config(written(zoo, tmp_path, teachers=("other", "twin"), mode="pairwise")))
    pair = settings(zoo, tmp_path, training={"steps": 2, "checkpoint_every": 1}, runs=str(run.path / "pairs"))
    end(fuse(pair, train=sums()))
    end(run)
    with pytest.raises(GfvizError, match="written by 1 process and cannot be resumed by 2"):
        launch_resume(run, processes=2)


MISTAKES = {
    "no such file": ({}, "nowhere.yaml", "no Accelerate configuration at nowhere"),
    "no YAML": ({}, "a: [", "is not readable YAML"),
    "unknown key": ({}, json.dumps({**CPUS, "colour": 1}), r"Accelerate refuses it: .*colour"),
    "no number": ({}, "distributed_type: MULTI_GPU", "num_processes is None: pass --processes"),
    "no DeepSpeed": ({}, "zero3", "DeepSpeed is not installed"),
    "no address": ({}, json.dumps({**CPUS, "num_machines": 2}), "main_process_ip and main_process_port: set it"),
    "no such machine": ({}, json.dumps({**CPUS, "machine_rank": 1}), "machines are numbered from 0"),
    "no data": ({"data.evaluation": "none.jsonl"}, None, "cannot read the data file none.jsonl"),
    "no DeepSpeed file": ({"training.deepspeed": "none.json"}, None, r"training\.deepspeed: cannot read none\.json"),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_a_mistake_at_the_launch_leaves_no_run(zoo, tmp_path: Path, started, monkeypatch, which: str) -> None:
    monkeypatch.chdir(tmp_path)
    changes, given, words = MISTAKES[which]
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda _name: None)
    config = written(zoo, tmp_path)
    if "data.evaluation" in changes:
        config["data"]["evaluation"] = [changes["data.evaluation"]]
    config["training"]["deepspeed"] = changes.get("training.deepspeed")
    if given is not None and not given.endswith("yaml") and given != "zero3":
        Path("given.yaml").write_text(given)
        given = "given.yaml"
    with pytest.raises(GfvizError, match=words) as caught:
        launch_detached(config, accelerate_config=given)
    assert "\n" not in str(caught.value)
    assert started == []
    assert not (tmp_path / "runs").exists()


def test_only_the_first_machine_makes_the_run(zoo, tmp_path: Path, started) -> None:
    first, second = machine(tmp_path, 0), machine(tmp_path, 1)
    with pytest.raises(GfvizError, match=rf"gfviz fuse --join RUN --accelerate-config {second}"):
        launch_detached(written(zoo, tmp_path), accelerate_config=second)
    assert not (tmp_path / "runs").exists()
    run = launch_detached(written(zoo, tmp_path), accelerate_config=first)
    assert started[-1][started[-1].index("--node-rank") + 1] == "0"
    record = (run.path / "run.json").read_bytes()
    join_run(run, second)
    assert started[-1] == [word if place != started[-1].index("--node-rank") + 1 else "1" for place, word in
                           enumerate(started[-2])]  # fmt: skip
    assert (run.path / "run.json").read_bytes() == record
    for wrong, words in (
        (first, "machine_rank is 0"),
        (accelerate(tmp_path, **{**json.loads(second.read_text()), "num_processes": 4}), "make them the same"),
    ):
        with pytest.raises(GfvizError, match=words):
            join_run(run, wrong)
    end(run)
    with pytest.raises(GfvizError, match="resumed by machine 0"):
        launch_resume(run, accelerate_config=second)
    alone = launch_detached(written(zoo, tmp_path))
    with pytest.raises(GfvizError, match="on one machine: there is nothing to join"):
        join_run(alone, second)
    assert len(started) == 3


def test_the_app_resumes_as_it_was_launched(zoo, tmp_path: Path, started, monkeypatch) -> None:
    pytest.importorskip("streamlit")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "app"))
    from gfvizui import runactions

    run = launch_detached(written(zoo, tmp_path), accelerate_config=machine(tmp_path, 0))
    end(run)
    said: list[str] = []
    monkeypatch.setattr(runactions.st, "toast", lambda text, **_options: said.append(text))
    runactions.resume(run)
    assert started[-1] == started[-2]
    assert "fuse" in said[0]
    assert "1 more" in said[0]


def test_a_skipped_step_is_said_once(zoo, tmp_path: Path, capsys) -> None:
    from gfviz.console import fusion_progress

    config = settings(zoo, tmp_path, teachers=(), training={"steps": 1, "max_bad_steps": 3})
    config["teachers"] = [{"name": "bad", "model": str(poison(zoo["other"], tmp_path / "bad"))}]
    with fusion_progress("fuse") as on_event:
        fuse(config, train=sums(), on_event=on_event)
    assert capsys.readouterr().err.count("step 1 skipped:") == 1


def gfviz(*words: object) -> subprocess.Popen[str]:
    home = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "gfviz.cli", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home},
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_machines_train_one_run_as_one_process_would(zoo, tmp_path: Path, ends_workers) -> None:
    """Two launches with a process each that find each other by an address; one writes the run."""
    steps = {"steps": 4, "log_every": 1, "checkpoint_every": 2}
    common = {"loss": {"structure": "spectral", "beta": 1.0}}
    alone = fuse(written(zoo, tmp_path, training={**steps, "batch_size": 4}, **common))
    port = free_port()
    config = written(zoo, tmp_path, training={**steps, "batch_size": 2}, **common)
    (tmp_path / "fusion.yaml").write_text(json.dumps(config))
    first = gfviz("fuse", tmp_path / "fusion.yaml", "--accelerate-config", machine(tmp_path, 0, port))
    wait(lambda: len(list_runs(tmp_path / "runs")) == 2)
    run = next(found for found in list_runs(tmp_path / "runs") if found.id != alone.id)
    second = gfviz("fuse", "--join", run.path, "--accelerate-config", machine(tmp_path, 1, port))
    said = [process.communicate(timeout=600)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), (said, run.log_path.read_text()[-3000:])
    assert "--join" in said[0]
    assert len(list_runs(tmp_path / "runs")) == 2
    facts = run.record().facts
    assert (run.status().state, facts["world_size"], facts["distributed"]) == ("finished", 2, "MULTI_CPU")
    assert_same_training(alone, run, ("loss/total", "loss/other/token", "loss/other/structure", "grad_norm"))
    assert run.reader().series("loss/total").steps.tolist() == [1, 2, 3, 4]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_processes_are_stopped_and_go_on_as_two(zoo, tmp_path: Path, ends_workers, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = written(zoo, tmp_path, training={"steps": 100000, "batch_size": 2})
    run = launch_detached(config, accelerate_config=accelerate(tmp_path, **CPUS))
    (tmp_path / "accelerate.yaml").unlink()
    wait(lambda: run.status().step >= 4, 240)
    assert stop(run, timeout=120)
    reached = run.checkpoints()[-1][0]
    launch_resume(run)
    wait(lambda: run.status().step > reached, 240)
    assert run.record().facts["world_size"] == 2
    assert stop(run, timeout=120)
    time.sleep(1)
    assert run.status().state == "stopped"


@pytest.mark.parametrize(
    ("launch", "accelerate_file", "reason"),
    [
        ({"processes": 900_000}, None, "900000 processes are more than this machine should start"),
        ({"processes": 2}, {**CPUS, "mpirun_config": {"mpirun_hostfile": "/x"}}, "mpirun_config is not taken from a"),
        ({"processes": 2}, {**CPUS, "commands": ["touch /x"]}, "commands is not taken from a run"),
    ],
)
def test_a_strangers_run_does_not_say_what_is_started(
    zoo, tmp_path: Path, started, launch: dict, accelerate_file: dict | None, reason: str
) -> None:
    run = create_run(parse_config(written(zoo, tmp_path)))
    (run.path / launcher.RECORD).write_text(json.dumps(launch))
    if accelerate_file is not None:
        (run.path / launcher.ACCELERATE).write_text(json.dumps(accelerate_file))
    with pytest.raises(GfvizError, match=reason):
        launch_resume(run)
    assert started == []
