"""Full, read-only, forbidden and slow disks: one clear line, the last good state kept, the reason in the run."""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_bytes
from gfviz.fusion.cache import build_cache, shard_path
from gfviz.fusion.callback import FusionEvent
from gfviz.fusion.config import parse_config
from gfviz.fusion.session import create_run, execute, resume
from gfviz.fusion.worker import print_event
from gfviz.graph import CoactivationGraph, load_graph
from gfviz.runs import RunDirectory, RunWriter
from gfviz.signals import TopKLogits
from tests.faults.disks import failing, fill, read_only, slow, small_disk
from tests.faults.victims import curves, differing, fusion_mapping, leftovers, zoo
from tests.fusion.tiny import sums

QUIET = {"evaluation": {"at_start": False, "at_end": False}, "graph": {"every": 0}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """For every test here."""


def graph(k: int = 4, positions: int = 400) -> CoactivationGraph:
    torch.manual_seed(k)
    return CoactivationGraph.from_signal(TopKLogits.from_logits(torch.randn(positions, 64), k=k))


def test_a_graph_on_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        old = graph(2, 50)
        old.save(disk / "a.safetensors")
        fill(disk, 4096)
        with pytest.raises(GfvizError, match=r"cannot write .*No space left|cannot write .*space") as caught:
            graph(32, 4000).save(disk / "a.safetensors")
        assert "\n" not in str(caught.value)
        assert load_graph(disk / "a.safetensors").content_hash == old.content_hash
        assert leftovers(disk) == []


def test_a_cache_on_a_full_disk_goes_on_where_there_is_room_again(models, tmp_path: Path) -> None:
    def capture(folder: Path) -> None:
        build_cache(str(models["teacher"]), sums(), folder, k=256, shard_examples=4)

    capture(tmp_path / "whole")
    size = shard_path(tmp_path / "whole", 0).stat().st_size
    with small_disk(tmp_path / "disk", 4096) as disk:
        stop = RuntimeError("full")

        def until_second(done: int, _total: int) -> None:
            if done >= 8:
                fill(disk, size // 2)
                raise stop

        with pytest.raises(RuntimeError):
            build_cache(str(models["teacher"]), sums(), disk / "c", k=256, shard_examples=4, on_progress=until_second)
        with pytest.raises(GfvizError, match="cannot write") as caught:
            capture(disk / "c")
        assert "\n" not in str(caught.value)
        assert [shard_path(disk / "c", n).is_file() for n in range(3)] == [True, True, False]
        assert leftovers(disk / "c") == []
        (disk / "ballast").unlink()
        report = build_cache(str(models["teacher"]), sums(), disk / "c", k=256, shard_examples=4)
        assert report.reused_shards == 2


def test_a_disk_that_fills_during_training_keeps_the_last_checkpoint_and_says_why(models, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8192) as disk:
        mapping = {**fusion_mapping(models, disk / "runs", steps=6, keep_checkpoints=1), **QUIET}
        run = create_run(parse_config(mapping))

        def fill_after_first(event) -> None:
            if event.kind == "checkpoint" and event.step == 2:
                fill(disk)

        with pytest.raises(GfvizError, match=r"cannot write the checkpoint.*the last one is kept"):
            execute(run, fill_after_first)
        status = run.status()
        assert status.state == "failed"
        assert "cannot write the checkpoint" in status.reason
        assert [step for step, _ in run.checkpoints()] == [2]
        (disk / "ballast").unlink()
        resume(run)
        assert run.status().state == "finished"
        assert leftovers(run.path) == []
        whole = create_run(parse_config({**mapping, "runs": str(tmp_path / "runs")}))
        execute(whole)
        assert differing(curves(whole), curves(run)) == []


@pytest.mark.parametrize("policy", ["continue", "stop"])
def test_training_goes_on_or_stops_where_only_the_store_fails(models, tmp_path: Path, policy: str, monkeypatch) -> None:
    mapping = {**fusion_mapping(models, tmp_path / "runs", steps=6), **QUIET, "store": {"on_failure": policy}}
    run = create_run(parse_config(mapping))
    plain = RunWriter._commit
    full = [False]

    def commit(writer: RunWriter) -> None:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        plain(writer)

    def hook(event) -> None:
        # Full from the first checkpoint on, with room again just before the last step.
        if event.kind == "checkpoint":
            full[0] = event.step == 2

    monkeypatch.setattr(RunWriter, "_commit", commit)
    if policy == "continue":
        execute(run, hook)
        assert run.status().state == "finished"
        assert run.reader().series("loss/total").steps.tolist() == [1, 2, 3, 4, 5, 6]
        return
    with pytest.raises(GfvizError, match=r"metrics store .* cannot be written"):
        execute(run, hook)
    monkeypatch.undo()
    assert run.status().state == "failed"
    assert "cannot be written" in run.status().reason
    assert [step for step, _ in run.checkpoints()] == [2]
    resume(run)
    assert run.reader().series("loss/total").steps.tolist() == [1, 2, 3, 4, 5, 6]


def test_the_reason_is_kept_on_a_disk_without_a_byte_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2048) as disk:
        run = RunDirectory.create(disk / "runs", {"a": 1})

        def work() -> None:
            with run.writer() as writer:
                for step in range(100):
                    writer.log(step, {"a": 1.0})
                writer.flush()
                fill(disk)
                raise RuntimeError("all went wrong")

        with pytest.raises(RuntimeError, match="all went wrong"):
            work()
        status = run.status()
        assert (status.state, status.reason) == ("failed", "RuntimeError: all went wrong")
        assert len(run.reader().series("a").steps) == 100


def test_a_store_that_cannot_drop_rows_is_left_as_it_was(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, {})
    writer = run.writer()
    for step in range(50):
        writer.log(step, {"a": 1.0})
    writer.flush()
    # What fails in between, as a full disk would: the generation's row cannot be written.
    writer._database.execute(
        "CREATE TEMP TRIGGER t BEFORE UPDATE ON main.state WHEN new.key = 'generation' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    writer._database.execute("INSERT INTO state VALUES ('generation', 0)")
    with pytest.raises(GfvizError, match="cannot drop rows"):
        writer.truncate_after(10)
    assert not writer._database.in_transaction, "a transaction left open would take every later row with it"
    writer._database.execute("DROP TRIGGER t")
    writer.log(50, {"a": 2.0})
    writer.flush()
    assert len(run.reader().series("a").steps) == 51
    writer.truncate_after(10)
    assert len(run.reader().series("a").steps) == 11
    writer.finish("finished")


def test_a_read_only_disk_is_one_line_and_can_be_read(models, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", {"a": 1})
    with run.writer() as writer:
        writer.log(1, {"a": 2.0})
    graph().save(tmp_path / "g" / "a.safetensors")
    with read_only(tmp_path):
        lines = []
        for attempt in (
            lambda: graph(8).save(tmp_path / "g" / "a.safetensors"),
            lambda: RunDirectory.create(tmp_path / "runs", {}),
            lambda: run.writer(),
            lambda: run.set_tags(["x"]),
            lambda: run.remove(),
            lambda: build_cache(str(models["teacher"]), sums(4), tmp_path / "c", k=4),
            lambda: atomic_write_bytes(tmp_path / "x", b""),
        ):
            with pytest.raises(GfvizError, match=r"Read-only|read-only|readonly") as caught:
                attempt()
            lines.append(str(caught.value))
        assert all("\n" not in line for line in lines)
        assert run.reader().latest()["a"][:2] == (1, 2.0)
        assert run.status().state == "finished"
        assert load_graph(tmp_path / "g" / "a.safetensors").n == graph().n


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_every_error_of_a_write_is_one_line_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    old = graph(2)
    old.save(tmp_path / "a.safetensors")
    run = RunDirectory.create(tmp_path / "runs", {"a": 1})
    with failing(monkeypatch, call, number):
        for attempt in (lambda: graph(8).save(tmp_path / "a.safetensors"), lambda: run.set_tags(["x"])):
            with pytest.raises(GfvizError, match=os.strerror(number)) as caught:
                attempt()
            assert "\n" not in str(caught.value)
        with pytest.raises(GfvizError, match="cannot make a run"):
            RunDirectory.create(tmp_path / "runs", {})
    assert load_graph(tmp_path / "a.safetensors").content_hash == old.content_hash
    assert run.tags == ()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.id]
    assert leftovers(tmp_path) == []


def test_validate_on_a_full_disk_says_so_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gfviz.study.validate.runner import _kept

    with failing(monkeypatch, "fsync", errno.ENOSPC), pytest.raises(GfvizError, match="No space left"):
        _kept(tmp_path / "cells" / "a.json", lambda: [{"a": 1}])
    assert leftovers(tmp_path) == []
    assert _kept(tmp_path / "cells" / "a.json", lambda: [{"a": 2}]) == [{"a": 2}]


def test_a_slow_disk_is_only_slow(models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = {**fusion_mapping(models, tmp_path / "runs", steps=2), **QUIET}
    runs = [create_run(parse_config(mapping)) for _ in range(2)]
    execute(runs[0])
    with slow(monkeypatch, 0.02):
        execute(runs[1])
    first, second = map(curves, runs)
    for name, (_, values) in first.items():
        np.testing.assert_array_equal(values, second[name][1])


def test_a_log_on_a_full_disk_does_not_stop_training() -> None:
    """The worker's standard output is a file of the run; /dev/full is one that is always full."""
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails, as it must
    with contextlib.redirect_stdout(full):
        print_event(FusionEvent("step", 1, 3, {"a": 1.0}))
    with pytest.raises(OSError, match="No space"):
        full.close()
