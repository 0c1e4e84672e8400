"""Today's files, read by whatever version this is: the values they were written with; other versions have a way out."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gfviz.errors import GfvizError
from gfviz.fusion.cache import read_meta, read_shard, shard_path
from gfviz.fusion.cached import open_cache
from gfviz.fusion.config import load_config
from gfviz.fusion.data import read_examples
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory, checkpoint_is_whole
from gfviz.study.folder import claim_folder
from tests.fusion.tiny import sums
from tests.golden.__main__ import LOGITS

HERE = Path(__file__).parent


def probabilities() -> np.ndarray:
    """Of all four tokens at the four positions, in float64 and by the definition."""
    x = np.array(LOGITS).reshape(4, 4)
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) < 300_000


def test_a_graph_of_factors() -> None:
    graph = load_graph(HERE / "graph-factors-v1.safetensors")
    assert (graph.nodes, graph.normalize, graph.weighting, graph.positions) == ("token", "prob", "uniform", 4)
    assert graph.labels == ["a", " b", "<c>", "ď"]
    assert graph.source == "golden"
    assert graph.texts == ("one", "two")
    assert graph.text_offsets is not None
    assert graph.text_offsets.tolist() == [0, 2, 4]
    z = probabilities()
    z[np.arange(4), z.argmin(1)] = 0.0  # k = 3 of 4
    np.testing.assert_allclose(graph.dense(), z.T @ z / 4, atol=1e-7)


def test_an_accumulated_rank_graph() -> None:
    graph = load_graph(HERE / "graph-accumulated-v1.safetensors")
    assert (graph.nodes, graph.weighting, graph.space, graph.factors) == ("rank", "mass", "rank", None)
    z = -np.sort(-probabilities(), axis=1)[:, :3]
    c = z.T @ z / 4
    np.testing.assert_allclose(graph.dense(), c, atol=1e-7)
    root = np.sqrt(np.diag(c))
    np.testing.assert_allclose(graph.weights, root / root.sum(), atol=1e-7)


def test_a_graph_of_byte_strings() -> None:
    graph = load_graph(HERE / "graph-bytes-v1.safetensors")
    assert graph.positions == 4
    assert graph.labels[:1] == ["a"]
    np.testing.assert_allclose(
        graph.diagonal().sum(), load_graph(HERE / "graph-factors-v1.safetensors").diagonal().sum()
    )


def test_a_run() -> None:
    run = RunDirectory.open(HERE / "run-v1")
    status = run.status()
    assert (status.state, status.step, status.total_steps, status.generation) == ("finished", 7, 7, 0)
    assert run.record().facts == {"seed": 5, "versions": {"gfviz": "0.1.0"}}
    assert run.record().name == "golden"
    assert run.tags == ("golden",)
    with run.reader() as reader:
        assert reader.names() == ["loss/total", "lr"]
        series = reader.series("loss/total")
        np.testing.assert_array_equal(series.steps, np.arange(8))
        np.testing.assert_array_equal(series.values, 1 / (1 + np.arange(8)))
        np.testing.assert_array_equal(series.times, 1_700_000_000.0 + np.arange(8))
        assert np.isnan(reader.series("lr").values).tolist() == [step == 3 for step in range(8)]
        (event,) = reader.events()
        assert (event.text, event.kind, event.step) == ("checkpoint at step 6", "checkpoint", 6)
    assert [step for step, _ in run.checkpoints()] == [6]
    (graph,) = run.graphs()
    assert (graph.step, graph.who) == (3, "student")
    assert run.config["loss"]["lambda"] == {"start": 0.1, "end": 0.9, "over": 1.0, "shape": "cosine"}


def test_a_run_goes_on_being_written(tmp_path: Path) -> None:
    shutil.copytree(HERE / "run-v1", tmp_path / "run-v1")
    run = RunDirectory.open(tmp_path / "run-v1")
    with run.writer() as writer:
        writer.truncate_after(6)
        writer.log(7, {"loss/total": 9.0})
    assert run.reader().series("loss/total").values[-2:].tolist() == [1 / 7, 9.0]


def test_a_configuration() -> None:
    config = load_config(HERE / "config-v1.yaml")
    assert (config.version, config.name, config.seed, config.training.steps) == (1, "golden", 5, 7)
    assert config.teacher_weights() == {"a": 0.75, "b": 0.25}
    assert config.teachers[0].token == "alm"
    assert config.teachers[1].cache == "c"
    assert config.pivot.lora is not None
    assert (config.loss.structure, config.loss.k, config.store.on_failure) == ("spectral", 8, "stop")
    # What a run keeps of it is the same configuration.
    kept = load_config(HERE / "run-v1" / "config.yaml")
    assert kept == config


def test_examples() -> None:
    assert read_examples([HERE / "examples.jsonl"]) == sums(6)


def test_a_teacher_cache() -> None:
    meta = read_meta(HERE / "cache-v1")
    assert (meta.version, meta.examples, meta.k, meta.dtype, meta.shards) == (1, 6, 4, "float16", 2)
    cached, tokenizer = open_cache(
        "t", HERE / "cache-v1", sums(6), dtype="float16", temperature=1.0, chat_template=False
    )
    row = cached.row(5)
    assert row.log_probs.shape == row.ids.shape == (len(row.token_log_prob), 4)
    assert float(row.log_probs.float().exp().sum(-1).max()) <= 1.001
    # As they were computed when the file was written: stored numbers come back to the last digit.
    assert float(cached.row(0).token_log_prob[0]) == -4.297273635864258
    assert cached.row(0).log_probs[0].tolist() == [-4.10546875, -4.109375, -4.1171875, -4.140625]
    assert tokenizer("a").input_ids


def changed_graph(tmp_path: Path, version: str) -> Path:
    path = tmp_path / "a.safetensors"
    with safe_open(HERE / "graph-factors-v1.safetensors", framework="pt") as archive:
        metadata = archive.metadata()
    save_file(load_file(HERE / "graph-factors-v1.safetensors"), path, {**metadata, "version": version})
    return path


@pytest.mark.parametrize("version", ["0", "2", "x"])
def test_other_versions_are_refused_with_the_way_out(tmp_path: Path, version: str) -> None:
    number = int(version) if version.isdecimal() else version
    with pytest.raises(GfvizError, match=r"version.*(update gfviz|make the graph again)"):
        load_graph(changed_graph(tmp_path, version))

    shutil.copytree(HERE / "run-v1", tmp_path / "run-v1")
    record = json.loads((tmp_path / "run-v1" / "run.json").read_text())
    (tmp_path / "run-v1" / "run.json").write_text(json.dumps({**record, "version": number}))
    with pytest.raises(GfvizError, match=r"upgrade to open it|remove the folder or restore it"):
        RunDirectory.open(tmp_path / "run-v1")

    shutil.copytree(HERE / "cache-v1", tmp_path / "cache-v1")
    meta = json.loads((tmp_path / "cache-v1" / "cache.json").read_text())
    (tmp_path / "cache-v1" / "cache.json").write_text(json.dumps({**meta, "version": number}))
    with pytest.raises(GfvizError, match=r"capture anew"):
        read_meta(tmp_path / "cache-v1")
    shard = shard_path(tmp_path / "cache-v1", 0)
    save_file(load_file(shard), shard, {"data_hash": meta["data_hash"], "version": version})
    with pytest.raises(GfvizError, match="capture anew"):
        read_shard(shard, read_meta(HERE / "cache-v1"), 0)

    text = (HERE / "config-v1.yaml").read_text()
    (tmp_path / "c.yaml").write_text(f"version: {version}\n{text}")
    with pytest.raises(GfvizError, match=r"c.yaml: version"):
        load_config(tmp_path / "c.yaml")

    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(json.dumps({"version": number}))
    with pytest.raises(GfvizError, match="give another folder"):
        claim_folder(tmp_path / "study", {"version": 1})


@pytest.mark.parametrize(("version", "way"), [(0, "restore"), (2, "upgrade gfviz")])
def test_other_schemas_of_the_store_are_refused_with_the_way_out(tmp_path: Path, version: int, way: str) -> None:
    shutil.copytree(HERE / "run-v1", tmp_path / "run-v1")
    database = sqlite3.connect(tmp_path / "run-v1" / "metrics.db")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    run = RunDirectory.open(tmp_path / "run-v1")
    for open_store in (run.reader().names, run.writer):
        with pytest.raises(GfvizError, match=way):
            open_store()


def test_a_checkpoint_that_lost_bytes_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-6"
    shutil.copytree(HERE / "run-v1" / "checkpoints" / "checkpoint-6", folder)
    assert checkpoint_is_whole(folder)
    (folder / "fusion.json").write_text("{")
    assert not checkpoint_is_whole(folder)


def test_reading_leaves_the_files_as_they_are() -> None:
    """A reader that wrote would change what the next version is tested with."""
    files = {path: path.read_bytes() for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    test_a_run()
    test_a_teacher_cache()
    for path, content in files.items():
        assert path.read_bytes() == content
    assert torch.tensor(LOGITS).shape == (2, 2, 4)
