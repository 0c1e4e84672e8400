"""The error study: its pairs, its rows against enumeration, its files, and what it says about itself."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph
from gfviz.study.validate import (
    COLUMNS,
    SYNTHETIC,
    rank_correlations,
    run_validation,
    summary,
    targets_table,
    write_report,
)
from gfviz.study.validate.families import Pair
from gfviz.study.validate.methods import Effort, measure_pair
from gfviz.study.validate.models import (
    TOKEN_K,
    Trace,
    find_checkpoints,
    find_models,
    largest_size,
    model_families,
    trace_model,
)
from gfviz.study.validate.plan import cells, study_size
from gfviz.study.validate.results import keep_results
from gfviz.study.validate.width import advice, measure_width, synthetic_traces

TIMES = ["seconds", "cpu_seconds", "peak_bytes"]


def enumerated(c, d):
    """GW_2 over permutations, from the definition."""
    n = len(c)
    best = min(((c - d[np.ix_(s, s)]) ** 2).sum() for s in map(list, itertools.permutations(range(n))))
    return np.sqrt(best) / n


@pytest.mark.parametrize("name", SYNTHETIC)
def test_families_are_what_they_say(name):
    family = SYNTHETIC[name]
    for n in (6, 17):
        pair, again, other = family.pair(n, 1, 5), family.pair(n, 1, 5), family.pair(n, 2, 5)
        for side, same in zip(pair.matrices(), again.matrices()):
            np.testing.assert_array_equal(side, same)
            np.testing.assert_array_equal(side, side.T)
            low, high = np.linalg.eigvalsh(side)[[0, -1]]
            assert (low >= -1e-12 * high) == family.psd
        assert not np.array_equal(pair.a, other.a)
        shares = pair.shares()
        uniform = len(shares[0]) == len(shares[1]) == n and np.ptp(np.concatenate(shares)) == 0
        assert family.assignable == (family.psd and uniform)


def test_noise_zero_is_a_permuted_copy():
    first, second = SYNTHETIC["perturbed"].pair(8, 0, 0).matrices()
    assert not np.allclose(first, second)
    assert enumerated(first, second) < 1e-8
    assert SYNTHETIC["perturbed"].pair(8, 3, 0).level == 0.5


@pytest.mark.parametrize("name", ["token", "low-rank", "probability"])
def test_rows_stand_on_the_right_side_of_the_enumerated_distance(name):
    pair = SYNTHETIC[name].pair(5, 0, 3)
    truth = enumerated(*pair.matrices())
    rows = measure_pair(pair, 2, Effort(("fast", "thorough"), 0.2, first=True))
    assert {"fast", "thorough", "sorted", "sorted_coupling", "paper", "POT", "POT starts"} <= {
        r["method"] for r in rows
    }
    for row in rows:
        assert row["truth"] == pytest.approx(truth, rel=1e-9)
        assert row["truth_kind"] == "proven"
        if row["status"] == "ok" and row["group"] in ("budget", "rung", "peer"):
            assert np.isnan(row["lower"]) or row["lower"] <= truth * (1 + 1e-9), row["method"]
            assert np.isnan(row["upper"]) or row["upper"] >= truth * (1 - 1e-9), row["method"]
    by_name = {row["method"]: row for row in rows}
    sums = [np.sort(c.mean(axis=1)) for c in pair.matrices()]
    assert by_name["paper"]["value"] == pytest.approx(np.abs(sums[0] - sums[1]).sum())
    assert by_name["sorted"]["lower_ratio"] == pytest.approx(np.sqrt(((sums[0] - sums[1]) ** 2).mean()) / truth)
    assert by_name["POT starts"]["upper"] <= by_name["POT"]["upper"]
    assert by_name["fast"]["gap"] == pytest.approx(1 - by_name["fast"]["lower"] / by_name["fast"]["upper"])
    assert by_name["fast"]["peak_bytes"] > 0
    assert by_name["fast at 1e-08"]["upper"] == pytest.approx(by_name["fast"]["upper"], rel=1e-9)


def test_what_is_not_valid_or_too_long_is_said():
    indefinite = SYNTHETIC["distances"].pair(6, 0, 0)
    rows = {row["method"]: row for row in measure_pair(indefinite, 1, Effort(("fast",), 0.0, first=False))}
    assert rows["POT"]["status"] == "not valid"
    assert rows["spectral"]["status"] == "not valid"
    assert "p = 2" in rows["spectral"]["note"]
    assert rows["sorted"]["status"] == "skipped"
    assert "allowed" in rows["sorted"]["note"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return run_validation(out, "smoke", seed=1, families=["low-rank", "unequal"], progress=False)


def test_the_table_is_whole_and_the_same_in_both_files(study):
    assert list(study.table.columns) == list(COLUMNS)
    assert set(study.table["family"]) == {"low-rank", "unequal"}
    assert study.table.groupby(["family", "size", "p", "pair"]).ngroups == 10
    read = pd.read_csv(study.out / "table.csv", keep_default_na=True)
    pd.testing.assert_frame_equal(
        read[["lower", "upper", "n"]], pd.read_parquet(study.out / "table.parquet")[["lower", "upper", "n"]]
    )
    kept = json.loads((study.out / "targets.json").read_text())
    assert kept["study"]["seed"] == 1
    assert kept["targets"][0]["target"] == "proven at n ≤ 9"
    assert kept["targets"][0]["measured"] == 1.0


def test_a_second_run_continues_and_gives_the_same(study):
    lost = study.out / "cells" / "low-rank-p2-n0006-000.json"
    lost.unlink()
    kept = study.out / "cells" / "unequal-p2-n0006-000.json"
    before = kept.stat().st_mtime_ns
    seen = []
    again = run_validation(
        study.out, "smoke", 1, ["low-rank", "unequal"], progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (12, 12)
    assert kept.stat().st_mtime_ns == before
    assert lost.is_file()
    pd.testing.assert_frame_equal(again.table.drop(columns=TIMES), study.table.drop(columns=TIMES))
    pd.testing.assert_frame_equal(again.width, study.width)


def test_another_configuration_or_a_broken_cell_is_refused(study):
    with pytest.raises(GfvizError, match="seed: 1, now 2"):
        run_validation(study.out, "smoke", 2, ["low-rank", "unequal"], progress=False)
    with pytest.raises(GfvizError, match="families"):
        run_validation(study.out, "smoke", 1, ["low-rank"], progress=False)
    cell = study.out / "cells" / "unequal-p2-n0009-000.json"
    content = cell.read_text()
    cell.write_text(content[:50])
    with pytest.raises(GfvizError, match=r"unequal-p2-n0009-000\.json.*delete it"):
        run_validation(study.out, "smoke", 1, ["low-rank", "unequal"], progress=False)
    cell.write_text(content)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(GfvizError, match="size = 'huge'"):
        run_validation(tmp_path / "a", "huge")
    with pytest.raises(GfvizError, match="'nothing' is unknown"):
        run_validation(tmp_path / "b", "smoke", families=["nothing"], progress=False)
    with pytest.raises(GfvizError, match="'checkpoints' needs"):
        run_validation(tmp_path / "b", "smoke", families=["checkpoints"], progress=False)
    assert not (tmp_path / "b").exists()
    with pytest.raises(GfvizError, match="no model folder"):
        find_models(tmp_path)
    with pytest.raises(GfvizError, match="fewer than two checkpoints"):
        find_checkpoints(tmp_path)


def test_the_report_is_one_page_with_every_part(study):
    path = write_report(study)
    page = path.read_text("utf-8")
    assert path.name == "report.html"
    for part in ("What was to be reached", "How tight each bound is", "Choosing k", "How it was done"):
        assert part in page
    assert page.count("data-plot=") >= 8


def test_the_summary_is_small_and_ships(study, tmp_path):
    short = summary(study.table)
    rows = study.table
    chosen = rows[
        (rows["family"] == "low-rank") & (rows["size"] == 6) & (rows["p"] == 2) & (rows["method"] == "sorted")
    ]
    found = short[
        (short["family"] == "low-rank") & (short["size"] == 6) & (short["p"] == 2) & (short["method"] == "sorted")
    ]
    assert found["lower_ratio"].item() == pytest.approx(chosen["lower_ratio"].median(), rel=1e-4)
    assert found["pairs"].item() == 2
    keep_results(study, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "validate-smoke.csv",
        "validate-smoke.json",
        "width-smoke.csv",
    ]


def row(method, family, pair, **found):
    base = dict.fromkeys(COLUMNS, "") | {"size": 64, "n": 64, "m": 64, "p": 2.0, "norm": 1.0, "level": np.nan}
    base |= {"assignable": True, "status": "ok", "group": "budget", "truth_kind": "best known", "method": method}
    return base | {"family": family, "pair": pair, "truth": 1.0, "lower_ratio": np.nan, "upper_ratio": np.nan} | found


def test_targets_weigh_families_alike_and_count_every_pair():
    table = pd.DataFrame(
        [
            row("standard", "a", 0, gap=0.3, cpu_seconds=0.01, lower=0.7, upper=1.0),
            row("standard", "a", 1, gap=0.1, cpu_seconds=0.03, lower=0.9, upper=1.0),
            row("standard", "b", 0, gap=0.0, cpu_seconds=0.11, lower=1.0, upper=1.0),
            row("POT", "a", 0, group="peer", lower=np.nan, upper=1.0),
            row("POT", "a", 1, group="peer", lower=np.nan, upper=0.9),
            row("POT", "b", 0, group="peer", lower=np.nan, upper=2.0),
            row("sorted", "b", 0, group="rung", truth_kind="proven", lower=1.1, upper=np.nan, lower_ratio=1.1),
        ]
    )
    found = targets_table(table).set_index(["target", "family"])
    assert found.loc[("gap of standard at n = 64", "all"), "measured"] == pytest.approx(0.1)
    assert found.loc[("gap of standard at n = 64", "a"), "measured"] == pytest.approx(0.2)
    assert not found.loc[("gap of standard at n = 64", "a"), "met"]
    assert found.loc[("time of standard at n = 64", "all"), "measured"] == pytest.approx(0.05)
    assert found.loc[("upper ≤ POT", "all"), "measured"] == pytest.approx(2 / 3)
    assert found.loc[("no bound crosses the truth", "all"), "measured"] == 1
    assert found.loc[("proven at n = 12", "all"), "met"] is None


def test_rank_correlation_ignores_scale():
    rows = [row("m", "a", i, value=10.0 * i + 5, truth=float(i), upper=1.0) for i in range(9)]
    rows += [row("turned", "a", i, value=-float(i), truth=float(i), upper=1.0) for i in range(9)]
    found = rank_correlations(pd.DataFrame(rows)).set_index("method")["spearman"]
    assert found["m"] == pytest.approx(1)
    assert found["turned"] == pytest.approx(-1)


def test_traces_give_the_graphs_of_their_rows():
    first, second = synthetic_traces(40, 0)
    rows = slice(5, 25)
    z = np.sort(first.values[rows], axis=1)[:, ::-1][:, :7]
    np.testing.assert_allclose(first.rank_graph(7, rows).dense(), z.T @ z / 20, rtol=1e-12)
    tokens = first.token_graph(4, rows)
    dense = np.zeros((20, first.ids.max() + 1))
    np.put_along_axis(dense, first.ids[rows, :4], first.values[rows, :4], axis=1)
    np.testing.assert_allclose(tokens.dense(), (dense.T @ dense / 20)[np.ix_(tokens.keys, tokens.keys)], rtol=1e-12)
    heavy = first.token_graph(4, rows, heaviest=5)
    threshold = np.sort((dense**2).sum(0))[-5]
    assert set(heavy.keys) == set(np.flatnonzero((dense**2).sum(0) >= threshold))
    families = model_families([first, second], [])
    whole = families["model-token-whole"].pair(30, 0, 0)
    assert all(30 <= graph.n < 30 + TOKEN_K for graph in (whole.a, whole.b))
    assert largest_size("model-rank", [first, second]) == 128
    planned = cells(study_size("cpu"), {"model-rank": families["model-rank"]}, {"model-rank": [first, second]})
    assert max(cell.n for cell in planned) == 128


def test_width_rows_are_the_tails_and_the_distance():
    first, second = synthetic_traces(24, 1)
    rows = measure_width(first, second, 24, (2, 5))
    sides = [trace.values[:, :5].T @ trace.values[:, :5] / 24 for trace in (first, second)]
    truth = enumerated(*sides)
    assert rows[1]["lower"] <= truth * (1 + 1e-9)
    assert rows[1]["upper"] >= truth * (1 - 1e-9)
    assert rows[1]["k_times_upper"] == pytest.approx(5 * rows[1]["upper"])
    assert rows[0]["tail_first"] == pytest.approx(1 - first.values[:, :2].sum(1).mean())
    assert rows[0]["token_nodes_second"] == len(np.unique(second.ids[:, :2]))


def test_advice_is_the_smallest_k_that_is_near_the_widest():
    base = {"first": "a", "second": "b", "positions": 9}
    rows = [{**base, "k": k, "k_times_lower": v, "k_times_upper": v} for k, v in ((4, 0.5), (8, 0.97), (16, 1.0))]
    assert advice(rows) == 8
    assert advice([]) is None


def test_a_model_is_run_once_and_read_back(tmp_path):
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {
        word: i for i, word in enumerate(["[UNK]", "the", "of", "and", "is", "a", "to", "in", "function", "object"])
    }
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(
        tmp_path / "m" / "tiny"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=10, n_embd=16, n_layer=1, n_head=2, n_positions=256)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "m" / "tiny")
    assert find_models(tmp_path / "m") == [tmp_path / "m" / "tiny"]
    trace = trace_model(tmp_path / "m" / "tiny", tmp_path / "out", 4, "tiny")
    assert trace.values.shape[1] == 10
    np.testing.assert_allclose(trace.values.sum(1), 1, rtol=1e-5)
    assert (np.diff(trace.values, axis=1) <= 0).all()
    kept = list((tmp_path / "out" / "graphs").iterdir())
    again = trace_model(tmp_path / "m" / "tiny", tmp_path / "out", 4, "tiny")
    np.testing.assert_array_equal(again.ids, trace.ids)
    assert list((tmp_path / "out" / "graphs").iterdir()) == kept


def test_a_trace_needs_rows_of_one_length():
    graph = CoactivationGraph("token", "prob", "uniform", 2, np.arange(2), ["a", "b"], "v", accumulated=_identity())
    with pytest.raises(GfvizError, match="rows of one length"):
        Trace.of("m", "prose", graph)


def _identity():
    from scipy import sparse

    return sparse.csr_array(np.eye(2))


def test_an_interrupt_inside_a_distance_ends_the_study(monkeypatch):
    from dataclasses import replace

    from gfviz.study.validate import families

    real = families.gromov_wasserstein
    note = "interrupted: this is what was proven until then"
    monkeypatch.setattr(families, "gromov_wasserstein", lambda *a, **k: replace(real(*a, **k), note=note))
    with pytest.raises(KeyboardInterrupt):
        families.distance(Pair(np.eye(2), np.eye(2)), 2, "fast")
