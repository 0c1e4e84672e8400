"""The fusion study's families, list of cells and statistics, against hand-worked cases, enumeration and scipy."""

import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gfviz.errors import GfvizError
from gfviz.study.fusion.analysis import difference, finalists, holm, second_try, student, summary, verdicts
from gfviz.study.fusion.families import SHORT
from gfviz.study.fusion.plan import (
    METHODS,
    REGIMES,
    SIZES,
    Cell,
    confirmation_cells,
    plan_rows,
    planned_cells,
    study_size,
)
from gfviz.study.tasks import split_of


def solved(family, prompt):
    """The answer to a prompt, worked out again from its words."""
    words = prompt.replace(".", " ").replace("?", " ").replace(":", " ").replace(";", " ").replace("!", " ").split()
    if family == "sum":
        return f"{sum(int(word) for word in words if word.isdigit()):02d}"
    if family == "count":
        letters = [word for word in words if word in ("a", "b", "c")]
        return ("zero", "one", "two", "three", "four", "five", "six")[letters[:-1].count(letters[-1])]
    if family == "middle":
        return sorted(word for word in words if len(word) == 3 and word not in ("the", "Out"))[1]
    stack = []
    for mark in prompt:
        if mark in "([{":
            stack.append({"(": ")", "[": "]", "{": "}"}[mark])
        elif mark in ")]}":
            assert stack.pop() == mark
    return " ".join(reversed(stack))


@pytest.mark.parametrize("name", sorted(SHORT))
def test_short_families_are_solvable_and_their_splits_apart(name):
    family = SHORT[name]
    bodies = {}
    for split in ("train", "test"):
        examples = family.examples(split, 250, seed=3)
        assert all(solved(name, example.prompt) == example.target for example in examples)
        assert all(example.answer == f" {example.target}" for example in examples)
        assert all(example.target not in [slip.target for slip in example.mistakes] for example in examples)
        assert all(len({slip.target for slip in example.mistakes}) >= 2 for example in examples)
        assert all(example.target in family.candidates(example) for example in examples)
        bodies[split] = {example.prompt for example in examples}
    assert not bodies["train"] & bodies["test"]
    assert family.examples("test", 5, 3) == family.examples("test", 250, 3)[:5]
    assert split_of(name, "x") in ("train", "validation", "test")


def test_majorities_by_enumeration():
    sums = Counter(a + b for a in range(100) for b in range(100) if a + b < 100)
    counts = Counter(letters.count("a") for letters in itertools.product("abc", repeat=6))
    words = range(16)
    middles = Counter(sorted(three)[1] for three in itertools.permutations(words, 3))
    for name, found in (("sum", sums), ("count", counts), ("middle", middles)):
        assert SHORT[name].majority == pytest.approx(max(found.values()) / found.total())


def test_list_of_cells_holds_every_rival():
    for size in SIZES.values():
        cells = planned_cells(size)
        assert len(cells) == len(set(cells)) == sum(row["runs"] for row in plan_rows(size))
        held = {(cell.regime, cell.method) for cell in cells}
        for regime in {cell.regime for cell in cells}:
            assert {(regime, name) for name in ("pivot", "sft", "answers", "kl-same")} <= held
        first = {(cell.regime, cell.method) for cell in planned_cells(size, 1)}
        for regime, name in first:
            if METHODS[name].ours:
                assert {(regime, rival) for rival in (*METHODS[name].controls, METHODS[name].without)} <= first
        assert {cell.seed for cell in cells} == set(size.seeds)
        assert not set(size.seeds) & set(size.fresh)
    labels = {REGIMES[cell.regime].labels for cell in planned_cells(SIZES["cpu"], 1)}
    assert labels == {"clean", "noisy"}
    cpu = SIZES["cpu"]
    assert planned_cells(cpu)[: len(planned_cells(cpu, len(cpu.tiers)))] == planned_cells(cpu, len(cpu.tiers))
    attempted = {(cell.regime, cell.method) for cell in planned_cells(cpu)} - {
        (cell.regime, cell.method) for cell in planned_cells(cpu, len(cpu.tiers))
    }
    for regime, name in attempted:
        if METHODS[name].ours:
            rivals = (*METHODS[name].controls, METHODS[name].without)
            assert {(cell.regime, cell.method) for cell in planned_cells(cpu)} >= {(regime, r) for r in rivals}
    assert cpu.within(REGIMES["few-clean"]) == cpu
    assert cpu.young is not None
    assert cpu.within(REGIMES["young-clean"]).pivot.steps == cpu.young.pivot.steps < cpu.pivot.steps
    with pytest.raises(GfvizError, match="no young pivot"):
        SIZES["gpu"].within(REGIMES["young-clean"])
    assert len({cell.key for cell in planned_cells(SIZES["cpu"])}) == len(planned_cells(SIZES["cpu"]))
    assert all(len(size.seeds) >= 5 for size in SIZES.values() if size.evidence)
    with pytest.raises(GfvizError, match="smoke, cpu, gpu"):
        study_size("huge")


def test_confirmation_runs_every_rival_on_fresh_seeds():
    size = SIZES["cpu"]
    cells = confirmation_cells(size.fresh, [("unsure-noisy", "gld-anchored")])
    names = {"pivot", "sft", "kl-same", "answers", "gld-anchored", "gld-anchored one-hot", "gld-anchored shuffled"}
    assert {cell.method for cell in cells} == names
    assert {cell.seed for cell in cells} == set(size.fresh)
    assert {cell.stage for cell in cells} == {"confirm"}
    assert confirmation_cells(size.fresh, []) == []


def test_student_is_scipys_paired_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.1, 1, 7), rng.normal(0, 1, 7)
    found, known = student(ours - theirs), stats.ttest_rel(ours, theirs, alternative="greater")
    assert found.p == pytest.approx(known.pvalue, rel=1e-12)
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert math.isnan(student([0.3]).p)
    assert student([0.2, 0.2]).p == 0.0
    assert student([0.0, 0.0]).p == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([0.5, math.nan, 0.9])
    assert adjusted[0] == 1.0
    assert math.isnan(adjusted[1])
    assert adjusted[2] == 1.0


def made_table(gains, regime="unsure-noisy", labels="noisy", stage="study"):
    """Scores with known differences: method → gain over SFT, with a spread over five seeds that pairing takes out."""
    rows = []
    for seed in range(5):
        level = 0.4 + 0.05 * seed
        for number, (method, gain) in enumerate(gains.items()):
            jitter = 0.002 * ((seed + number) % 3 - 1)
            rows.append({
                "stage": stage, "regime": regime, "labels": labels, "method": method, "seed": seed,
                "exact_match": level + gain + (jitter if gain else 0.0),
            })  # fmt: skip
    return pd.DataFrame(rows)


GAINS = {
    "sft": 0.0,
    "kl-same": 0.10,
    "answers": 0.02,
    "gld-anchored": 0.05,
    "gld-anchored one-hot": 0.01,
    "gld-anchored shuffled": -0.03,
    "gld-spectral": 0.04,
    "gld-spectral one-hot": 0.04,
    "gld-spectral shuffled": -0.1,
}


def test_verdicts_are_those_of_the_made_differences():
    found = verdicts(made_table(GAINS)).set_index("method")
    anchored, spectral = found.loc["gld-anchored"], found.loc["gld-spectral"]
    assert anchored["sft"] == pytest.approx(0.05, abs=0.002)
    assert anchored["without"] == anchored["sft"]
    assert anchored["one-hot"] == pytest.approx(0.04, abs=0.003)
    assert anchored["closed"] == pytest.approx(0.5, abs=0.03)
    assert anchored[["beats_sft", "beats_controls", "beats_without", "beats_all"]].all()
    assert spectral["beats_sft"]
    assert not spectral["beats_controls"]
    assert not spectral["beats_all"]
    assert not found.loc["answers", "beats_all"]
    assert "gld-anchored one-hot" not in found.index


def test_correction_counts_every_cell():
    table = made_table(GAINS)
    alone = verdicts(table[~table["method"].str.startswith("gld-spectral")]).set_index("method")
    together = verdicts(table).set_index("method")
    raw = difference(table, "study", "unsure-noisy", "gld-anchored", "sft").p
    assert alone.loc["gld-anchored", "p_sft"] >= raw
    assert together.loc["gld-anchored", "p_all"] == pytest.approx(2 * alone.loc["gld-anchored", "p_all"])


def test_cells_that_are_listed_count_before_they_are_made():
    table = made_table(GAINS)
    made = [Cell("unsure-noisy", name, seed) for name in GAINS for seed in range(5)]
    as_made = verdicts(table, listed=made).set_index("method")
    assert as_made["p_all"].equals(verdicts(table).set_index("method")["p_all"])
    more = [*made, *(Cell("sure-clean", cell.method, cell.seed) for cell in made)]
    counted = verdicts(table, listed=more).set_index("method")
    # Two structure losses in either regime: four cells for the two that were made.
    assert counted.loc["gld-anchored", "p_all"] == pytest.approx(2 * as_made.loc["gld-anchored", "p_all"])
    longer = [*made, *(Cell("unsure-noisy", name, 5) for name in GAINS)]
    assert not verdicts(table, listed=longer)["beats_sft"].any()


def test_missing_rivals_beat_nothing():
    table = made_table({name: gain for name, gain in GAINS.items() if "shuffled" not in name})
    found = verdicts(table).set_index("method").loc["gld-anchored"]
    assert found["beats_sft"]
    assert not found["beats_controls"]
    assert not found["beats_all"]
    assert finalists(verdicts(table), 1) == []


def test_finalists_have_the_largest_weakest_difference():
    noisy = made_table(GAINS)
    clean = made_table({**GAINS, "gld-spectral one-hot": -0.01, "gld-anchored one-hot": 0.045}, "unsure-drawn", "clean")
    chosen = finalists(verdicts(pd.concat([noisy, clean])), 1)
    assert chosen == [("unsure-drawn", "gld-spectral"), ("unsure-noisy", "gld-anchored")]


def test_each_kind_of_labels_without_a_confirmed_cell_has_one_more_try():
    clean = made_table({name: gain / 2 for name, gain in GAINS.items()}, "few-clean", "clean")
    drawn = made_table({**GAINS, "gld-anchored one-hot": 0.05}, "unsure-drawn", "clean")
    made = verdicts(pd.concat([made_table(GAINS), clean, drawn]))
    noisy, failed = made[made["labels"] == "noisy"], made[made["regime"] == "unsure-drawn"]
    # Noisy labels are settled; of the clean ones one regime was tried in vain, and only the other beat all.
    assert second_try(made, pd.concat([noisy, failed])) == [("few-clean", "gld-anchored")]
    assert second_try(made, noisy) == [("few-clean", "gld-anchored")]
    assert second_try(made, made) == []
    assert second_try(made, failed) == [("unsure-noisy", "gld-anchored"), ("few-clean", "gld-anchored")]


def test_a_regime_needs_its_own_seeds_alone():
    table = pd.concat([made_table(GAINS), made_table(GAINS, "few-clean", "clean").query("seed < 3")])
    listed = [Cell(row.regime, row.method, row.seed) for row in table.itertuples()]
    found = verdicts(table, listed=listed).query("method == 'gld-anchored'").set_index("regime")
    assert found["seeds"].to_dict() == {"unsure-noisy": 5, "few-clean": 3}
    assert found["p_sft"].notna().all()


def test_summary_has_the_agreed_form():
    table = pd.concat([made_table(GAINS), made_table(GAINS, "unsure-drawn", "clean")])
    found = summary(table)
    assert set(found) == set(GAINS)
    assert all(set(row) == {"mean", "ci95", "seeds", "beats_sft", "beats_controls"} for row in found.values())
    assert found["gld-anchored"]["seeds"] == 5
    assert found["gld-anchored"]["beats_sft"] is True
    assert found["gld-anchored"]["beats_controls"] is True
    assert found["gld-spectral"]["beats_controls"] is False
    assert found["sft"]["beats_sft"] is None
    low, high = found["sft"]["ci95"]
    assert low < found["sft"]["mean"] < high
    assert found["sft"]["mean"] == pytest.approx(0.5)
    assert Cell("a", "gld-sorted one-hot", 1).key == "study-a-gld-sorted_one-hot-001"
