"""Hub revisions, precisions, devices and shards of models: what was asked for is what is loaded and recorded."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gfviz.errors import GfvizError
from gfviz.fusion import fuse
from gfviz.fusion.config import TeacherConfig, parse_config
from gfviz.fusion.loading import load_pivot, load_teacher
from gfviz.fusion.prepare import prepare
from gfviz.runs import RunDirectory
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

OLD, NEW = "a" * 40, "b" * 40


def as_hub(root: Path, name: str, revisions: dict[str, tuple[str, Path]]) -> None:
    """A cache of the hub as huggingface_hub lays it out: a reference to a commit, a folder for each commit."""
    home = root / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    for reference, (commit, folder) in revisions.items():
        (home / "refs" / reference).write_text(commit)
        shutil.copytree(folder, home / "snapshots" / commit)


SCRIPT = """
import json, sys
import torch; torch.set_num_threads(1)
from gfviz.fusion import fuse
from gfviz.fusion.cache import build_cache, read_meta
from gfviz.capture.models import load_model
from gfviz.errors import GfvizError
from tests.fusion.tiny import sums
mapping, folder = json.loads(sys.argv[1]), sys.argv[2]
build_cache(load_model("acme/teacher", "cpu", revision="v1"), sums(4), folder, k=16)
found = {"cache": read_meta(folder).model_hash}
mapping["teachers"] = [{"name": "t", "model": "acme/teacher", "revision": "main", "cache": folder}]
try:
    fuse(mapping, train=sums(4))
except GfvizError as error:
    found["refused"] = str(error)
mapping["teachers"][0]["revision"] = "v1"
run = fuse(mapping, train=sums(4))
found |= {"facts": run.record().facts["models"], "card": (run.model_path / "README.md").read_text()}
try:
    load_model("acme/teacher", "cpu", revision="v3")
except GfvizError as error:
    found["missing"] = str(error)
print(json.dumps(found))
"""


def test_the_revision_asked_for_is_loaded_and_recorded(zoo, tmp_path: Path) -> None:
    as_hub(tmp_path / "hub", "acme/pivot", {"main": (OLD, zoo["twin"]), "v2": (NEW, zoo["pivot"])})
    as_hub(tmp_path / "hub", "acme/teacher", {"v1": (OLD, zoo["other"]), "main": (NEW, zoo["twin"])})
    mapping = settings(zoo, tmp_path, teachers=(), training={"steps": 1})
    mapping["pivot"] = {"model": "acme/pivot", "revision": "v2"}
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(mapping), str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=200, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cache"] == f"hub:acme/teacher@{OLD}"
    assert found["facts"] == {"pivot": f"hub:acme/pivot@{NEW}", "t": f"hub:acme/teacher@{OLD}"}
    assert f"acme/pivot@{NEW}" in found["card"]
    assert f"acme/teacher@{OLD}" in found["card"]
    assert "at revision 'v3'" in found["missing"]
    assert f"hub:acme/teacher@{OLD}" in found["refused"]
    assert f"hub:acme/teacher@{NEW}" in found["refused"]


def test_a_local_folder_has_no_revision(zoo, tmp_path: Path) -> None:
    mapping = settings(zoo, tmp_path)
    mapping["teachers"][0]["revision"] = "v1"
    with pytest.raises(GfvizError, match=r"teachers\.other\.model: .*has no revision 'v1'"):
        fuse(mapping, train=sums(4))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_precision_teacher_gives_nearly_the_same_signal(zoo, tmp_path: Path, dtype: str) -> None:
    signals = []
    for kind in ("float32", dtype):
        mapping = settings(zoo, tmp_path)
        mapping["teachers"][0]["dtype"] = kind
        prepared = prepare(parse_config(mapping), sums(8), [])
        term = prepared.objective.terms[0]
        assert next(prepared.online[0].model.parameters()).dtype == getattr(torch, kind)
        found = term.source.signals(prepared.collator(prepared.train)["teachers"]["other"])
        assert found.signal.values.dtype == torch.float32
        signals.append(found.signal.probs())
    # Logits of random tiny models are of order 1: the precision's own rounding, twice.
    step = torch.finfo(getattr(torch, dtype)).eps
    assert (signals[0] - signals[1]).abs().max() < 4 * step
    mapping["training"] |= {"steps": 2}
    assert fuse(mapping, train=sums(8)).status().state == "finished"


def test_where_there_is_no_gpu_auto_means_single_precision(zoo) -> None:
    teacher = TeacherConfig(name="t", model=str(zoo["other"]))
    assert next(load_teacher(teacher, "cpu").model.parameters()).dtype == torch.float32


def test_on_a_gpu_a_teacher_keeps_its_stored_precision(zoo, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(zoo["other"], dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(zoo["other"] / name, tmp_path / "half" / name)
    teacher = TeacherConfig(name="t", model=str(tmp_path / "half"))
    assert next(load_teacher(teacher, "cuda").model.parameters()).dtype == torch.bfloat16
    assert next(load_teacher(teacher, "cpu").model.parameters()).dtype == torch.float32


def test_a_teacher_spread_by_device_map_gives_the_same_loss(zoo, tmp_path: Path) -> None:
    runs = []
    for device in (None, "auto"):
        mapping = settings(zoo, tmp_path, training={"steps": 3})
        mapping["teachers"][0] |= {"device": device, "dtype": "float32"}
        runs.append(fuse(mapping, train=sums(8)))
    first, second = (run.reader().series("loss/total").values for run in runs)
    assert first.tolist() == second.tolist()
    mapping["teachers"][0]["device"] = "nonsense"
    with pytest.raises(GfvizError, match=r"teachers\.other"):
        fuse(mapping, train=sums(8))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_loading_says_what_is_missing(zoo, tmp_path: Path, bits: str, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    mapping = settings(zoo, tmp_path)
    mapping["teachers"][0]["quantization"] = bits
    with pytest.raises(GfvizError, match=rf"teachers\.other\.quantization: {bits} needs bitsandbytes") as caught:
        fuse(mapping, train=sums(4))
    assert "\n" not in str(caught.value)


def test_the_attention_asked_for_is_used(zoo, tmp_path: Path) -> None:
    mapping = settings(zoo, tmp_path)
    mapping["pivot"]["attention"] = "eager"
    assert load_pivot(parse_config(mapping)).model.config._attn_implementation == "eager"


def test_gradient_checkpointing_changes_nothing_but_memory(zoo, tmp_path: Path) -> None:
    runs = []
    for checkpointing in (False, True):
        training = {"steps": 3, "gradient_checkpointing": checkpointing}
        runs.append(fuse(settings(zoo, tmp_path, training=training), train=sums(8)))
    weights = [load_file(RunDirectory.open(run.path).model_path / "model.safetensors") for run in runs]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-6, atol=1e-7)


def test_mixed_precision_trains_and_stays_near_single(zoo, tmp_path: Path) -> None:
    curves = []
    for precision in ("float32", "bfloat16"):
        run = fuse(settings(zoo, tmp_path, training={"steps": 3, "precision": precision}), train=sums(8))
        curves.append(run.reader().series("loss/total").values)
        stored = load_file(run.model_path / "model.safetensors")
        assert all(value.dtype == torch.float32 for value in stored.values())
    assert abs(curves[0] - curves[1]).max() < 0.02 * abs(curves[0]).max()
    assert (curves[0] != curves[1]).any()


@pytest.mark.parametrize("device", [None, "auto"])
def test_a_teacher_without_its_head_is_refused_wherever_it_goes(zoo, tmp_path, device) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(zoo["twin"], folder)
    weights = load_file(folder / "model.safetensors")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    save_file(
        {name: value for name, value in weights.items() if name != "lm_head.weight"}, folder / "model.safetensors"
    )
    with pytest.raises(GfvizError, match=r"teachers\.t\..*the weights lack lm_head\.weight"):
        load_teacher(TeacherConfig(name="t", model=str(folder), device=device))
