"""Shared tiny models; one thread, so that sums have one order."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fusion.tiny import save_tiny


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """For every test of the folder."""


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """pivot (byte-level Llama), other (Metaspace GPT-2), twin (the pivot's tokenizer, Qwen2)."""
    root = tmp_path_factory.mktemp("zoo")
    return {
        "pivot": save_tiny(root / "pivot", "llama", "byte-level"),
        "other": save_tiny(root / "other", "gpt2", "metaspace-bpe", seed=1),
        "twin": save_tiny(root / "twin", "qwen2", "byte-level", seed=2),
    }


@pytest.fixture
def ends_workers(tmp_path: Path) -> Iterator[None]:
    """Ends the processes of a session of their own that the test started on its folder, however the test ended."""
    yield
    started = [child for child in psutil.Process().children(recursive=True) if _named_in(child, str(tmp_path))]
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(started, 10)


def _named_in(process: psutil.Process, folder: str) -> bool:
    try:
        return folder in " ".join(process.cmdline())
    except psutil.Error:
        return False
