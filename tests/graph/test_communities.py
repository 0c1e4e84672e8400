"""Communities: planted groups are found, numbered by size, and modularity is that of its definition."""

import networkx
import numpy as np
import pytest

from gfviz.errors import GfvizError
from gfviz.graph.communities import communities, modularity


def cliques(sizes: list[int]):
    """Disjoint cliques of the given sizes, joined in a row by single light edges."""
    i, j, weight, start = [], [], [], 0
    for size in sizes:
        for a in range(start, start + size):
            for b in range(a + 1, start + size):
                i.append(a), j.append(b), weight.append(1.0)
        if start:
            i.append(start - 1), j.append(start), weight.append(0.01)
        start += size
    return start, np.array(i), np.array(j), np.array(weight)


def test_cliques_are_the_communities_and_the_largest_is_first():
    n, i, j, weight = cliques([3, 6, 4])
    assert communities(n, i, j, weight).tolist() == [2] * 3 + [0] * 6 + [1] * 4


def test_unlinked_nodes_stay_alone_and_after_the_others():
    label = communities(5, np.array([1]), np.array([3]), np.ones(1))
    assert label[1] == label[3] == 0
    assert sorted(label[[0, 2, 4]]) == [1, 2, 3]
    assert communities(3, np.array([], int), np.array([], int), np.array([])).tolist() == [0, 1, 2]


def test_deterministic_by_seed():
    random = np.random.default_rng(0)
    i, j = random.integers(0, 200, 900), random.integers(0, 200, 900)
    keep = i < j
    i, j, weight = i[keep], j[keep], random.random(int(keep.sum()))
    assert np.array_equal(communities(200, i, j, weight, seed=1), communities(200, i, j, weight, seed=1))


def test_modularity_agrees_with_networkx():
    random = np.random.default_rng(2)
    pairs = np.unique(np.sort(random.integers(0, 30, (120, 2)), 1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    weight = random.random(len(pairs))
    label = random.integers(0, 4, 30)
    graph = networkx.Graph()
    graph.add_nodes_from(range(30))
    graph.add_weighted_edges_from((int(a), int(b), w) for (a, b), w in zip(pairs, weight))
    groups = [set(np.flatnonzero(label == g).tolist()) for g in range(4)]
    expected = networkx.community.modularity(graph, groups)
    assert modularity(30, pairs[:, 0], pairs[:, 1], weight, label) == pytest.approx(expected, abs=1e-12)


def test_bad_edges_are_refused():
    with pytest.raises(GfvizError, match="outside"):
        communities(2, np.array([0]), np.array([2]), np.ones(1))
    with pytest.raises(GfvizError, match="finite"):
        communities(2, np.array([0]), np.array([1]), np.array([np.inf]))


def test_modularity_reached_is_that_of_networkx_louvain():
    random = np.random.default_rng(5)
    group = np.arange(150) % 5
    pairs = np.unique(np.sort(random.integers(0, 150, (3000, 2)), 1), axis=0)
    keep = (pairs[:, 0] < pairs[:, 1]) & (
        (group[pairs[:, 0]] == group[pairs[:, 1]]) | (random.random(len(pairs)) < 0.02)
    )
    i, j = pairs[keep].T
    weight = random.random(len(i))
    graph = networkx.Graph()
    graph.add_weighted_edges_from(zip(i.tolist(), j.tolist(), weight.tolist()))
    theirs = networkx.community.modularity(graph, networkx.community.louvain_communities(graph, seed=0))
    ours = communities(150, i, j, weight)
    assert modularity(150, i, j, weight, ours) >= theirs - 0.01
