"""Evaluation: scores worked by hand, intervals against simulation, and what a report says of a real model."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoTokenizer

from gfviz.capture.models import load_model
from gfviz.cli import main
from gfviz.errors import GfvizError
from gfviz.fusion import evaluate, fuse
from gfviz.fusion.data import Example, write_examples
from gfviz.fusion.scores import TokenScores, calibration, clustered_mean, score, wilson
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums


def tokens(example, confidence, correct, log_prob=None) -> TokenScores:
    arrays = [np.asarray(values, float) for values in (log_prob or [0.0] * len(example), confidence, correct)]
    return TokenScores(np.asarray(example), *arrays)


def test_calibration_by_hand() -> None:
    """Bins [0.2, 0.3) with a gap of 0.75 over two tokens, [0.9, 1] with one of −0.45 over two; weights a half each."""
    found = calibration(tokens([0, 1, 2, 3], [0.25, 0.25, 0.95, 0.95], [1, 1, 1, 0]))
    assert found.value == pytest.approx((2 * 0.75 + 2 * 0.45) / 4)
    # Every token's own signed gap is its share of that mean: 0.75, 0.75, -0.05, 0.95.
    signed = np.array([0.75, 0.75, -0.05, 0.95])
    reach = stats.t.ppf(0.975, 3) * signed.std(ddof=1) / 2
    assert found.high == pytest.approx(min(1, found.value + reach))
    assert found.low == pytest.approx(max(0, found.value - reach))


@pytest.mark.parametrize(
    ("confidence", "correct", "expected"),
    [
        # A bin's right and wrong confidences cancel; those of different bins do not.
        ([0.5, 0.5], [1, 0], 0.0),
        ([0.5, 0.7], [1, 0], (0.5 + 0.7) / 2),
        # 1 belongs to the last bin.
        ([1.0, 0.95], [1, 1], 0.05 / 2),
        ([0.0], [1], 1.0),
    ],
)
def test_calibration_of_few_tokens(confidence, correct, expected) -> None:
    found = calibration(tokens(range(len(correct)), confidence, correct))
    assert found.value == pytest.approx(expected, abs=1e-12)


def test_nothing_and_one_example_have_no_interval() -> None:
    assert calibration(tokens([], [], [])).high is None
    alone = score([True], tokens([5, 5], [0.5, 0.5], [1, 0], [-1.0, -3.0]))
    assert (alone.nll, alone.nll_low, alone.ece, alone.ece_high) == (2.0, None, 0.0, None)
    assert (alone.low, alone.high) == wilson(1, 1)


def test_a_mean_of_clusters_by_hand() -> None:
    """Sums 3 and 1 and 8 over 2, 1 and 1 tokens: the mean is 3, the residuals −3, −2 and 5, the error √(3/2·38)/4."""
    found = clustered_mean(np.array([1.0, 2.0, 1.0, 8.0]), np.array([4, 4, 2, 9]))
    reach = stats.t.ppf(0.975, 2) * np.sqrt(1.5 * 38) / 4
    assert found.value == 3.0
    assert (found.low, found.high) == (max(0, 3 - reach), pytest.approx(3 + reach))
    # Tokens of one example that repeat each other are no more evidence than one of them.
    once = clustered_mean(np.array([1.0, 2.0, 6.0]), np.arange(3))
    often = clustered_mean(np.repeat([1.0, 2.0, 6.0], 50), np.repeat(np.arange(3), 50))
    assert (often.value, often.high) == (pytest.approx(once.value), pytest.approx(once.high))


def test_intervals_hold_as_often_as_they_say() -> None:
    """Answers of 1 to 6 tokens that share their example's luck; an overconfident model whose error is known."""
    rng = np.random.default_rng(0)
    inside = np.zeros(2)
    rounds = 400
    for _ in range(rounds):
        sizes = rng.integers(1, 7, 120)
        example = np.repeat(np.arange(120), sizes)
        luck = np.repeat(rng.normal(size=120), sizes)
        values = np.exp(luck / 2) * rng.exponential(size=len(example))
        found = clustered_mean(values, example)
        # Sizes and luck are independent: the mean is exp(1/8).
        inside[0] += found.low <= np.exp(1 / 8) <= found.high
        sure = np.where(luck > 0, 0.95, 0.65)
        correct = rng.random(len(example)) < np.where(luck > 0, 0.75, 0.5)
        error = calibration(tokens(example, sure, correct))
        inside[1] += error.low <= (0.2 + 0.15) / 2 <= error.high
    # 95% of 400, less three standard deviations of such a count.
    assert (inside / rounds >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / rounds)).all(), inside / rounds


def test_a_report_of_a_model_agrees_with_its_own_probabilities(zoo) -> None:
    """Every token's probability from a plain forward pass of one unpadded example at a time."""
    examples = sums(6)
    loaded = load_model(zoo["pivot"], "cpu")
    report = evaluate(loaded, examples, max_new_tokens=2, batch_size=4)
    rows = []
    for number, example in enumerate(examples):
        prompt = loaded.tokenizer(example.prompt).input_ids
        ids = [*loaded.tokenizer(example.prompt + example.answer).input_ids, loaded.tokenizer.eos_token_id]
        assert ids[: len(prompt)] == prompt
        with torch.no_grad():
            probs = torch.softmax(loaded.model(torch.tensor([ids])).logits[0].double(), -1)
        for place in range(len(prompt), len(ids)):
            best = probs[place - 1].max(0)
            right = float(best.indices == ids[place])
            rows.append((number, float(probs[place - 1, ids[place]].log()), float(best.values), right))
    table = np.array(rows)
    assert report.nll == pytest.approx(-table[:, 1].mean(), rel=1e-5)
    for family in ("sum", "product"):
        inside = table[[examples[int(number)].family == family for number in table[:, 0]]]
        assert report.families[family].nll == pytest.approx(-inside[:, 1].mean(), rel=1e-5)
        gaps = [(inside[:, 3] - inside[:, 2])[(inside[:, 2] * 10).astype(int) == b].sum() for b in range(10)]
        assert report.families[family].ece == pytest.approx(np.abs(gaps).sum() / len(inside), rel=1e-5)
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["families"]["sum"]["nll_low"] < found["families"]["sum"]["nll"] < found["families"]["sum"]["nll_high"]
    assert found["count"] == 6
    metrics = report.metrics()
    assert metrics["eval/sum/ece"] == report.families["sum"].ece
    assert metrics["eval/nll_low"] < metrics["eval/nll"]
    alone = evaluate(loaded, [Example("Solve 1+1 now.", " -> 2", "2", "sum")], max_new_tokens=2).metrics()
    assert "eval/nll" in alone
    assert "eval/nll_low" not in alone


TEMPLATE = (
    "{% for turn in messages %}<s>{{ turn.content }} again{% endfor %}{% if add_generation_prompt %} now{% endif %}"
)


def test_prompts_are_put_into_the_models_own_template(zoo, tmp_path: Path, monkeypatch, capsys) -> None:
    """Against a plain forward pass over the template written out by hand; and the command hands the flag on."""
    folder = tmp_path / "chat"
    shutil.copytree(zoo["pivot"], folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    loaded, example = load_model(folder, "cpu"), Example("Solve 1+1.", " -> 2", "2")
    prompt = loaded.tokenizer("<s>Solve 1+1. again now", add_special_tokens=False).input_ids
    answer = [*loaded.tokenizer(" -> 2", add_special_tokens=False).input_ids, loaded.tokenizer.eos_token_id]
    with torch.no_grad():
        found = torch.log_softmax(loaded.model(torch.tensor([prompt + answer])).logits[0].double(), -1)
    expected = -np.mean([found[len(prompt) - 1 + at, token].item() for at, token in enumerate(answer)])
    report = evaluate(loaded, [example], max_new_tokens=2, chat_template=True)
    assert report.nll == pytest.approx(expected, rel=1e-6)
    assert evaluate(loaded, [example], max_new_tokens=2).nll != pytest.approx(expected, rel=1e-3)
    write_examples(tmp_path / "e.jsonl", [example])
    command = ["gfviz", "eval", str(folder), "--data", str(tmp_path / "e.jsonl"), "--device", "cpu", "--json"]
    monkeypatch.setattr(sys, "argv", [*command, "--max-new-tokens", "2", "--chat-template"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["nll"] == pytest.approx(expected, rel=1e-6)


def test_a_tokenizer_without_a_template_is_refused_in_one_line(zoo) -> None:
    with pytest.raises(GfvizError, match=r"--chat-template\) is on, but the tokenizer of .* has none") as caught:
        evaluate(load_model(zoo["pivot"], "cpu"), sums(2), chat_template=True)
    assert "\n" not in str(caught.value)


def test_a_fusion_scores_with_the_template_that_it_trains_with(zoo, tmp_path: Path) -> None:
    folders = {}
    for name in ("pivot", "other"):
        folders[name] = tmp_path / name
        shutil.copytree(zoo[name], folders[name])
        tokenizer = AutoTokenizer.from_pretrained(folders[name])
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folders[name])
    config = settings({**zoo, **folders}, tmp_path, data={"chat_template": True}, training={"steps": 1})
    config["evaluation"]["at_end"] = True
    run = fuse(config, train=sums(4), evaluation=sums(4))
    expected = evaluate(run, sums(4), max_new_tokens=4, device="cpu", chat_template=True).nll
    assert run.reader().latest()["eval/nll"][1] == pytest.approx(expected, rel=1e-6)
