"""The layout: deterministic, finite, and it puts together what belongs together."""

import numpy as np
import pytest

from gfviz.errors import GfvizError
from gfviz.graph.layout import layout


def planted(n: int = 240, groups: int = 4, seed: int = 0):
    """Edges of a graph whose nodes i ≡ g (mod groups) form group g, with a few edges between groups."""
    random = np.random.default_rng(seed)
    group = np.arange(n) % groups
    i, j = random.integers(0, n, 6000), random.integers(0, n, 6000)
    keep = (i < j) & ((group[i] == group[j]) | (random.random(6000) < 0.03))
    return i[keep], j[keep], random.uniform(0.5, 2.0, int(keep.sum())), group


def mean_distances(at: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    same = group[:, None] == group[None]
    return apart[same].mean(), apart[~same].mean()


def test_groups_are_drawn_together():
    i, j, weight, group = planted()
    inside, between = mean_distances(layout(240, i, j, weight), group)
    assert inside < 0.6 * between


def test_same_seed_same_positions_other_seed_others():
    i, j, weight, _ = planted()
    assert np.array_equal(layout(240, i, j, weight, seed=3), layout(240, i, j, weight, seed=3))
    assert not np.array_equal(layout(240, i, j, weight, seed=3), layout(240, i, j, weight, seed=4))


def test_a_graph_in_pieces_is_laid_out_the_same_again():
    # Equal pieces have equal eigenvalues: the search for the plane ends early and begins again somewhere.
    for pieces in (2, 5, 40):
        i = 2 * np.arange(pieces)
        first, again = (layout(2 * pieces, i, i + 1, np.ones(pieces), seed=1) for _ in range(2))
        assert np.array_equal(first, again)


def test_heavier_edge_is_shorter():
    # A star of two leaves, one held ten thousand times harder than the other, both tied to far groups of their own.
    i, j, weight, _ = planted(40, 1)
    heavy = layout(42, np.r_[i, 40, 41], np.r_[j, 0, 0], np.r_[weight, 1e4, 1e-4])
    assert np.linalg.norm(heavy[40] - heavy[0]) < np.linalg.norm(heavy[41] - heavy[0])


@pytest.mark.parametrize("n,i,j", [(1, [], []), (2, [0], [1]), (3, [0, 1], [1, 2]), (6, [0, 2], [1, 3]), (50, [], [])])
def test_small_and_unlinked_graphs_are_finite_and_apart(n, i, j):
    at = layout(n, np.array(i, int), np.array(j, int), np.ones(len(i)))
    assert at.shape == (n, 2)
    assert np.isfinite(at).all()
    if n > 1:
        apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + np.eye(n) * 9
        assert apart.min() > 1e-4
    assert np.hypot(*at.T).max() < 2.5


def test_bad_edges_are_refused():
    with pytest.raises(GfvizError, match=r"outside 0\.\.2"):
        layout(3, np.array([0]), np.array([3]), np.ones(1))
    with pytest.raises(GfvizError, match="finite"):
        layout(3, np.array([0]), np.array([1]), np.array([np.nan]))
    with pytest.raises(GfvizError, match="one length"):
        layout(3, np.array([0]), np.array([1]), np.ones(2))
