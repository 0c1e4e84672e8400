"""Shared tiny models; one thread, so that sums have one order."""

from pathlib import Path

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
