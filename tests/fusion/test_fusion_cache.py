"""The offline cache: the same loss as online, resumable, refused where it does not fit, never trusted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gfviz.errors import GfvizError
from gfviz.fusion import fuse
from gfviz.fusion.cache import build_cache, read_meta, shard_path
from gfviz.fusion.config import parse_config
from gfviz.fusion.prepare import prepare
from tests.fusion.tiny import sums


def mapping(zoo, tmp_path: Path, cache: Path | None, **loss) -> dict:
    return {
        "runs": str(tmp_path / "runs"),
        "pivot": {"model": str(zoo["pivot"])},
        "teachers": [{"name": "t", "model": str(zoo["other"]), "cache": None if cache is None else str(cache)}],
        "training": {"steps": 7, "batch_size": 5, "learning_rate": 3e-3, "log_every": 3, "device": "cpu"},
        "loss": {"k": 16, **loss},
        "evaluation": {"at_start": False, "at_end": False},
    }


@pytest.fixture(scope="module")
def cache(zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "c"
    report = build_cache(zoo["other"], sums(), folder, k=16, shard_examples=7, batch_size=4)
    # k ids of 4 bytes and k values of 2, the token's own log-probability, its boundary, and the headers.
    assert report.bytes_per_token < 16 * 6 + 8 + 40
    assert report.examples == 24
    return folder


@pytest.mark.parametrize(
    "loss", [{"structure": "sorted"}, {"token": "alm", "structure": "anchored", "beta": 1.0, "temperature": 1.0}]
)
def test_online_and_cached_give_the_same_loss_to_the_last_digit(zoo, tmp_path: Path, cache: Path, loss: dict) -> None:
    runs = [fuse(mapping(zoo, tmp_path, where, **loss), train=sums()) for where in (None, cache)]
    for name in ("loss/total", "loss/t/token", "loss/t/structure", "loss/sft"):
        first, second = (run.reader().series(name).values for run in runs)
        assert len(first) == 7
        np.testing.assert_array_equal(first, second)


def test_dropped_examples_keep_their_place_in_the_cache(zoo, tmp_path: Path, cache: Path) -> None:
    config = mapping(zoo, tmp_path, cache)
    lengths = sorted({len(e.encoded.ids) for e in prepare(parse_config(config), sums(), []).train})
    config["data"] = {"max_length": lengths[-2], "too_long": "drop"}
    prepared = prepare(parse_config(config), sums(), [])
    assert prepared.dropped > 0
    batch = prepared.collator(prepared.train)
    part = batch["teachers"]["t"]
    found = prepared.objective.terms[0].source.signals(part)
    config["teachers"][0]["cache"] = None
    online = prepare(parse_config(config), sums(), []).objective.terms[0].source.signals(part)
    assert torch.equal(found.signal.values, online.signal.values)
    assert torch.equal(found.signal.ids, online.signal.ids)


def test_an_interrupted_capture_goes_on(zoo, tmp_path: Path) -> None:
    folder = tmp_path / "c"

    def stop_at(done: int, _total: int) -> None:
        if done >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(zoo["other"], sums(), folder, k=8, shard_examples=7, on_progress=stop_at)
    with pytest.raises(GfvizError, match="lacks 2 of 4 shards"):
        prepare(parse_config(mapping(zoo, tmp_path, folder)), sums(), [])
    # A shard cut short by a crash of the disk is made again.
    whole = shard_path(folder, 0).read_bytes()
    shard_path(folder, 0).write_bytes(whole[: len(whole) // 2])
    report = build_cache(zoo["other"], sums(), folder, k=8, shard_examples=7)
    assert report.reused_shards == 1
    fresh = tmp_path / "fresh"
    build_cache(zoo["other"], sums(), fresh, k=8, shard_examples=7)
    for number in range(4):
        first, second = load_file(shard_path(folder, number)), load_file(shard_path(fresh, number))
        assert all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("data_hash", {"examples": 23}),
        ("dtype", {"loss": {"signal_dtype": "float32"}}),
        ("temperature", {"loss": {"temperature": 2.0}}),
    ],
)
def test_a_cache_of_something_else_is_refused_with_both_values(zoo, tmp_path: Path, cache: Path, key, change) -> None:
    config = mapping(zoo, tmp_path, cache, **change.get("loss", {}))
    with pytest.raises(GfvizError, match=rf"teachers.t.cache: .*its {key} is .*, needed is"):
        prepare(parse_config(config), sums(change.get("examples", 24)), [])


def test_another_tokenizer_is_refused(zoo, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(cache, folder)
    shutil.copytree(zoo["twin"], folder / "tokenizer", dirs_exist_ok=True)
    with pytest.raises(GfvizError, match="its tokenizer_hash is"):
        prepare(parse_config(mapping(zoo, tmp_path, folder)), sums(), [])
    with pytest.raises(GfvizError, match="capture into another folder"):
        build_cache(zoo["twin"], sums(), cache, k=16, shard_examples=7)


def test_hostile_shards_are_refused(zoo, tmp_path: Path, cache: Path) -> None:
    good = load_file(shard_path(cache, 0))
    meta = {"data_hash": read_meta(cache).data_hash, "version": "1"}
    faults = {
        "nan": ("log_probs", torch.full_like(good["log_probs"], float("nan"))),
        "positive": ("log_probs", torch.full_like(good["log_probs"], 5.0)),
        "wide ids": ("ids", torch.full_like(good["ids"], 10**8)),
        "negative ids": ("ids", torch.full_like(good["ids"], -1)),
        "dtype": ("log_probs", good["log_probs"].float()),
        "offsets": ("offsets", good["offsets"].flip(0)),
        "short": ("token_log_prob", good["token_log_prob"][:-1].clone()),
    }
    for name, (key, value) in faults.items():
        folder = tmp_path / name
        shutil.copytree(cache, folder)
        save_file({**good, key: value}, shard_path(folder, 0), meta)
        source = prepare(parse_config(mapping(zoo, tmp_path, folder)), sums(), []).objective.terms[0].source
        with pytest.raises(GfvizError, match="impossible"):
            source.row(0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "k": -1}', "[" * 9999])
def test_broken_meta_is_one_line(tmp_path: Path, cache: Path, text: str) -> None:
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(GfvizError) as caught:
        read_meta(tmp_path)
    assert "\n" not in str(caught.value)
    data = json.loads((cache / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps({**data, "dtype": "int4"}))
    with pytest.raises(GfvizError, match="cannot be right"):
        read_meta(tmp_path)


def with_other_merges(source: Path, target: Path) -> Path:
    """A copy of a model whose tokenizer has half the merges: the same vocabulary, other cuts."""
    shutil.copytree(source, target)
    path = target / "tokenizer.json"
    described = json.loads(path.read_text())
    merges = described["model"]["merges"]
    described["model"]["merges"] = merges[: len(merges) // 2]
    path.write_text(json.dumps(described))
    return target


def test_a_tokenizer_that_cuts_otherwise_is_refused(zoo, tmp_path: Path, cache: Path) -> None:
    other = with_other_merges(zoo["other"], tmp_path / "other")
    folder = tmp_path / "c"
    shutil.copytree(cache, folder)
    shutil.copy(other / "tokenizer.json", folder / "tokenizer" / "tokenizer.json")
    with pytest.raises(GfvizError, match="its tokenizer cuts the texts otherwise"):
        prepare(parse_config(mapping(zoo, tmp_path, folder)), sums(), [])
    with pytest.raises(GfvizError, match="its encoding_hash is"):
        build_cache(other, sums(), cache, k=16, shard_examples=7)


def test_a_cache_of_an_earlier_version_is_read_and_finished(zoo, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(cache, folder)
    meta = json.loads((folder / "cache.json").read_text())
    del meta["encoding_hash"]
    (folder / "cache.json").write_text(json.dumps(meta))
    shard_path(folder, 1).unlink()
    assert build_cache(zoo["other"], sums(), folder, k=16, shard_examples=7, batch_size=4).reused_shards == 3
    prepare(parse_config(mapping(zoo, tmp_path, folder)), sums(), [])


def test_no_link_in_a_cache_leads_the_tokenizer_elsewhere(zoo, tmp_path: Path, cache: Path) -> None:
    folder, victim = tmp_path / "c", tmp_path / "victim"
    shutil.copytree(cache, folder)
    shutil.rmtree(folder / "tokenizer")
    victim.mkdir()
    (folder / ".tokenizer.new").symlink_to(victim)
    build_cache(zoo["other"], sums(), folder, k=16, shard_examples=7, batch_size=4)
    assert (folder / "tokenizer" / "tokenizer.json").is_file()
    assert not list(victim.iterdir())
