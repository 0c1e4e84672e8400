"""Several processes on CPUs: a routed teacher, shared captures and caches, what only the first may do."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import gfviz as gv
from gfviz.capture.texts import read_texts
from gfviz.errors import GfvizError
from gfviz.fusion import session
from gfviz.fusion.cache import build_cache, shard_path
from gfviz.fusion.cached import CachedTeacher, open_cache
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import read_examples, write_examples
from gfviz.fusion.launch import _terminate, launch_command, worker_command
from gfviz.fusion.recipes import accelerate_path
from gfviz.fusion.shares import cache_shared, capture_shared
from gfviz.fusion.teachers import OnlineTeacher
from gfviz.runs import RunDirectory
from gfviz.runs.identity import ProcessIdentity
from tests.fusion.comparing import assert_same_training
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums


def trained(config: dict, processes: int) -> RunDirectory:
    run = session.create_run(parse_config(config))
    done = subprocess.run(
        worker_command(run, processes), capture_output=True, text=True, timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert run.status().state == "finished"
    return run


def assert_same_shard(first: Path, second: Path, number: int) -> None:
    ours, theirs = (load_file(shard_path(folder, number)) for folder in (first, second))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_processes_with_a_routed_teacher_train_as_one(zoo, tmp_path: Path) -> None:
    """A routed teacher that one process may have no example for, evaluation, graphs, checkpoints, the saved model."""
    write_examples(tmp_path / "train.jsonl", sums())
    write_examples(tmp_path / "eval.jsonl", sums(6))
    files = {"train": [str(tmp_path / "train.jsonl")], "evaluation": [str(tmp_path / "eval.jsonl")]}
    runs = []
    for processes, size in ((1, 4), (2, 2)):
        config = settings(
            zoo, tmp_path, teachers=("other", "twin"), data=files, loss={"structure": "spectral", "beta": 1.0},
            training={"steps": 4, "batch_size": size, "log_every": 1, "checkpoint_every": 2},
            graph={"every": 2, "examples": 4},
        )  # fmt: skip
        config["teachers"][0]["domains"] = ["sum"]
        config["evaluation"]["at_end"] = True
        runs.append(trained(config, processes))
    facts = runs[1].record().facts
    assert (facts["distributed"], facts["world_size"]) == ("MULTI_CPU", 2)
    names = ("loss/total", "loss/other/token", "loss/twin/structure", "grad_norm", "graph/twin/upper", "eval/nll")
    assert_same_training(runs[0], runs[1], names)
    assert json.loads((runs[1].model_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert [step for step, _ in runs[1].checkpoints()] == [2, 4]


SHARDS = """
import torch
import torch.distributed as dist
from types import SimpleNamespace
from gfviz.fusion.sharding import shard_frozen
from tests.fusion.tiny import make_model
torch.set_num_threads(1)
dist.init_process_group("gloo")
ids = torch.arange(12).reshape(2, 6)
for kind in ("gpt2", "llama"):
    model = make_model(kind, 60).eval().requires_grad_(False)
    with torch.no_grad():
        whole = model(ids).logits
        shard_frozen(model, SimpleNamespace(device=torch.device("cpu"), num_processes=2))
        parts = sum(p.to_local().numel() for p in model.parameters())
        total = sum(p.numel() for p in model.parameters())
        assert parts <= 0.55 * total, (parts, total)
        mine = slice(dist.get_rank(), dist.get_rank() + 1)
        torch.testing.assert_close(model(ids[mine]).logits, whole[mine])
print("whole and in shards agree")
dist.destroy_process_group()
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_frozen_model_in_fsdp2_shards_gives_the_same_logits(tmp_path: Path) -> None:
    """Two gloo processes, torch's own sharding: each holds half, each reads an example of its own."""
    (tmp_path / "shards.py").write_text(SHARDS)
    home = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        launch_command([str(tmp_path / "shards.py")], 2), capture_output=True, text=True, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("whole and in shards agree") == 2


@pytest.mark.long
@pytest.mark.timeout(900)
def test_pairwise_and_answers_with_two_processes(zoo, tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", sums(8))
    data = {"train": [str(tmp_path / "train.jsonl")]}
    common = {"training": {"steps": 2, "batch_size": 2}}
    pairs = trained(settings(zoo, tmp_path, ("other", "twin"), data=data, mode="pairwise", **common), 2)
    assert len(list((pairs.path / "pairs").glob("*/run.json"))) == 2
    data = {**data, "answers_from": "other", "max_answer_tokens": 6}
    taught = trained(settings(zoo, tmp_path, data=data, **common), 2)
    assert read_examples([taught.path / "data" / "answers.jsonl"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_processes_cache_and_capture_what_one_does(zoo, tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", sums())
    files = [tmp_path / "train.jsonl"]
    options = {"k": 16, "device": "cpu", "batch_size": 4}
    alone = build_cache(str(zoo["other"]), sums(), tmp_path / "one", shard_examples=5, **options)
    both = cache_shared(str(zoo["other"]), files, tmp_path / "two", 2, shard_examples=5, **options)
    assert (both.tokens, both.bytes, both.reused_shards) == (alone.tokens, alone.bytes, 0)
    for number in range(5):
        assert_same_shard(alone.folder, both.folder, number)
    assert (alone.folder / "cache.json").read_text() == (both.folder / "cache.json").read_text()
    with pytest.raises(GfvizError, match="capture into another folder"):
        cache_shared(str(zoo["other"]), files, tmp_path / "two", 2, shard_examples=5, **{**options, "k": 8})
    for nodes in ("rank", "token"):
        chosen = {"k": 16, "nodes": nodes}
        whole = gv.capture(str(zoo["pivot"]), read_texts(files[0]), device="cpu", **chosen)
        shared = capture_shared(str(zoo["pivot"]), files, 2, device="cpu", **chosen)
        assert shared.positions == whole.positions
        assert list(shared.keys) == list(whole.keys)
        np.testing.assert_allclose(shared.dense(), whole.dense(), rtol=1e-5, atol=1e-9)


def test_shares_of_a_cache_make_the_whole(zoo, tmp_path: Path) -> None:
    for part in ((1, 2), (0, 2)):
        build_cache(zoo["other"], sums(), tmp_path / "two", k=8, shard_examples=5, part=part)
    build_cache(zoo["other"], sums(), tmp_path / "one", k=8, shard_examples=5)
    for number in range(5):
        assert_same_shard(tmp_path / "one", tmp_path / "two", number)


def test_a_cache_is_read_in_bounded_memory(zoo, tmp_path: Path) -> None:
    build_cache(zoo["other"], sums(), tmp_path / "c", k=8, shard_examples=5)
    options = {"dtype": "float16", "temperature": 1.0, "chat_template": False}
    roomy, _ = open_cache("t", tmp_path / "c", sums(), **options)
    narrow = CachedTeacher("t", tmp_path / "c", roomy.meta, memory=0)
    middle = CachedTeacher("t", tmp_path / "c", roomy.meta, memory=4000)
    for index in (23, 0, 7, 7, 11, 4, 19):
        rows = [teacher.row(index) for teacher in (roomy, narrow, middle)]
        for first, second, third in zip(*rows):
            assert torch.equal(first, second)
            assert torch.equal(first, third)
    assert narrow.held == 0
    assert 0 < middle.held <= 4000 < roomy.held
    # A file that is another after it was checked is noticed.
    shard_path(tmp_path / "c", 0).unlink()
    shard_path(tmp_path / "c", 0).write_bytes(b"x" * 100)
    with pytest.raises(GfvizError, match="missing or damaged"):
        narrow.row(0)


def test_other_processes_wait_for_the_answers_of_the_first(zoo, tmp_path: Path, monkeypatch) -> None:
    """A file that appears between two looks must not leave a process with the answers of the data."""
    monkeypatch.setenv("RANK", "1")
    config = parse_config(settings(zoo, tmp_path, data={"answers_from": "other"}))
    run = session.create_run(config, sums(4))
    monkeypatch.setattr(session, "_answers", lambda *_: pytest.fail("only the first process asks the teacher"))
    seen = {}

    def prepare(_config, train, _evaluation):
        seen["train"] = train
        raise GfvizError("far enough")

    monkeypatch.setattr(session, "prepare", prepare)
    timer = threading.Timer(0.5, write_examples, (run.path / session.ANSWERS, sums(2)))
    timer.start()
    with pytest.raises(GfvizError, match="far enough"):
        session.execute(run)
    assert seen["train"] == sums(2)


def test_a_sharded_teacher_reads_once_per_batch_with_or_without_examples(zoo, tmp_path: Path) -> None:
    from gfviz.fusion.prepare import prepare

    prepared = prepare(parse_config(settings(zoo, tmp_path)), sums(6), [])
    part = prepared.collator(prepared.train)["teachers"]["other"]
    teacher = prepared.online[0]
    alone = teacher.signals(part)
    calls = []
    teacher.model.register_forward_hook(lambda *_: calls.append(1))
    teacher.idle()
    assert not calls
    teacher.collective = True
    together = teacher.signals(part)
    teacher.idle()
    assert len(calls) == 2
    assert isinstance(teacher, OnlineTeacher)
    mask = alone.signal.mask
    torch.testing.assert_close(alone.signal.probs()[mask], together.signal.probs()[mask], rtol=2e-3, atol=1e-5)


def test_a_number_that_now_belongs_to_another_is_not_signalled() -> None:
    """The process of that number was created at another time than the run's."""
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        right = ProcessIdentity.of(sleeper.pid)
        wrong = ProcessIdentity.of()._replace(pid=sleeper.pid, ticks=1, created=1.0)
        assert _terminate(wrong) is False
        assert sleeper.poll() is None
        assert _terminate(right) is True
        assert sleeper.wait(10) == -signal.SIGTERM
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_launcher_that_a_configuration_names() -> None:
    command = launch_command(["-m", "x"], 4, "zero2")
    assert command[1:3] == ["-m", "accelerate.commands.launch"]
    assert command[command.index("--config_file") + 1] == str(accelerate_path("zero2"))
    assert command[command.index("--num_processes") + 1] == "4"
