"""Graph files: what is saved is what is loaded, and what a stranger forged is refused."""

import csv
import json

import networkx
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph, TextRecord, export_graph, load_graph
from gfviz.graph.storage import FORMAT
from gfviz.signals import TopKLogits, Vocabulary

HOSTILE = ["<script>x</script>", "\u202eRTL", "new\nline", "nul\x00", "\ud800", "=1+1", "", " the", "é", "\\xc3"]


@pytest.fixture
def graph():
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    record = TextRecord(np.array([0, 3, 8]), ("one\r\n", "two \U0001f642"), np.arange(16).reshape(8, 2))
    signal = TopKLogits.from_logits(logits, 10)
    return CoactivationGraph.from_signal(signal, labels=HOSTILE, record=record, source="tiny")


def _same(a, b):
    assert a.content_hash == b.content_hash
    assert (a.labels, a.nodes, a.normalize, a.weighting, a.space, a.source, a.positions) == (
        (b.labels, b.nodes, b.normalize, b.weighting, b.space, b.source, b.positions)
    )
    np.testing.assert_array_equal(a.dense(), b.dense())


def test_round_trip_with_texts(graph, tmp_path):
    graph.save(tmp_path / "a.safetensors")
    back = load_graph(tmp_path / "a.safetensors")
    _same(graph, back)
    assert back.texts == graph.texts
    np.testing.assert_array_equal(back.record.spans, graph.record.spans)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_round_trip_accumulated_rank_and_bytes(graph, tmp_path):
    rank = CoactivationGraph.from_signal(TopKLogits.from_logits(torch.randn(4, 9)), nodes="rank", weights="mass")
    served = TopKLogits.from_logits(torch.randn(4, 6), 3)
    served = TopKLogits(served.values - 9, served.ids, served.logsumexp * 0, served.mask, 6, served=True)
    tokens = Vocabulary((b"b", b"a\xff", b"\x00", b"", b"zz", b"q"))
    spoken = CoactivationGraph.from_signal(served, labels=tokens)
    assert spoken.space == "bytes"
    assert list(spoken.keys) == sorted(spoken.keys)
    for i, one in enumerate((graph.accumulate(), rank, spoken)):
        one.save(tmp_path / f"{i}.safetensors")
        _same(one, load_graph(tmp_path / f"{i}.safetensors"))


def test_an_unwritable_place_is_named_and_leaves_nothing(graph, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GfvizError, match="cannot write"):
        graph.save(tmp_path / "file" / "a.safetensors")
    with pytest.raises(GfvizError, match=r"saved as \.safetensors"):
        graph.save(tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _forge(graph, path, change_tensors=None, change_fields=None, change_meta=None):
    graph.save(path)
    from safetensors import safe_open

    with safe_open(path, framework="np") as archive:
        meta = dict(archive.metadata())
    tensors = load_file(path)
    fields = json.loads(meta["graph"])
    if change_tensors:
        change_tensors(tensors)
    if change_fields:
        change_fields(fields)
    meta["graph"] = json.dumps(fields)
    if change_meta:
        change_meta(meta)
    save_file(tensors, path, metadata=meta)


@pytest.mark.parametrize("forgery,words", [
    ({"change_tensors": lambda t: t["data"].__setitem__(0, np.nan)}, "NaN"),
    ({"change_tensors": lambda t: t.__setitem__("data", t["data"] * np.float64(1e200))}, "leave the range of float64"),
    ({"change_tensors": lambda t: t.__setitem__("data", t["data"] * np.float64(1e-170))}, "leave the range of float64"),
    ({"change_tensors": lambda t: t["indices"].__setitem__(0, 99)}, "column outside"),
    ({"change_tensors": lambda t: t["indices"].__setitem__(0, -1)}, "column outside"),
    ({"change_tensors": lambda t: t["indices"].__setitem__(0, t["indices"][1])}, "repeats or disorders"),
    ({"change_tensors": lambda t: t["indptr"].__setitem__(1, 2**40)}, "row pointers"),
    ({"change_tensors": lambda t: t["keys"].__setitem__(0, 5)}, "ascending"),
    ({"change_tensors": lambda t: t.__setitem__("keys", t["keys"].astype(np.int32))}, "int32"),
    ({"change_tensors": lambda t: t["labels.lengths"].__setitem__(0, 2**62)}, "inconsistent lengths"),
    ({"change_tensors": lambda t: t["record.offsets"].__setitem__(1, 9)}, "inconsistent offsets"),
    ({"change_tensors": lambda t: t.pop("data")}, "damaged"),
    ({"change_fields": lambda f: f.update(positions=10**9)}, "row pointers"),
    ({"change_fields": lambda f: f.update(positions="8")}, "positive whole number"),
    ({"change_fields": lambda f: f.update(nodes="edge")}, "unknown"),
    ({"change_fields": lambda f: f.pop("space")}, "incomplete"),
    ({"change_meta": lambda m: m.update(version="2")}, "version 2"),
    ({"change_meta": lambda m: m.update(graph="[" * 100_000)}, "nested"),
    ({"change_meta": lambda m: m.update(format="other")}, "not a gfviz graph"),
])  # fmt: skip
def test_forged_files_are_refused(graph, tmp_path, forgery, words):
    path = tmp_path / "forged.safetensors"
    _forge(graph, path, **forgery)
    with pytest.raises(GfvizError, match=words) as caught:
        load_graph(path)
    assert "forged.safetensors" in str(caught.value)


def test_a_forged_accumulated_matrix_is_refused(graph, tmp_path):
    path = tmp_path / "forged.safetensors"
    _forge(graph.accumulate(), path, lambda t: t["data"].__setitem__(1, 5.0))
    with pytest.raises(GfvizError, match="not symmetric"):
        load_graph(path)
    _forge(graph.accumulate(), path, lambda t: t["data"].__imul__(-1))
    with pytest.raises(GfvizError, match="exceeds its diagonal"):
        load_graph(path)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{}"])
def test_broken_files_are_refused(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(GfvizError, match=r"broken\.safetensors"):
        load_graph(path)


def test_truncated_anywhere_is_refused(graph, tmp_path):
    path = tmp_path / "cut.safetensors"
    graph.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(GfvizError):
            load_graph(path)


def test_networkx_carries_weights_and_names(graph):
    made = graph.to_networkx()
    c = graph.dense()
    for i, j, w in made.edges(data="weight"):
        assert w == c[i, j]
    assert made.nodes[0]["label"] == graph.labels[0]
    assert made.nodes[2]["activity"] == pytest.approx(c[2, 2], rel=1e-12)
    assert made.number_of_edges() == np.count_nonzero(np.triu(c, 1))


@pytest.mark.parametrize("form,read", [("graphml", networkx.read_graphml), ("gexf", networkx.read_gexf)])
def test_xml_exports_read_back(graph, tmp_path, form, read):
    path = tmp_path / f"g.{form}"
    export_graph(graph, path, form)
    back = read(path)
    made = graph.to_networkx()
    assert back.number_of_nodes() == graph.n
    weights = sorted(w for _, _, w in made.edges(data="weight"))
    assert sorted(w for _, _, w in back.edges(data="weight")) == pytest.approx(weights, rel=1e-12)
    if form == "graphml":
        names = {d["label"] for _, d in back.nodes(data=True)}
        assert names >= {"<script>x</script>", " the", "nul\\x00", "\\xed\\xa0\\x80"}


def test_csv_export_cannot_run_formulas(graph, tmp_path):
    path = tmp_path / "g.csv"
    export_graph(graph, path, "csv", limit=1000)
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    c = graph.dense()
    assert len(rows) == np.count_nonzero(np.triu(c, 1))
    for row in rows:
        assert float(row["weight"]) == c[int(row["source"]), int(row["target"])]
        assert not row["source_label"].startswith("=")
    assert any(row["source_label"] == "'=1+1" or row["target_label"] == "'=1+1" for row in rows)


def test_unknown_format(graph, tmp_path):
    with pytest.raises(GfvizError, match="cannot export to 'dot'"):
        export_graph(graph, tmp_path / "g.dot", "dot")


def test_format_name_is_stable():
    assert FORMAT == "gfviz.graph"
