"""Capture, against one unbatched forward pass a text and a dense softmax in float64."""

import json

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import gfviz as gv
from gfviz.capture import LoadedModel, Text, load_model, read_texts
from gfviz.capture.texts import as_texts
from gfviz.errors import GfvizError

TEXTS = ["the cat sat on the mat", "a dog", "naïve 🙂 café\r\nnext line", "the the the the cat cat dog on a mat again"]
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GROUPED = {**SMALL, "num_key_value_heads": 1, "max_position_embeddings": 64}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED),
    "phi3": lambda: transformers.Phi3Config(**GROUPED, pad_token_id=0),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=16),
}


@pytest.fixture(scope="module")
def tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def _model(kind, tokenizer, seed=0):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind](), dtype=torch.float32).eval()
    for parameter in model.parameters():  # initial weights are so small that all logits are alike
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    return LoadedModel(model, tokenizer, kind)


@torch.no_grad()
def _truth(loaded, texts, k, vocabulary=300):
    """The dense [V, V] matrix from one text at a time."""
    rows = []
    for text in map(Text.of, texts):
        encoded = loaded.tokenizer(text.content, return_offsets_mapping=True)
        logits = loaded.model(torch.tensor([encoded["input_ids"]])).logits[0].double()
        for t in range(1, len(logits)):
            start, end = encoded["offset_mapping"][t]
            if end > start and end > text.answer_start:
                probabilities = torch.softmax(logits[t - 1], 0)
                z = torch.zeros(vocabulary, dtype=torch.float64)
                top = logits[t - 1].topk(k).indices
                z[top] = probabilities[top]
                rows.append(z)
    z = torch.stack(rows).numpy()
    return z.T @ z / len(z), len(z)


def _full(graph, vocabulary=300):
    full = np.zeros((vocabulary, vocabulary))
    full[np.ix_(graph.keys, graph.keys)] = graph.dense()
    return full


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_every_architecture_gives_the_dense_gram_whatever_the_padding(kind, tokenizer):
    loaded = _model(kind, tokenizer)
    truth, positions = _truth(loaded, TEXTS, 8)
    for side in ("right", "left"):
        graph = gv.capture(loaded, TEXTS, k=8, padding_side=side)
        assert graph.positions == positions
        np.testing.assert_allclose(_full(graph), truth, atol=2e-6 * truth.max())
        rank = gv.capture(loaded, TEXTS, k=8, nodes="rank", padding_side=side)
        assert rank.n == 8
        np.testing.assert_allclose(np.trace(rank.dense()), np.trace(truth), rtol=1e-5)


def test_the_graph_does_not_depend_on_batches_or_on_how_it_is_kept(tokenizer):
    loaded = _model("llama", tokenizer)
    one = gv.capture(loaded, TEXTS, k=8)
    assert one.texts == tuple(TEXTS)
    for graph in (gv.capture(loaded, TEXTS, k=8, batch_tokens=1), gv.capture(loaded, TEXTS, k=8, keep="accumulated")):
        np.testing.assert_array_equal(graph.keys, one.keys)
        np.testing.assert_allclose(graph.dense(), one.dense(), atol=1e-6 * one.dense().max())


def test_only_the_answer_counts_and_spans_tell_where(tokenizer):
    loaded = _model("qwen2", tokenizer)
    pairs = [("the cat ", "sat on"), ("a ", "dog dog")]
    truth, positions = _truth(loaded, pairs, 5)
    graph = gv.capture(loaded, pairs, k=5)
    assert graph.positions == positions
    np.testing.assert_allclose(_full(graph), truth, atol=2e-6 * truth.max())
    for text, (prompt, answer), first, last in zip(graph.texts, pairs, graph.text_offsets, graph.text_offsets[1:]):
        spans = graph.record.spans[first:last]
        assert spans[-1][1] == len(text) == len(prompt + answer)
        assert (spans[1:, 0] == spans[:-1, 1]).all()


def test_long_texts_are_read_in_windows_that_predict_each_token_once(tokenizer):
    loaded = _model("gpt2", tokenizer)
    text = " ".join(TEXTS * 6)
    tokens = len(tokenizer(text)["input_ids"])
    assert tokens > 3 * 16
    graph = gv.capture(loaded, [text, "a dog"], k=4, max_length=16)
    assert graph.positions == tokens - 1 + len(tokenizer("a dog")["input_ids"]) - 1
    spans = graph.record.spans[: graph.text_offsets[1]]
    covered = sorted({c for a, b in spans for c in range(a, b)})
    assert covered == list(range(len(text)))


def test_progress_counts_positions_up_to_the_total(tokenizer):
    seen = []
    graph = gv.capture(_model("llama", tokenizer), TEXTS, k=4, batch_tokens=20, progress=lambda *x: seen.append(x))
    done, totals = zip(*seen)
    assert sorted(done) == list(done)
    assert done[-1] == graph.positions
    assert set(totals) == {graph.positions}


def test_a_saved_folder_is_loaded_and_captured_alike(tokenizer, tmp_path):
    loaded = _model("llama", tokenizer)
    loaded.model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    graph = gv.capture(tmp_path / "m", TEXTS, k=8)
    assert graph.source == "m"
    assert graph.content_hash == gv.capture(loaded, TEXTS, k=8).content_hash
    assert " the" in graph.labels or "the" in graph.labels


def test_models_that_cannot_be_captured_are_named(tokenizer, tmp_path):
    with pytest.raises(GfvizError, match="no such folder"):
        load_model(tmp_path / "nothing" / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GfvizError, match=r"no config\.json"):
        load_model(tmp_path / "empty")

    headless = transformers.LlamaModel(CONFIGS["llama"]())
    headless.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(GfvizError, match=r"lack lm_head\.weight"):
        load_model(tmp_path / "headless")

    vision = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.ViTModel(vision).save_pretrained(tmp_path / "vision")
    with pytest.raises(GfvizError, match="no language-model head"):
        load_model(tmp_path / "vision")

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    CONFIGS["llama"]().save_pretrained(pickled)
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(GfvizError, match="pickled"):
        load_model(pickled)

    remote = tmp_path / "remote"
    remote.mkdir()
    code = {"model_type": "strange", "auto_map": {"AutoConfig": "code.Strange", "AutoModelForCausalLM": "code.Model"}}
    (remote / "config.json").write_text(json.dumps(code))
    (remote / "code.py").write_text("open('/tmp/gfviz-remote-code-ran', 'w')")
    (remote / "model.safetensors").write_bytes(b"")
    with pytest.raises(GfvizError, match="code of its own"):
        load_model(remote)


@pytest.mark.parametrize("call,words", [
    (lambda m: gv.capture(m, []), "the list is empty"),
    (lambda m: gv.capture(m, ["a dog", "  "]), "text 1 is empty"),
    (lambda m: gv.capture(m, "a dog"), "not one string"),
    (lambda m: gv.capture(m, [3]), "not int"),
    (lambda m: gv.capture(m, ["a dog"], k=301), "k = 301 is outside 1..300"),
    (lambda m: gv.capture(m, ["a dog"], max_length=65), "max_length = 65"),
    (lambda m: gv.capture(m, ["a dog"], keep="all"), "keep = 'all'"),
    (lambda m: gv.capture(m.model, ["a dog"]), "pass the tokenizer"),
    (lambda m: gv.capture(m, ["a dog"], device="cuda:7", normalize="softmax"), "softmax"),
])  # fmt: skip
def test_bad_input_is_named(call, words, tokenizer):
    with pytest.raises(GfvizError, match=words):
        call(_model("llama", tokenizer))


def test_a_model_that_returns_nan_is_named(tokenizer):
    loaded = _model("llama", tokenizer)
    loaded.model.lm_head.weight.data[3] = torch.nan
    with pytest.raises(GfvizError, match="the logits of llama hold NaN"):
        gv.capture(loaded, TEXTS)


def test_texts_from_files(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one\\u2028two"}\n\n{"prompt": "2+2=", "answer": "4"}\n', encoding="utf-8"
    )
    assert read_texts(tmp_path / "a.jsonl") == [Text("one\u2028two"), Text("2+2=4", 4)]
    for name, content, words in [
        ("b.jsonl", '{"text": "a"}\n{', "line 2: not JSON"),
        ("c.jsonl", '{"txt": "a"}', "line 1: expected"),
        ("d.jsonl", '{"prompt": "a", "answer": " "}', "line 1: expected"),
        ("e.jsonl", "[" * 200_000, "line 1: not JSON"),
        ("f.txt", " \n\n", "holds no text"),
        ("g.jsonl", '{"text": "a"}\n{"text": "b \\ud800"}', r"g.jsonl, line 2: holds \\ud800, half of a surrogate"),
        ("h.jsonl", '{"prompt": "\\udfff", "answer": "x"}', r"h.jsonl, line 1: holds \\udfff"),
        ("i.jsonl", '{"prompt": "\\ud83d", "answer": "\\ude42"}', r"i.jsonl, line 1: holds \\ud83d"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(GfvizError, match=words):
            read_texts(tmp_path / name)
    (tmp_path / "g.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GfvizError, match="UTF-8"):
        read_texts(tmp_path / "g.txt")
    with pytest.raises(GfvizError, match="no such file"):
        read_texts(tmp_path / "none.txt")


def test_escaped_pairs_are_characters_and_halves_are_named_in_memory_too(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude42"}')
    assert read_texts(tmp_path / "a.jsonl") == [Text("\U0001f642")]
    with pytest.raises(GfvizError, match=r"text 1: holds \\ud800"):
        as_texts(["fine", ("a", "b\ud800")])


def test_the_public_name_is_callable_whatever_was_imported_first():
    import gfviz.capture as package

    assert gv.capture is package
    assert callable(gv.capture)
    assert gv.load_graph.__name__ == "load_graph"
    with pytest.raises(AttributeError):
        _ = gv.nothing


def test_plain_text_is_a_text_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\n\r\ntwo\u2028still two\n  \nthree".encode())
    assert [text.content for text in read_texts(tmp_path / "a.txt")] == ["one", "two\u2028still two", "three"]
    assert len(read_texts(tmp_path / "a.txt", limit=2)) == 2


def test_a_model_in_training_draws_no_dropout_and_stays_in_training(tokenizer):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0.5)
    model = transformers.GPT2LMHeadModel(config).train()
    model.transformer.h[0].attn.eval()
    found = gv.capture(model, TEXTS, tokenizer=tokenizer)
    modes = (model.training, model.transformer.h[0].attn.training, model.transformer.h[1].attn.training)
    assert modes == (True, False, True)
    assert found.content_hash == gv.capture(model.eval(), TEXTS, tokenizer=tokenizer).content_hash


def test_special_tokens_of_a_slow_tokenizer_do_not_count():
    slow = transformers.ByT5Tokenizer()
    config = transformers.GPT2Config(vocab_size=len(slow), n_embd=8, n_layer=1, n_head=1, n_positions=16)
    graph = gv.capture(transformers.GPT2LMHeadModel(config).eval(), ["abc"], tokenizer=slow)
    # a, b, c and </s>: b and c are predicted, the closing token is not part of the text.
    assert graph.positions == 2
