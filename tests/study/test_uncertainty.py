"""Bootstrap and permutation test against recomputation from the texts' own rows, and on data planted with the truth."""

import numpy as np
import pytest
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.gromov import gromov_wasserstein
from gfviz.study.uncertainty import bootstrap_distance, permutation_test


def graph_of(parts, nodes="rank", texts=(), space="rank"):
    """A graph of texts, each given as its rows [T_s, n]."""
    z = np.concatenate(parts)
    n = z.shape[1]
    offsets = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64)
    keys = np.arange(n)
    if nodes == "token":
        keys = np.flatnonzero((z != 0).any(axis=0))
        z = z[:, keys]
    return CoactivationGraph(
        nodes,
        "prob",
        "uniform",
        len(z),
        keys,
        [str(key) for key in keys],
        space,
        factors=sparse.csr_array(z),
        record=TextRecord(offsets, tuple(texts)),
    )


def rank_parts(rng, spread, count=12, n=5):
    """Texts of 3 to 6 positions, sorted probabilities over 20 tokens; each text has a temperature of its own."""
    parts = []
    for _ in range(count):
        logits = rng.standard_normal((int(rng.integers(3, 7)), 20)) * spread * np.exp(0.3 * rng.standard_normal())
        e = np.exp(logits)
        parts.append(-np.sort(-(e / e.sum(1, keepdims=True)), axis=1)[:, :n])
    return parts


def token_parts(rng, count=5, n=12):
    parts = []
    for _ in range(count):
        z = rng.random((4, n))
        z[z < 0.6] = 0
        z[:, 0] += 0.1
        parts.append(z)
    return parts


def brute(parts, chosen):
    """C of the chosen texts from their rows, one row after another."""
    rows = np.concatenate([parts[s] for s in chosen])
    c = np.zeros((rows.shape[1], rows.shape[1]))
    for row in rows:
        c += np.outer(row, row)
    return c / len(rows)


def distance(c, d):
    result = gromov_wasserstein(c, d, budget="fast")
    return result.lower, result.upper


def active(c):
    kept = np.diagonal(c) > 0
    return c[np.ix_(kept, kept)]


@pytest.mark.parametrize("paired", [False, True])
def test_bootstrap_draws_equal_recomputation_from_the_rows(paired):
    rng = np.random.default_rng(1)
    a, b = rank_parts(rng, 1.5), rank_parts(rng, 2.5)
    names = [f"text {s}" for s in range(12)]
    found = bootstrap_distance(graph_of(a, texts=names), graph_of(b, texts=names if paired else ()), draws=8, seed=3)
    assert found.paired is paired
    draws = np.random.default_rng(3)
    for lower, upper in zip(found.lowers, found.uppers):
        first = draws.integers(12, size=12)
        second = first if paired else draws.integers(12, size=12)
        assert (lower, upper) == pytest.approx(distance(brute(a, first), brute(b, second)), rel=1e-7)
    assert (found.observed_lower, found.observed_upper) == pytest.approx(
        distance(brute(a, range(12)), brute(b, range(12))), rel=1e-7
    )


def test_token_draws_equal_recomputation_and_drop_tokens_that_do_not_occur():
    rng = np.random.default_rng(2)
    a, b = token_parts(rng), token_parts(rng)
    graphs = [graph_of(parts, "token", space=f"vocab:{name}") for name, parts in (("a", a), ("b", b))]
    found = bootstrap_distance(graphs[0], graphs[1], draws=4, seed=5)
    draws = np.random.default_rng(5)
    for lower, upper in zip(found.lowers, found.uppers):
        first, second = draws.integers(5, size=5), draws.integers(5, size=5)
        expected = distance(active(brute(a, first)), active(brute(b, second)))
        assert (lower, upper) == pytest.approx(expected, rel=1e-6)


def test_mass_weights_are_computed_again_for_every_draw():
    rng = np.random.default_rng(4)
    a, b = rank_parts(rng, 1.5), rank_parts(rng, 2.5)
    from dataclasses import replace

    graphs = [replace(graph_of(parts), weighting="mass") for parts in (a, b)]
    found = bootstrap_distance(graphs[0], graphs[1], draws=2, seed=6)
    draws = np.random.default_rng(6)
    sides = [brute(parts, draws.integers(12, size=12)) for parts in (a, b)]
    shares = [np.sqrt(np.diagonal(c)) / np.sqrt(np.diagonal(c)).sum() for c in sides]
    expected = gromov_wasserstein(sides[0], sides[1], budget="fast", weights=tuple(shares))
    assert found.lowers[0] == pytest.approx(expected.lower, rel=1e-6)
    assert found.uppers[0] == pytest.approx(expected.upper, rel=1e-6)


def test_the_interval_is_the_formula_by_hand():
    from gfviz.study.uncertainty import _end

    # squares 1 and 9: mean 5, standard deviation 4√2; observed 2; S = 2 doubles bias and variance; t(0.75, 1) = 1.
    drawn = np.array([1.0, 3.0])
    bias, error = (5 - 4) * 2, np.sqrt(32) * np.sqrt(2)
    assert _end(2.0, drawn, 0.5, 2, 1) == pytest.approx(np.sqrt(4 - bias + error))
    assert _end(2.0, drawn, 0.5, 2, -1) == 0.0


def test_coverage_of_planted_distances():
    """20 repetitions a case at 95%: fewer than 16 hits has a chance of 0.3%."""

    def pair(seed, spreads, count=14):
        rng = np.random.default_rng([seed, count])
        return [graph_of(rank_parts(rng, spread, count, n=4)) for spread in spreads]

    for spreads in ((2.0, 2.0), (1.5, 3.0)):
        truth = gromov_wasserstein(*pair(0, spreads, 6000), budget="standard").upper if spreads[0] != spreads[1] else 0
        hits = 0
        for seed in range(20):
            found = bootstrap_distance(*pair(seed, spreads), draws=25, budget="fast", seed=seed)
            hits += found.lower <= truth <= found.upper
        assert hits >= 16, spreads


@pytest.mark.parametrize("paired", [False, True])
def test_exchanges_equal_recomputation_from_the_rows(paired):
    rng = np.random.default_rng(7)
    a, b = rank_parts(rng, 1.5, 6), rank_parts(rng, 2.5, 6)
    names = [f"text {s}" for s in range(6)]
    graphs = graph_of(a, texts=names), graph_of(b, texts=names if paired else ())
    found = permutation_test(*graphs, rounds=5, seed=8)
    draws, pooled = np.random.default_rng(8), [*a, *b]
    for value in found.exchanged:
        if paired:
            swap = draws.random(6) < 0.5
            first, second = np.arange(6) + 6 * swap, np.arange(6) + 6 * ~swap
        else:
            dealt = draws.permutation(12)
            first, second = dealt[:6], dealt[6:]
        assert value == pytest.approx(distance(brute(pooled, first), brute(pooled, second))[0], rel=1e-7)
    larger = sum(value >= found.observed * (1 - 1e-9) for value in found.exchanged)
    assert found.p_value == (1 + larger) / 6


def test_token_exchanges_equal_recomputation():
    rng = np.random.default_rng(9)
    a, b = token_parts(rng), token_parts(rng)
    found = permutation_test(graph_of(a, "token", space="v"), graph_of(b, "token", space="v"), rounds=3, seed=1)
    draws, pooled = np.random.default_rng(1), [*a, *b]
    for value in found.exchanged:
        dealt = draws.permutation(10)
        expected = distance(active(brute(pooled, dealt[:5])), active(brute(pooled, dealt[5:])))[0]
        assert value == pytest.approx(expected, rel=1e-6)


def test_p_values_are_uniform_where_nothing_differs_and_small_where_much_does():
    """30 p-values of 19 exchanges: each is uniform on 1/20 … 1 (a few ties apart)."""
    p_values = []
    for seed in range(30):
        rng = np.random.default_rng([seed, 11])
        sides = [graph_of(rank_parts(rng, 2.0, 8, n=4)) for _ in range(2)]
        p_values.append(permutation_test(*sides, rounds=19, seed=seed).p_value)
    # binomial(30, 1/4) lies within 2..14, and binomial(30, 3/4) within 16..28, but for 1 in 150
    assert 2 <= sum(p <= 0.25 for p in p_values) <= 14
    assert 16 <= sum(p <= 0.75 for p in p_values) <= 28
    rng = np.random.default_rng(12)
    different = [graph_of(rank_parts(rng, spread, 10, n=4)) for spread in (1.0, 4.0)]
    assert permutation_test(*different, rounds=99).p_value <= 0.03


def test_a_model_does_not_differ_from_itself():
    parts = rank_parts(np.random.default_rng(13), 2.0)
    names = [str(s) for s in range(12)]
    graph = graph_of(parts, texts=names)
    assert permutation_test(graph, graph, rounds=9).p_value == 1.0
    assert bootstrap_distance(graph, graph, draws=5, budget="standard").lower == 0.0


def test_the_same_seed_gives_the_same_answer_and_a_summary():
    rng = np.random.default_rng(14)
    graphs = graph_of(rank_parts(rng, 1.5)), graph_of(rank_parts(rng, 2.5))
    seen = []
    first = bootstrap_distance(*graphs, draws=5, seed=2, progress=lambda done, total: seen.append((done, total)))
    second = bootstrap_distance(*graphs, draws=5, seed=2)
    assert first.to_dict() == second.to_dict()
    assert first.to_dict()["draws"] == 5
    assert "95% interval" in str(first)
    assert seen[-1] == (5, 5)


def test_bad_input_is_told_in_a_line():
    rng = np.random.default_rng(15)
    graph = graph_of(rank_parts(rng, 2.0))
    with pytest.raises(GfvizError, match="keep='factors'"):
        bootstrap_distance(graph.accumulate(), graph)
    with pytest.raises(GfvizError, match="fewer than two texts"):
        bootstrap_distance(graph_of(rank_parts(rng, 2.0, 1)), graph)
    with pytest.raises(GfvizError, match="level"):
        bootstrap_distance(graph, graph, level=95)
    with pytest.raises(GfvizError, match="draws"):
        bootstrap_distance(graph, graph, draws=1)
    with pytest.raises(GfvizError, match="same texts"):
        bootstrap_distance(graph, graph_of(rank_parts(rng, 2.0, 5)), paired=True)
    with pytest.raises(GfvizError, match="with one k"):
        permutation_test(graph, graph_of(rank_parts(rng, 2.0, 12, n=4)))
    tokens = [graph_of(token_parts(rng), "token", space=f"vocab:{name}") for name in "ab"]
    with pytest.raises(GfvizError, match="different vocabularies"):
        permutation_test(*tokens)
    with pytest.raises(GfvizError, match="statistic"):
        permutation_test(graph, graph, statistic="middle")
