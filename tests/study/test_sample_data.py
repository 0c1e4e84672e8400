"""What ships in sample_data: the models load and score what their cards say, the prose is disjoint, sizes hold."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gfviz.errors import GfvizError
from gfviz.paths import sample_data_dir
from gfviz.study import prose
from gfviz.study.sample_models import checkpoint_steps
from gfviz.study.sample_specs import SPECS
from gfviz.study.sample_tokenizers import KINDS, train_tokenizer
from gfviz.study.sample_training import Schedule, answer_loss, encode_examples, exact_matches, prose_nll
from gfviz.study.tasks import FAMILIES, make_split, read_jsonl

MODELS = sample_data_dir() / "models"
AWKWARD = "naïve 漢字 🙂 e\u0301 tab\tnew\nline <0x41> x  two"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shipped():
    """Every shipped model with its tokenizer, offline and without remote code."""
    loaded = {}
    for name in SPECS:
        model = AutoModelForCausalLM.from_pretrained(MODELS / name, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(MODELS / name, local_files_only=True, trust_remote_code=False)
        loaded[name] = (model.eval(), tokenizer, json.loads((MODELS / name / "scores.json").read_text()))
    return loaded


def test_models_are_ordinary_folders_of_the_stated_size(shipped):
    assert {folder.name for folder in MODELS.iterdir() if folder.is_dir()} == set(SPECS)
    for name, (model, tokenizer, scores) in shipped.items():
        files = {path.name for path in (MODELS / name).iterdir()}
        assert files >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        assert files >= {"generation_config.json", "README.md"}
        assert model.dtype == torch.float32
        assert sum(parameter.numel() for parameter in model.parameters()) == scores["parameters"]
        card = (MODELS / name / "README.md").read_text()
        assert f"| {scores['parameters']:,} |" in card
        assert "license: apache-2.0" in card
        assert model.config.vocab_size == len(tokenizer) == scores["vocabulary"]
        ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert ids == (0, 1, 2)
        assert ids == (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id)
        settings = model.generation_config
        assert ids == (settings.pad_token_id, settings.bos_token_id, settings.eos_token_id)
        assert (MODELS / name / "model.safetensors").stat().st_size <= 5e6
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 25e6


def test_at_least_three_kinds_of_tokenizer_and_two_architectures(shipped):
    kinds = {(type_name(tokenizer), spec_of(name)) for name, (_, tokenizer, _) in shipped.items()}
    assert len({kind for _, kind in kinds}) >= 3
    assert len({model.config.model_type for model, _, _ in shipped.values()}) >= 2
    vocabularies = [frozenset(tokenizer.get_vocab()) for _, tokenizer, _ in shipped.values()]
    assert len(set(vocabularies)) == len(SPECS)


def type_name(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]


def spec_of(name):
    return SPECS[name].tokenizer


def test_tokenizers_lose_nothing_and_prompts_are_prefixes(shipped):
    examples = make_split(list(FAMILIES), "test", 100, seed=9)
    for model, tokenizer, _ in shipped.values():
        for text in (AWKWARD, "Return the sum of 12 numbers.", examples[0].prompt):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
            assert ids[0] == tokenizer.bos_token_id
            assert set(tokenizer(text)) == {"input_ids", "attention_mask"}
        for example, (ids, prompt) in zip(examples, encode_examples(examples, tokenizer)):
            # A model that is given the prompt alone must see the very tokens that it was trained after.
            assert ids[:prompt] == tokenizer(example.prompt)["input_ids"]
            assert ids[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(ids[prompt:], skip_special_tokens=True).strip() == example.answer.strip()
            assert len(ids) <= min(108, model.config.max_position_embeddings)


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.kind == "task"])
def test_task_models_reach_their_card(shipped, name):
    model, tokenizer, scores = shipped[name]
    examples = [example for family in FAMILIES.values() for example in family.examples("test", 20, seed=0)]
    hits = exact_matches(model, tokenizer, examples, 40)
    by_family = {family: sum(hits[20 * i : 20 * i + 20]) / 20 for i, family in enumerate(FAMILIES)}
    for family, measured in by_family.items():
        # Four standard errors of 20 examples that are among the card's 200.
        share = scores["exact_match"][family]
        assert abs(measured - share) <= 4 * ((share * (1 - share) + 0.01) / 20) ** 0.5
    assert scores["test_examples_a_family"] == 200


def test_specialists_are_good_and_the_pivot_is_not(shipped):
    score = {name: shipped[name][2]["exact_match"] for name in SPECS if SPECS[name].kind == "task"}
    for name in ("task-specialist", "task-specialist-2"):
        for family in SPECS[name].families:
            assert score[name][family] >= 0.7, (name, family)
    gap = shipped["task-specialist"][2]["mean_exact_match"] - shipped["task-pivot"][2]["mean_exact_match"]
    assert gap >= 0.3
    assert shipped["task-pivot"][2]["parameters"] <= 500_000


def test_prose_models_reach_their_card_and_the_teacher_is_better(shipped):
    texts = (sample_data_dir() / "prose" / "held_out.txt").read_text("utf-8").splitlines()[::8]
    bits = {}
    for name in ("prose-teacher", "prose-student"):
        model, tokenizer, scores = shipped[name]
        _, bits[name] = prose_nll(model, tokenizer, texts)
        # A hundred paragraphs out of eight hundred: within a tenth.
        assert bits[name] == pytest.approx(scores["held_out_bits_per_byte"], rel=0.1)
        assert bits[name] < 3.0
    assert bits["prose-teacher"] < 0.95 * bits["prose-student"]


def test_nll_agrees_with_a_dense_computation_in_float64(shipped):
    model, tokenizer, _ = shipped["prose-student"]
    texts = ["Return the number of items.", "Raise an error if it is not there at all."]
    nats, tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(ids).logits[0].double()
        for place in range(1, ids.shape[1]):
            row = logits[place - 1]
            nats -= float(row[ids[0, place]] - row.exp().sum().log())
            tokens += 1
    per_token, bits = prose_nll(model, tokenizer, texts)
    assert per_token == pytest.approx(nats / tokens, rel=1e-5)
    assert bits == pytest.approx(nats / sum(map(len, texts)) / 0.6931471805599453, rel=1e-5)


def test_answer_loss_is_the_mean_over_labelled_tokens():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]], [[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]]]))
    labels = torch.tensor([[-100, 1, 0], [-100, 1, -100]])
    by_hand = -torch.log(torch.tensor([0.5, 0.25, 0.8])).mean()
    assert answer_loss(logits, labels).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_schedule_warms_up_then_falls_to_a_twentieth():
    rates = [Schedule(200, 2.0).rate(step) for step in range(200)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert checkpoint_steps(2) == (1, 2)


def test_held_out_prose_shares_no_ten_words_with_training():
    folder = sample_data_dir() / "prose"
    train, held_out = ((folder / f"{name}.txt").read_text("utf-8").splitlines() for name in ("train", "held_out"))

    def runs(lines):
        found = set()
        for line in lines:
            words = re.sub("[^a-z0-9]+", " ", line.lower()).split()
            found.update(tuple(words[start : start + 10]) for start in range(len(words) - 9))
        return found

    assert runs(train).isdisjoint(runs(held_out))
    assert len(set(train)) == len(train) > 5000
    assert len(set(held_out)) == len(held_out) > 200
    assert set(train).isdisjoint(held_out)
    assert all(45 <= len(line) <= 600 and line.isascii() for line in train + held_out)
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in (folder / "LICENSE-PSF").read_text("utf-8")
    about = json.loads((folder / "source.json").read_text())
    assert (about["train_paragraphs"], about["held_out_paragraphs"]) == (len(train), len(held_out))


def test_corpus_of_a_small_library(tmp_path):
    sentence = "This function returns the {} of the two numbers that it is given by its caller."
    for index in range(60):
        word = "abcdefghij"[index % 10] * (2 + index // 10)
        (tmp_path / f"m{index}.py").write_text(
            f'"""Short.\n\n{sentence.format(word)}\n"""\n# {sentence.format(word)}\n'
        )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.py").write_text(f'"""{sentence.format("secret")}"""\n')
    (tmp_path / "broken.py").write_text("def (")
    corpus = prose.build_corpus(tmp_path)
    own = [line for line in corpus.train if line.startswith("This function returns the")]
    assert own == sorted(set(own), key=own.index)
    assert 30 <= len(own) < 60
    assert not any("secret" in line for line in corpus.train + corpus.held_out)
    # Whole files are held out, and near copies of training text (all of these are) are dropped from them.
    assert not any(line.startswith("This function returns the") for line in corpus.held_out)


def test_tokenizer_kinds_and_their_refusals():
    texts = ["the number of the items in the list"] * 20
    for kind in KINDS:
        tokenizer = train_tokenizer(kind, texts, 420, 64)
        assert tokenizer.decode(tokenizer(AWKWARD)["input_ids"], skip_special_tokens=True) == AWKWARD
        assert len(tokenizer) <= 420
    with pytest.raises(GfvizError, match="unknown kind"):
        train_tokenizer("words", texts, 420, 64)
    with pytest.raises(GfvizError, match="cannot hold the bytes"):
        train_tokenizer("unigram", texts, 100, 64)


def test_shipped_examples_read_back():
    for split, count in {"train": 400, "validation": 200, "test": 200}.items():
        assert len(read_jsonl(sample_data_dir() / "tasks" / f"{split}.jsonl")) == count
