"""Logits from disk, served log-probabilities, vocabularies."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gfviz.errors import GfvizError
from gfviz.signals import Vocabulary, read_logits, read_served_logprobs


def test_npy_and_safetensors_hold_the_same_logits(tmp_path):
    logits = torch.randn(3, 11)
    np.save(tmp_path / "a.npy", logits.numpy())
    save_file({"logits": logits, "other": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_logits(tmp_path / "a.npy"), logits)
    assert torch.equal(read_logits(tmp_path / "a.safetensors"), logits)
    np.save(tmp_path / "big.npy", logits.numpy().astype(">f4"))
    assert torch.equal(read_logits(tmp_path / "big.npy"), logits)


def test_unreadable_logits_are_named(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "ints.npy", np.zeros((2, 3), int))
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 64)
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    (tmp_path / "x.txt").write_text("hi")
    for name, words in [
        ("object.npy", "not a readable"),
        ("ints.npy", "floating"),
        ("cut.npy", "not a readable"),
        ("noise.safetensors", "not a readable"),
        ("two.safetensors", "name the tensor"),
        ("x.txt", "not '.txt'"),
        ("none.npy", "no such file"),
    ]:
        with pytest.raises(GfvizError, match=words) as caught:
            read_logits(tmp_path / name)
        assert name in str(caught.value)


def _write(tmp_path, *lines):
    path = tmp_path / "served.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_chat_legacy_and_bare_forms_give_the_same_signal(tmp_path):
    tops = [[("a", 0.5), ("b", 0.25)], [("b", 0.75)]]
    content = [
        {
            "token": t[0][0],
            "logprob": math.log(t[0][1]),
            "top_logprobs": [{"token": w, "logprob": math.log(p)} for w, p in t],
        }
        for t in tops
    ]
    legacy = {"tokens": ["a", "b"], "top_logprobs": [None, *({w: math.log(p) for w, p in t} for t in tops)]}
    forms = [
        {"choices": [{"logprobs": {"content": content}}]},
        {"choices": [{"logprobs": legacy}]},
        {"content": content},
        content,
    ]
    read = [read_served_logprobs(_write(tmp_path, form)) for form in forms]
    for served in read:
        assert served.tokens == (b"a", b"b")
        assert served.texts == ("ab",)
        torch.testing.assert_close(
            served.signal.probs()[0], torch.tensor([[0.5, 0.25], [0.75, 0.0]], dtype=torch.float64)
        )
        assert served.signal.logsumexp.abs().max() == 0
        with pytest.raises(GfvizError, match="log-probabilities"):
            served.signal.normalized("zscore")


def test_tokens_of_the_same_bytes_are_one_node_and_bytes_win_over_text(tmp_path):
    top = [
        {"token": "é", "bytes": [195, 169], "logprob": math.log(0.5)},
        {"token": "\\xc3\\xa9", "bytes": [195, 169], "logprob": math.log(0.25)},
    ]
    served = read_served_logprobs(_write(tmp_path, {"content": [{"token": "é", "top_logprobs": top}]}))
    assert served.tokens == ("é".encode(),)
    torch.testing.assert_close(served.signal.probs(), torch.tensor([[[0.75]]], dtype=torch.float64))


def position(*entries):
    return {"token": "a", "top_logprobs": [{"token": token, "logprob": value} for token, value in entries]}


@pytest.mark.parametrize(("entries", "words"), [
    ([("a", 0), ("b", 0)], r"line 2: the probabilities at position 2 sum to 2: "),
    ([("a", 0), ("a", 0)], r"position 2 sum to 2, 'a' is listed 2 times: "),
    ([("a", math.log(0.5)), ("b", math.log(0.5)), ("c", math.log(0.002))], r"sum to 1\.002"),
])  # fmt: skip
def test_probabilities_beyond_one_are_refused_by_position(tmp_path, entries, words):
    fine = {"content": [position(("a", -1), ("b", -1))]}
    legacy = {"top_logprobs": [{"a": -1}, dict(entries)]}
    with pytest.raises(GfvizError, match=words):
        read_served_logprobs(_write(tmp_path, fine, {"content": [position(("a", -1)), position(*entries)]}))
    if len(dict(entries)) == len(entries):
        with pytest.raises(GfvizError, match=words):
            read_served_logprobs(_write(tmp_path, fine, legacy))


def test_what_a_server_rounds_is_no_error(tmp_path):
    """Four printed decimals of a whole distribution sum to a little more than 1."""
    rounded = [(word, math.ceil(math.log(p) * 1e4) / 1e4) for word, p in (("a", 0.7), ("b", 0.2), ("c", 0.1))]
    assert sum(math.exp(value) for _, value in rounded) > 1
    served = read_served_logprobs(_write(tmp_path, {"content": [position(*rounded)]}))
    torch.testing.assert_close(
        served.signal.probs()[0, 0], torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), rtol=2e-4, atol=0
    )
    halves = [("a", math.log(0.5)), ("a", math.log(0.5))]
    (one,) = read_served_logprobs(_write(tmp_path, {"content": [position(*halves)]})).signal.probs().flatten()
    assert 1 - 1e-12 < float(one) <= 1


@pytest.mark.parametrize("line", [
    "{", "[1, 2]", '{"choices": [{"logprobs": null}]}',
    '{"content": [{"top_logprobs": [{"token": "a", "logprob": 3}]}]}',
    '{"content": [{"top_logprobs": [{"token": "a", "logprob": "NaN"}]}]}', "17", '{"content": 3}', "[" * 100_000,
    '{"content": [{"top_logprobs": [{"token": "a", "bytes": [300], "logprob": -1}]}]}',
])  # fmt: skip
def test_served_lines_of_the_wrong_shape_are_named(tmp_path, line):
    path = tmp_path / "served.jsonl"
    path.write_text(line)
    with pytest.raises(GfvizError, match=r"served\.jsonl"):
        read_served_logprobs(path)


def test_vocabulary_conventions_agree_on_what_a_token_writes():
    byte_level = Vocabulary.from_tokens(["Ġthe", "ing", "Ã©", "Ċ"])
    assert byte_level.tokens == (b" the", b"ing", "é".encode(), b"\n")
    metaspace = Vocabulary.from_tokens(["▁the", "ing", "<0xC3>"])
    assert metaspace.tokens == (b" the", b"ing", b"\xc3")
    wordpiece = Vocabulary.from_tokens(["the", "##ing", "##s"])
    assert wordpiece.tokens == (b" the", b"ing", b"s")
    assert metaspace.labels([2, 9]) == ["\\xc3", "<unused 9>"]
    assert byte_level.identity != metaspace.identity
    assert byte_level.identity == Vocabulary.from_tokens(["Ġthe", "ing", "Ã©", "Ċ"]).identity


def test_every_byte_has_a_byte_level_letter():
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = Vocabulary.from_tokens(letters, convention="byte-level")
    assert sorted(vocabulary.tokens) == [bytes([b]) for b in range(256)]
    encoded = ByteLevel(add_prefix_space=False).pre_tokenize_str("naïve 🙂\r\n")
    pieces = Vocabulary.from_tokens([piece for piece, _ in encoded], convention="byte-level")
    assert b"".join(pieces.tokens) == "naïve 🙂\r\n".encode()


@pytest.mark.parametrize(
    "entry",
    [
        '{"token": "a", "bytes": 99999999999, "logprob": -1}',
        '{"token": "a", "logprob": -1' + "0" * 400 + "}",
        '{"token": "a", "logprob": -1' + "0" * 5000 + "}",
    ],
)
def test_served_numbers_that_no_server_sends_are_one_line(tmp_path, entry):
    path = tmp_path / "served.jsonl"
    path.write_text('{"content": [{"token": "a", "top_logprobs": [' + entry + "]}]}")
    with pytest.raises(GfvizError, match="line 1"):
        read_served_logprobs(path)


def test_served_padding_cannot_take_all_memory(tmp_path):
    path = tmp_path / "served.jsonl"
    position = '{"a": -1}'
    short, long = f'{{"top_logprobs": [{position}]}}\n', ", ".join([position] * 20_000)
    path.write_text(short * 10_000 + f'{{"top_logprobs": [{long}]}}\n')
    with pytest.raises(GfvizError, match="10001 responses of up to 20000 positions"):
        read_served_logprobs(path)


def test_an_archive_is_no_npy(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(GfvizError, match="archive"):
        read_logits(tmp_path / "a.npy")


def test_a_forged_token_id_makes_no_names():
    class Forged:
        all_special_ids = ()

        def get_vocab(self):
            return {"a": 2**32 - 1}

    with pytest.raises(GfvizError, match="4294967295"):
        Vocabulary.from_tokenizer(Forged())
