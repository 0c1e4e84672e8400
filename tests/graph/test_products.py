"""Entries of C without C: against the dense matrix, and refused or bounded where a small file stands for a huge one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.figures import view as view_module
from gfviz.figures.view import graph_view
from gfviz.graph import CoactivationGraph, export, export_graph, products
from gfviz.gromov import network
from gfviz.signals import TopKLogits
from tests.gromov.families import FactorGraph


def made(z, nodes="token", **fields):
    z = sparse.csr_array(z)
    keys = np.arange(z.shape[1])
    labels = [str(key) for key in keys]
    return CoactivationGraph(nodes, "raw", "uniform", z.shape[0], keys, labels, "vocab:x", factors=z, **fields)


def scattered(seed, positions=30, n=40, share=0.2):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((positions, n)) * 10.0 ** rng.uniform(-4, 2, n)
    return np.where(rng.random(z.shape) < share, z, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from([0.0, 1e-3, 0.5]), st.sampled_from([8, 300, 1 << 22]))
def test_the_heaviest_edges_are_those_of_the_dense_matrix(seed, limit, least, block):
    z = scattered(seed)
    c = z.T @ z / len(z)
    i, j = np.triu_indices(len(c), 1)
    wanted = np.sort(np.abs(c[i, j]))[::-1]
    wanted = wanted[wanted > least]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_BLOCK", block)
        every, few = made(z).edges(min_weight=least), made(z).edges(limit, least)
    np.testing.assert_allclose(np.abs(every.weight), wanted, rtol=1e-9)
    np.testing.assert_allclose(np.abs(few.weight), wanted[:limit], rtol=1e-9)
    for edges in (every, few):
        assert (edges.i < edges.j).all()
        np.testing.assert_allclose(edges.weight, c[edges.i, edges.j], rtol=1e-9, atol=1e-15 * np.abs(c).max())


@pytest.mark.parametrize("block", [5, 1 << 22])
def test_parts_and_sums_equal_the_dense_matrix(block, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", block)
    z = scattered(3)
    c = z.T @ z / len(z)
    for graph in (made(z), made(z).accumulate()):
        size = {"atol": 1e-13 * np.abs(c).max()}
        np.testing.assert_allclose(graph.dense(), c, **size)
        np.testing.assert_allclose(graph.matrix().toarray(), c, **size)
        assert (graph.dense() == graph.dense().T).all()
        chosen = np.array([2, 3, 11, 39])
        np.testing.assert_allclose(graph.part(chosen).toarray(), c[np.ix_(chosen, chosen)], **size)
        i, j = np.array([0, 7, 7, 39]), np.array([1, 7, 20, 0])
        np.testing.assert_allclose(graph.entries(i, j), c[i, j], **size)
        assert graph.entries(i[:0], j[:0]).shape == (0,)
        with pytest.raises(GfvizError, match="more than 10 entries"):
            graph.part(np.arange(40), 10)
    off = np.abs(c).sum(1) - np.abs(np.diag(c))
    np.testing.assert_allclose(products.absolute_strength(sparse.csr_array(z)) / len(z), off, atol=1e-12 * off.max())


@pytest.mark.parametrize("equal", [False, True])
def test_a_row_of_a_whole_vocabulary_gives_its_heaviest_edges_at_once(equal, monkeypatch):
    """4·10^10 products if all were made; equal weights are ties, so that no further row can hold a heavier one."""
    monkeypatch.setattr(products, "PRODUCT_LIMIT", 1 << 25)
    row = np.full(200_000, 0.5) if equal else np.random.default_rng(0).random(200_000)
    edges = made(row[None]).edges(10)
    top = np.sort(row)[::-1]
    wanted = sorted((top[a] * top[b] for a in range(12) for b in range(a)), reverse=True)[:10]
    np.testing.assert_allclose(edges.weight, wanted, rtol=1e-12)
    assert made(row[None]).edges(10, min_weight=1.5).weight.shape == (0,)


def test_what_would_fill_the_memory_is_refused_in_one_line(monkeypatch, tmp_path):
    graph = made(np.random.default_rng(0).random((1, 3000)) - 0.5)
    monkeypatch.setattr(products, "EDGE_LIMIT", 100_000)
    monkeypatch.setattr(products, "PRODUCT_LIMIT", 100_000)
    for ask in (graph.edges, lambda: graph.edges(200_000), lambda: export_graph(graph, tmp_path / "a.csv", "csv")):
        with pytest.raises(GfvizError, match=r"more than 100000 edges|more than 1e\+05 products"):
            ask()
    with pytest.raises(GfvizError, match=r"more than 1e\+05 products"):
        graph_view(graph)
    with pytest.raises(GfvizError, match="more than 1000000 entries"):
        products.gram(graph.factors, 1_000_000)
    monkeypatch.setattr(export, "NETWORK_LIMIT", 100)
    with pytest.raises(GfvizError, match="120 edges are more than networkx"):
        made(np.random.default_rng(0).random((1, 100))).to_networkx(limit=120)
    monkeypatch.setattr(view_module, "VIEW_ENTRIES", 9_999)
    with pytest.raises(GfvizError, match="more than 9999 entries"):
        graph_view(made(np.random.default_rng(0).random((1, 100))))
    assert list(tmp_path.iterdir()) == []


def test_a_distance_does_not_multiply_long_rows_out(monkeypatch):
    monkeypatch.setattr(network, "DENSE_NODES", 10)
    monkeypatch.setattr(network, "GRAM_POSITIONS", 1)
    monkeypatch.setattr(network, "gram", lambda z: products.gram(z, 1000))
    with pytest.raises(GfvizError, match="more than 1000 entries"):
        network.MeasureNetwork.of(made(np.ones((2, 50))))


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e160, 1e300, np.inf, np.nan])
def test_values_whose_products_leave_the_range_are_refused(scale):
    z = np.random.default_rng(0).random((4, 6)) * scale
    with pytest.raises(GfvizError, match=r"leave the range of float64: rescale|NaN or infinity"):
        made(z)
    with pytest.raises(GfvizError, match=r"first graph: .*(leave the range of float64: rescale|NaN or infinity)"):
        network.MeasureNetwork.of(FactorGraph(sparse.csr_array(z), np.full(6, 1 / 6), 4))


@pytest.mark.parametrize("value", [np.inf, np.nan, 1.7e308])
def test_an_accumulated_matrix_whose_sums_are_infinite_is_refused(value):
    held = sparse.csr_array(np.full((2, 2), value))
    with pytest.raises(GfvizError, match=r"leave the range of float64|NaN or infinity"):
        CoactivationGraph("rank", "raw", "uniform", 1, np.arange(2), ["0", "1"], "rank", accumulated=held)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_values_near_the_end_of_the_range_are_right(scale):
    z = np.random.default_rng(0).random((4, 6))
    graph, plain = made(z * scale), z.T @ z / 4
    np.testing.assert_allclose(graph.dense() / scale / scale, plain, rtol=1e-12)
    np.testing.assert_allclose(graph.strength() / scale / scale, plain.sum(1) - np.diag(plain), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_raw_scores_without_a_product_are_refused_when_the_graph_is_built(scale):
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
    with pytest.raises(GfvizError, match="leave the range of float64"):
        CoactivationGraph.from_signal(TopKLogits.from_logits(logits), normalize="raw")


def test_strings_that_hold_the_separator_do_not_collide():
    def named(keys, labels):
        array = np.empty(len(keys), dtype=object)
        array[:] = keys
        z = sparse.csr_array(np.array([[0.5, 0.25], [0.1, 0.3]]))
        return CoactivationGraph("token", "prob", "uniform", 2, array, labels, "bytes", factors=z).content_hash

    base = named([b"a", b"b"], ["x", "y"])
    assert base == named([b"a", b"b"], ["x", "y"])
    pairs = [
        (named([b"a\0b", b"c"], ["x", "y"]), named([b"a", b"b\0c"], ["x", "y"])),
        (named([b"a", b"b"], ["x\0y", "z"]), named([b"a", b"b"], ["x", "y\0z"])),
        (named([b"ab", b"c"], ["x", "y"]), named([b"a", b"bc"], ["x", "y"])),
        (named([b"a", b"b"], ["xy", ""]), named([b"a", b"b"], ["x", "y"])),
    ]
    for one, other in pairs:
        assert one != other
