"""What identifies a model, and what survives a file of examples."""

import json
import shutil

import pytest

from gfviz.capture.models import load_tokenizer
from gfviz.errors import GfvizError
from gfviz.fusion import Example, fuse, read_examples, resume, saving, write_examples
from gfviz.runs import RunDirectory
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import power_cut, sums


def test_examples_survive_the_file_whatever_they_hold(tmp_path):
    items = [Example("a\x00", "b\u2028c\r\n", None, "x"), Example("é 🙂", "<script>", "t", "y")]
    write_examples(tmp_path / "e.jsonl", items)
    assert read_examples([tmp_path / "e.jsonl"]) == items


def test_models_that_differ_anywhere_have_different_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_WHOLE_HASH_BYTES", 1000)
    monkeypatch.setattr(saving, "_BLOCK", 16)
    hashes = set()
    for number, at in enumerate((None, 0, 31 * 64 + 3, 63 * 64 + 5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = bytearray(64 * 64)
        if at is not None:
            content[at] = 1
        (folder / "model.safetensors").write_bytes(content)
        hashes.add(saving.model_hash(str(folder)))
    assert len(hashes) == 4
    assert saving.model_hash("owner/name") == "hub:owner/name"
    assert saving.model_hash("owner/other") != "hub:owner/name"


def test_a_run_does_not_go_on_with_a_model_that_computes_otherwise(zoo, tmp_path):
    """The weights are the same: only what else decides the computation has changed."""
    pivot = tmp_path / "pivot"
    shutil.copytree(zoo["pivot"], pivot)
    config = settings({**zoo, "pivot": pivot}, tmp_path, training={"steps": 4, "checkpoint_every": 2})

    with pytest.raises(RuntimeError):
        fuse(config, on_event=power_cut(3), train=sums())
    run = RunDirectory.open(next((tmp_path / "runs").iterdir()))
    kept = {path: path.read_text() for path in (pivot / "config.json", pivot / "tokenizer.json")}
    described = json.loads(kept[pivot / "config.json"])
    (pivot / "config.json").write_text(json.dumps(described | {"rms_norm_eps": 1e-2}))
    with pytest.raises(GfvizError, match="its architectures changed since it began"):
        resume(run)
    (pivot / "config.json").write_text(kept[pivot / "config.json"])
    described = json.loads(kept[pivot / "tokenizer.json"])
    described["model"]["merges"] = described["model"]["merges"][:20]
    (pivot / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(GfvizError, match="its tokenizers changed since it began"):
        resume(run)
    (pivot / "tokenizer.json").write_text(kept[pivot / "tokenizer.json"])
    resume(run)
    assert run.status().state == "finished"


def test_a_tokenizer_keeps_its_hash_while_it_is_used(zoo):
    tokenizer = load_tokenizer(zoo["pivot"])
    before = saving.tokenizer_hash(tokenizer)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    assert saving.tokenizer_hash(tokenizer) == before == saving.tokenizer_hash(load_tokenizer(zoo["pivot"]))
    tokenizer.chat_template = "{{ messages }}"
    assert saving.tokenizer_hash(tokenizer) != before
