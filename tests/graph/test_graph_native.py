"""The compiled loops take the steps of their Python twins: the same communities, the same positions to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.compiled import FORBID
from gfviz.graph import native
from gfviz.graph.communities import communities
from gfviz.graph.layout import layout


def twin(monkeypatch, call):
    """What `call` gives with the compiled loops at every size, and what it gives without them."""
    with monkeypatch.context() as patch:
        patch.setattr(native, "MIN_EDGES", 0)
        if native.library(1) is None:
            pytest.skip("no C compiler, or GFVIZ_NO_COMPILE is set")
        compiled = call()
        patch.setattr(native, "library", lambda edges: None)
        return compiled, call()


def edges(n: int, m: int, seed: int):
    """`m` edges with weights over six decades, among them loops, repeated pairs and both directions."""
    random = np.random.default_rng(seed)
    return random.integers(0, n, m), (random.pareto(1.0, m) * n / 9).astype(int) % n, 10 ** random.uniform(-3, 3, m)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 120), m=st.integers(0, 600), seed=st.integers(0, 2**32), flat=st.booleans())
def test_the_same_communities(n, m, seed, flat):
    i, j, weight = edges(n, m, seed)
    # Equal weights: which of two equal gains is taken depends on the order in which they are met.
    weight = np.ones(m) if flat else weight
    with pytest.MonkeyPatch.context() as patch:
        compiled, python = twin(patch, lambda: communities(n, i, j, weight, seed))
    assert np.array_equal(compiled, python)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 90), m=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_the_same_positions(n, m, seed):
    i, j, weight = edges(n, m, seed)
    with pytest.MonkeyPatch.context() as patch:
        compiled, python = twin(patch, lambda: layout(n, i, j, weight, seed, rounds=25))
    assert np.array_equal(compiled, python)


def test_a_large_graph_is_the_same_in_both(monkeypatch):
    i, j, weight = edges(2000, 9000, 3)
    compiled, python = twin(monkeypatch, lambda: (layout(2000, i, j, weight), communities(2000, i, j, weight)))
    assert np.array_equal(compiled[0], python[0])
    assert np.array_equal(compiled[1], python[1])
    assert np.isfinite(compiled[0]).all()
    assert compiled[1].max() > 0


def test_weights_whose_sum_is_infinite_end_in_both(monkeypatch):
    i, j = np.array([0, 1, 2, 0]), np.array([1, 2, 0, 3])
    with np.errstate(all="ignore"):
        compiled, python = twin(monkeypatch, lambda: communities(4, i, j, np.full(4, 1.6e308)))
    assert np.array_equal(compiled, python)


def test_small_graphs_wait_for_no_compiler(monkeypatch):
    monkeypatch.setattr(native, "load_compiled", lambda *files: pytest.fail("compiled"))
    native._library.cache_clear()
    i, j, weight = edges(50, native.MIN_EDGES // 4, 0)
    assert len(communities(50, i, j, weight)) == len(layout(50, i, j, weight)) == 50


def test_nothing_is_compiled_where_that_is_forbidden(monkeypatch):
    monkeypatch.setenv(FORBID, "1")
    native._library.cache_clear()
    try:
        assert native.library(10**6) is None
    finally:
        native._library.cache_clear()
