"""Graphs against the dense C = ZᵀZ/T computed in float64 from the logits themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.signals import TopKLogits, Vocabulary


def _logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def _dense_token(logits, k, kind="prob"):
    """The whole [V, V] matrix, from a full sort and a full softmax."""
    z = torch.zeros_like(logits)
    top = logits.sort(-1, descending=True)
    values, ids = top.values[:, :k], top.indices[:, :k]
    if kind == "prob":
        values = torch.softmax(logits, -1).gather(1, ids)
    elif kind == "zscore":
        values = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True, correction=0)
    z.scatter_(1, ids, values)
    return (z.T @ z / len(z)).numpy()


def _on_full_vocabulary(graph, vocabulary):
    full = np.zeros((vocabulary, vocabulary))
    full[np.ix_(graph.keys, graph.keys)] = graph.dense()
    return full


@pytest.mark.parametrize("kind", ["prob", "raw", "zscore"])
def test_token_graph_is_the_dense_gram(kind):
    logits = _logits(12, 40)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 6), normalize=kind)
    np.testing.assert_allclose(_on_full_vocabulary(graph, 40), _dense_token(logits, 6, kind), atol=1e-12)
    assert set(graph.keys) == set(logits.topk(6).indices.flatten().tolist())


def test_rank_graph_is_the_gram_of_sorted_probabilities():
    logits = _logits(12, 40)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 6), nodes="rank")
    z = torch.softmax(logits, -1).sort(-1, descending=True).values[:, :6].numpy()
    np.testing.assert_allclose(graph.dense(), z.T @ z / 12, atol=1e-15)
    assert graph.labels[0] == "rank 1"


@pytest.mark.parametrize("weights", ["uniform", "mass"])
@pytest.mark.parametrize("nodes", ["token", "rank"])
def test_what_needs_no_matrix_equals_the_matrix(nodes, weights):
    signal = TopKLogits.from_logits(_logits(3, 9, 30), 7)
    for graph in (g := CoactivationGraph.from_signal(signal, nodes, weights=weights), g.accumulate()):
        c = graph.dense()
        p = np.full(graph.n, 1 / graph.n) if weights == "uniform" else np.sqrt(np.diag(c)) / np.sqrt(np.diag(c)).sum()
        np.testing.assert_allclose(graph.weights, p, rtol=1e-12)
        np.testing.assert_allclose(graph.row_means(), c @ p, rtol=1e-12)
        np.testing.assert_allclose(graph.diagonal(), np.diag(c), rtol=1e-12)
        np.testing.assert_allclose(graph.strength(), c.sum(1) - np.diag(c), atol=1e-12)
        assert (c == c.T).all()
        assert np.linalg.eigvalsh(c).min() > -1e-12


def test_edges_are_the_upper_triangle_heaviest_first():
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(_logits(20, 15), 5))
    c = graph.dense()
    edges = graph.edges()
    assert (np.diff(edges.weight) <= 0).all()
    assert (edges.i < edges.j).all()
    rebuilt = np.zeros_like(c)
    rebuilt[edges.i, edges.j] = edges.weight
    np.testing.assert_array_equal(rebuilt, np.triu(c, 1))
    few = graph.edges(limit=4, min_weight=float(edges.weight[2]))
    np.testing.assert_array_equal(few.weight, edges.weight[edges.weight > edges.weight[2]][:4])
    assert len(graph.edges(limit=0).weight) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 14), st.integers(1, 13), st.integers(0, 10**6), st.sampled_from(["token", "rank"]), st.booleans())
def test_merging_does_not_depend_on_the_split(total, cut, seed, nodes, sparse_too):
    logits = _logits(total, 25, seed=seed)
    cut = min(cut, total - 1)
    whole = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 4), nodes, weights="mass")
    parts = [
        CoactivationGraph.from_signal(TopKLogits.from_logits(part, 4), nodes, weights="mass")
        for part in (logits[:cut], logits[cut:])
    ]
    if sparse_too:
        parts[0] = parts[0].accumulate()
    merged = parts[0].merge(parts[1])
    other_way = parts[1].merge(parts[0])
    for graph in (merged, other_way):
        assert graph.positions == total
        np.testing.assert_array_equal(graph.keys, whole.keys)
        np.testing.assert_allclose(graph.dense(), whole.dense(), atol=1e-14)
        np.testing.assert_allclose(graph.row_means(), whole.row_means(), atol=1e-14)
    if not sparse_too:
        assert merged.content_hash == whole.content_hash


def test_masked_positions_are_selected_away():
    logits = _logits(2, 5, 20)
    mask = torch.tensor([[True] * 5, [False, True, True, False, False]])
    poisoned = torch.where(mask.unsqueeze(-1), logits, torch.nan)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(poisoned, 4, mask))
    direct = CoactivationGraph.from_signal(TopKLogits.from_logits(logits[mask], 4))
    assert graph.positions == 7
    assert graph.content_hash == direct.content_hash
    assert graph.text_offsets.tolist() == [0, 5, 7]


def test_select_texts_is_the_graph_of_those_texts():
    logits = _logits(4, 6, 30)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 3), texts=["a", "b", "c", "d"])
    drawn = graph.select_texts([2, 0, 2])
    direct = CoactivationGraph.from_signal(TopKLogits.from_logits(logits[[2, 0, 2]], 3))
    assert drawn.content_hash == direct.content_hash
    assert drawn.texts == ("c", "a", "c")
    for bad in ([], [4], [-1]):
        with pytest.raises(GfvizError, match="choose texts"):
            graph.select_texts(bad)
    with pytest.raises(GfvizError, match="no per-text factors"):
        graph.accumulate().select_texts([0])


def test_forbidden_tokens_do_not_occur():
    logits = _logits(6, 10)
    logits[:, 3] = -torch.inf
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 10))
    assert 3 not in graph.keys
    assert graph.n == 9
    with pytest.raises(GfvizError, match="finite"):
        CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 10), normalize="raw")


def test_labels_and_spaces():
    signal = TopKLogits.from_logits(_logits(4, 6), 3)
    words = Vocabulary.from_tokens(["Ġa", "b", "c", "d", "e", "f"])
    graph = CoactivationGraph.from_signal(signal, labels=words)
    assert graph.labels == words.labels(graph.keys)
    other = CoactivationGraph.from_signal(signal, labels=["u", "v", "w", "x", "y", "z"])
    with pytest.raises(GfvizError, match="different vocabularies"):
        graph.merge(other)
    with pytest.raises(GfvizError, match="different normalize"):
        graph.merge(CoactivationGraph.from_signal(signal, normalize="raw", labels=words))
    with pytest.raises(GfvizError, match="a tokenizer, a Vocabulary or a list"):
        CoactivationGraph.from_signal(signal, labels=3)


@pytest.mark.parametrize("make,words", [
    (lambda s: CoactivationGraph.from_signal(s, nodes="word"), "nodes = 'word'"),
    (lambda s: CoactivationGraph.from_signal(s, weights="heavy"), "weights = 'heavy'"),
    (lambda s: CoactivationGraph.from_signal(s, texts=["a", "b"]), "2 texts"),
    (lambda s: CoactivationGraph.from_signal(s, record=TextRecord(np.array([0, 3]))), "do not divide"),
    (lambda s: CoactivationGraph.from_signal(TopKLogits.from_logits(s.values, mask=torch.zeros(5))), "is empty"),
    (lambda s: CoactivationGraph.from_signal(TopKLogits.from_logits(torch.full((2, 3), torch.nan))), "NaN"),
])  # fmt: skip
def test_bad_input_is_named(make, words):
    with pytest.raises(GfvizError, match=words):
        make(TopKLogits.from_logits(torch.zeros(5, 3)))


def test_a_dense_matrix_of_a_vocabulary_is_refused_and_edges_still_come():
    logits = torch.zeros(1, 30_000)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits, 3))
    assert graph.n == 3
    big = CoactivationGraph.from_signal(TopKLogits.from_logits(_logits(500, 40_000), 64))
    assert big.n > 20_000
    with pytest.raises(GfvizError, match="refused"):
        big.dense()
    assert len(big.edges(limit=10).weight) == 10


def test_float32_signals_are_kept_in_float32():
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(_logits(5, 9).to(torch.bfloat16), 4))
    assert graph.factors.dtype == np.float32
    assert graph.dense().dtype == np.float64


def test_notebook_display_escapes_labels():
    signal = TopKLogits.from_logits(torch.zeros(2, 2))
    graph = CoactivationGraph.from_signal(signal, labels=["<script>alert(1)</script>", "b"])
    assert "<script>" not in graph._repr_html_()
    assert "&lt;script&gt;" in graph._repr_html_()


@pytest.mark.parametrize("kind", ["prob", "raw", "zscore"])
def test_ranks_of_a_token_graph_are_the_rank_graph(kind):
    logits = _logits(9, 30)
    if kind == "prob":
        logits[2, 5:] = -torch.inf  # a row with fewer than k possible tokens
    signal = TopKLogits.from_logits(logits, 7)
    direct = CoactivationGraph.from_signal(signal, "rank", kind)
    derived = CoactivationGraph.from_signal(signal, "token", kind).to_rank()
    np.testing.assert_array_equal(derived.dense(), direct.dense())
    assert derived.to_rank() is derived
    with pytest.raises(GfvizError, match="kept no rows"):
        CoactivationGraph.from_signal(signal, "token", kind).accumulate().to_rank()
