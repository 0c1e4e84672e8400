"""`sorted_gw` takes a path of its own: its values against sums written out, its refusals against the ladder's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph
from gfviz.gromov import bounds, gromov_wasserstein, sorted_gw
from gfviz.gromov.problem import Problem
from gfviz.signals import TopKLogits


def graph(seed, nodes="token", weights="uniform", k=6, accumulated=False):
    generator = torch.Generator().manual_seed(seed)
    signal = TopKLogits.from_logits(torch.randn(9, 30, generator=generator, dtype=torch.float64) * 3, k)
    made = CoactivationGraph.from_signal(signal, nodes=nodes, weights=weights)
    return made.accumulate() if accumulated else made


def by_hand(c, p, d, q):
    """W_1 of the row means, each a sum over the row written out."""
    f, g = ([sum(row[k] * w[k] for k in range(len(w))) for row in m] for m, w in ((c, p), (d, q)))
    return wasserstein_distance(f, g, p, q)


@pytest.mark.parametrize("weights", ["uniform", "mass"])
@pytest.mark.parametrize("accumulated", [False, True])
def test_graphs_of_unequal_size_and_weights(weights, accumulated):
    a, b = graph(1, weights=weights, accumulated=accumulated), graph(2, nodes="rank", k=5)
    expected = by_hand(a.dense(), a.weights, b.dense(), b.weights)
    assert sorted_gw(a, b) == pytest.approx(expected, rel=1e-12)
    p = np.arange(a.n) / np.arange(a.n).sum()  # a node of no weight among them
    expected = by_hand(a.dense(), p, b.dense(), b.weights)
    assert sorted_gw(a, b, weights=(p, None)) == pytest.approx(expected, rel=1e-12)
    assert sorted_gw(a.dense(), b, weights=(p, None)) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 120)),
    p=st.sampled_from([1, 2, 1.5, 7]),
    scale=st.sampled_from([1.0, 1e-300, 1e-140, 1e150, 1e307]),
)
def test_the_short_path_is_the_ladder_s_first_bound(seed, sizes, p, scale):
    random = np.random.default_rng(seed)
    halves = [random.standard_normal((n, n)) / n for n in sizes]
    c, d = ((half + half.T) * scale for half in halves)
    problem = Problem(c, d, p)
    assert sorted_gw(c, d, p) == pytest.approx(problem.value(bounds.sorted_bound(problem)), rel=1e-11)


def test_rounding_s_asymmetry_is_halved_and_zeros_are_zero():
    c = np.array([[1.0, 1e-17 + 0.5], [0.5, 2.0]])
    assert sorted_gw(np.nextafter(c, [[9, 9], [0, 9]]), c) < 1e-15
    assert sorted_gw(np.zeros((3, 3)), np.zeros((2, 2))) == 0.0
    assert sorted_gw([[0.0, -0.0], [0.0, 1.0]], [[1]]) == 0.75
    assert sorted_gw(np.eye(2, dtype=np.float32), torch.eye(2)) == 0.0


def test_zero_weight_hides_nothing():
    c = np.diag([1.0, np.inf])
    with pytest.raises(GfvizError, match="NaN or infinity"):
        sorted_gw(c, np.eye(2), weights=((1, 0), None))


NAN = np.array([[1.0, np.nan], [np.nan, 1.0]])
SKEW = np.array([[1.0, 2.0], [2.5, 1.0]])
WIDE = np.ones((150, 150))
WIDE[140, 3] = 2.0


@pytest.mark.parametrize(
    "a,options",
    [
        (NAN, {}),
        (SKEW, {}),
        (WIDE, {}),
        (np.ones((2, 3)), {}),
        (np.zeros((0, 0)), {}),
        ([[1.0], [2.0, 3.0]], {}),
        (np.eye(2) * 1j, {}),
        (np.full((2, 2), 2**60 + 1), {}),
        (torch.eye(2, requires_grad=True), {}),
        (np.eye(2), {"weights": 3}),
        (np.eye(2), {"weights": ([1.0], None)}),
        (np.eye(2), {"weights": ([1.0, -1.0], None)}),
        (np.eye(2), {"weights": ([1.0, 1e-15], None)}),
        (np.eye(2), {"p": 0.5}),
        (np.eye(2), {"p": "2"}),
    ],
)
def test_what_the_ladder_refuses_is_refused_in_its_words(a, options):
    with pytest.raises(GfvizError) as ladder:
        gromov_wasserstein(a, np.eye(2), **options)
    with pytest.raises(GfvizError) as short:
        sorted_gw(a, np.eye(2), **options)
    assert str(short.value) == str(ladder.value)
