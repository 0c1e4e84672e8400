"""Files of 10 GB, folders without permission, links, other formats under our names, configurations that change."""

import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from gfviz.errors import GfvizError
from gfviz.fusion.config import load_config
from gfviz.fusion.data import read_examples
from gfviz.fusion.session import create_run, execute
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory, list_runs
from gfviz.signals import read_logits
from tests.faults.commands import ROOT, environment
from tests.faults.forks import run_child
from tests.faults.parsers import PARSERS, give
from tests.faults.test_fault_disk import graph
from tests.faults.victims import curves, differing, fusion_mapping, zoo

GIGABYTE = 1 << 30
# What is no file: text given as an argument, and rows that are put into a database first.
NO_FILE = {"override", "vocabulary", "run id", "trackio rows"}


def test_a_file_of_ten_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    """Each kind of file, good at its beginning and 10 GB long (sparse): one line, and no memory of that order."""
    import resource

    plain = Path.write_bytes

    def body(tell) -> None:
        torch.set_num_threads(1)  # the parent's other threads are not in its fork: waiting for them never ends
        held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
        limit = int(held.split()[1]) * 1024 + GIGABYTE // 2
        for name, parser in PARSERS.items():
            if name in NO_FILE:
                continue
            content = parser.seeds()[0]

            def long(path: Path, data: bytes, content: bytes = content) -> int:
                written = plain(path, data)
                if data is content:
                    os.truncate(path, 10 * GIGABYTE)
                return written

            Path.write_bytes = long  # type: ignore[method-assign,assignment]
            before = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                tell([name, give(parser, content, Path(folder))])
            resource.setrlimit(resource.RLIMIT_DATA, before)
            Path.write_bytes = plain  # type: ignore[method-assign]

    ended = run_child(body, tmp_path / "log", limit=120)
    assert ended.code == 0, ended.printed[-2000:]
    assert ended.told == [[name, None] for name in PARSERS if name not in NO_FILE]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become somebody else")
def test_without_permission_everything_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "runs", {"a": 1})
    with run.writer() as writer:
        writer.log(1, {"a": 2.0})
    graph().save(tmp_path / "a.safetensors")
    (tmp_path / "secret").mkdir()
    graph().save(tmp_path / "secret" / "a.safetensors")
    (tmp_path / "secret").chmod(0o700)
    (tmp_path / "runs" / "config").write_text("x: 1")
    (tmp_path / "runs" / "config").chmod(0o600)
    # Folders above belong to root alone: let others through to the test's own.
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == 0 and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)

    def body(tell) -> None:
        torch.set_num_threads(1)  # the parent's other threads are not in its fork: waiting for them never ends
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        for attempt in (
            lambda: graph(8).save(tmp_path / "a.safetensors"),
            lambda: graph(8).save(tmp_path / "new" / "a.safetensors"),
            lambda: RunDirectory.create(tmp_path / "runs", {}),
            lambda: RunDirectory.open(run.path).writer(),
            lambda: RunDirectory.open(run.path).set_tags(["x"]),
            lambda: RunDirectory.open(run.path).remove(),
            lambda: load_graph(tmp_path / "secret" / "a.safetensors"),
            lambda: load_config(tmp_path / "runs" / "config"),
            lambda: read_examples([tmp_path / "runs" / "config"]),
        ):
            try:
                attempt()
                tell("done without permission")
            except GfvizError as error:
                tell(str(error))
        tell(RunDirectory.open(run.path).status().state)

    ended = run_child(body, tmp_path.parent / "permission.log", limit=60)
    assert ended.code == 0, ended.printed[-2000:]
    *refused, state = ended.told
    assert all("ermission denied" in line or "readonly" in line for line in refused), refused
    assert all("\n" not in line for line in refused)
    assert state == "finished"
    assert run.reader().latest()["a"][:2] == (1, 2.0)


def test_a_file_saved_over_a_link_leaves_what_the_link_meant(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"somebody's")
    (tmp_path / "a.safetensors").symlink_to(victim)
    made = graph()
    made.save(tmp_path / "a.safetensors")
    assert victim.read_bytes() == b"somebody's"
    assert not (tmp_path / "a.safetensors").is_symlink()
    assert load_graph(tmp_path / "a.safetensors").content_hash == made.content_hash


def test_a_runs_folder_that_is_full_of_links_lists_what_is_its_own(tmp_path: Path) -> None:
    mine = RunDirectory.create(tmp_path / "runs", {})
    other = RunDirectory.create(tmp_path / "elsewhere", {})
    (tmp_path / "runs" / other.id).symlink_to(other.path)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "gone").symlink_to(tmp_path / "nothing")
    assert [run.id for run in list_runs(tmp_path / "runs")] == [mine.id]
    with pytest.raises(GfvizError):
        RunDirectory.find(tmp_path / "runs", other.id).remove()
    assert other.path.is_dir()


BILLION = '<!DOCTYPE l [<!ENTITY a "xxxxxxxxxx">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize("kind", ["zip", "npz", "billion laughs", "xxe", "pickle"])
def test_other_formats_under_our_names_are_refused_and_not_unpacked(tmp_path: Path, kind: str) -> None:
    """No reader of ours looks into archives or XML, whatever the file is called."""
    path = tmp_path / "content"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../evil", b"\0" * (1 << 24))
    elif kind == "npz":
        with open(path, "wb") as file:
            np.savez_compressed(file, logits=np.zeros((64, 4096)), pickled=np.array([{}], dtype=object))
    elif kind == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    else:
        entity = BILLION + "]><graphml>&i;</graphml>"
        outside = '<!DOCTYPE g [<!ENTITY x SYSTEM "file:///etc/passwd">]><graphml>&x;</graphml>'
        path.write_text('<?xml version="1.0"?>' + (entity if kind == "billion laughs" else outside))
    content = path.read_bytes()
    for name, read in (
        ("a.safetensors", load_graph), ("a.npy", read_logits), ("b.safetensors", read_logits),
        ("c.yaml", load_config), ("d.jsonl", lambda file: read_examples([file])), ("e.graphml", load_graph),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GfvizError) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "root:" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path.parent / "evil").exists()


def test_a_configuration_edited_while_its_run_trains_changes_nothing_of_it(one_thread, tmp_path: Path) -> None:
    quick = {"evaluation": {"at_start": False, "at_end": False}, "graph": {"every": 0}}
    mapping = {**fusion_mapping(zoo(tmp_path), tmp_path / "runs", steps=4), **quick}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(mapping))
    left, edited = (create_run(load_config(path)) for _ in range(2))
    execute(left)

    def edit(event) -> None:
        if event.kind == "checkpoint" and event.step == 2:
            path.write_text(yaml.safe_dump({**mapping, "training": {**mapping["training"], "steps": 3}}))
            path.write_text("training: {steps")

    execute(edited, edit)
    assert edited.status().step == 4
    assert differing(curves(left), curves(edited)) == []


def test_the_same_configuration_launched_from_many_tabs_makes_as_many_runs(tmp_path: Path) -> None:
    config = load_config(_written(tmp_path / "c.yaml", fusion_mapping(zoo(tmp_path), tmp_path / "runs")))
    made: list[RunDirectory] = []
    tabs = [threading.Thread(target=lambda: made.append(create_run(config))) for _ in range(8)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len({run.id for run in made}) == 8
    assert {run.id for run in list_runs(tmp_path / "runs")} == {run.id for run in made}
    assert all(run.status().state == "queued" for run in made)


def _written(path: Path, mapping: dict) -> Path:
    path.write_text(yaml.safe_dump(mapping))
    return path


def test_a_reader_that_watches_for_long_keeps_its_memory(tmp_path: Path) -> None:
    """A page that asks a growing run again and again, five hundred times, holds no more at the end."""
    import tracemalloc

    run = RunDirectory.create(tmp_path, {})
    with run.writer() as writer, run.reader() as reader:
        held = []
        for turn in range(500):
            writer.log(turn, {"loss/total": 1.0 / (1 + turn)})
            writer.flush()
            reader.status(), reader.latest(), reader.series("loss/total", after_step=turn - 5), reader.newest_events(20)
            if turn == 100:
                tracemalloc.start()
            if turn in (150, 499):
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] - held[0] < 100_000


def test_a_command_that_fails_prints_no_secret_and_no_traceback(tmp_path: Path) -> None:
    secret = "hf_plantedSecretOfTheCommandLine"
    paths = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    Path(paths[0]).write_bytes(b"\0" * 64)
    done = subprocess.run(
        [sys.executable, "-m", "gfviz.cli", "compare", *paths],
        cwd=ROOT, env={**environment(), "HF_TOKEN": secret, "GITHUB_TOKEN": secret}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 2
    assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
