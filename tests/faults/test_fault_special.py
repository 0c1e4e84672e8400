"""Files that are no ordinary ones where a small file is looked for: neither waited for nor read without end."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gfviz.errors import GfvizError
from gfviz.files import read_small_text
from gfviz.fusion.cache import read_meta
from gfviz.fusion.config import load_config
from gfviz.runs import RunDirectory, checkpoint_is_whole

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Opening a pipe waits for a writer who never comes: an alarm ends that, and the test."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits for what a pipe's other end would write")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def run_of(path: Path) -> Path:
    made = RunDirectory.create(path, {"a": 1})
    (made.path / "config.yaml").unlink()
    (made.path / "run.json").unlink()
    return made.path


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "run.json": ("run.json", lambda path: RunDirectory(path).record()),
    "tags.json": ("tags.json", lambda path: read_small_text(path / "tags.json")),
    "config.yaml": ("config.yaml", lambda path: RunDirectory(path).config),
    "cache.json": ("cache.json", read_meta),
    "fusion file": ("fuse.yaml", lambda path: load_config(path / "fuse.yaml")),
}


@pytest.mark.parametrize("make", [pipe, device, folder])
@pytest.mark.parametrize("name", READERS)
def test_neither_pipe_nor_device_nor_folder_is_read(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    file, read = READERS[name]
    place = run_of(tmp_path / "runs")
    make(place / file)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GfvizError, match=r"no ordinary file|is a link") as caught:
        read(place)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 50_000, "kB were read"


@pytest.mark.parametrize("make", [pipe, device, folder])
def test_a_checkpoint_whose_marker_is_none_is_not_whole(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "COMPLETE").write_text(json.dumps({"files": {"a.bin": 3}}))
    assert checkpoint_is_whole(tmp_path)
    (tmp_path / "COMPLETE").unlink()
    make(tmp_path / "COMPLETE")
    assert not checkpoint_is_whole(tmp_path)


def test_a_marker_of_another_checkpoint_is_no_marker(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "elsewhere").write_text(json.dumps({"files": {"a.bin": 3}}))
    (tmp_path / "COMPLETE").symlink_to(tmp_path / "elsewhere")
    assert not checkpoint_is_whole(tmp_path)


def test_links_to_ordinary_files_are_followed_where_a_user_names_them(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("pivot: {model: x}\ntraining: {steps: 3}\n")
    (tmp_path / "c.yaml").symlink_to(tmp_path / "real.yaml")
    assert load_config(tmp_path / "c.yaml").training.steps == 3


@pytest.mark.parametrize("size, most, fits", [(8, 8, True), (9, 8, False), (0, 8, True), (3 << 20, 4 << 20, True)])
def test_the_limit_is_the_last_size_that_is_read(tmp_path: Path, size: int, most: int, fits: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    if fits:
        assert read_small_text(path, most) == "x" * size
    else:
        with pytest.raises(GfvizError, match="larger than"):
            read_small_text(path, most)
