"""Alignment by bytes, over every pair of tokenizer kinds."""

import itertools

import numpy as np
import pytest

from gfviz.fusion.align import align
from gfviz.fusion.data import Example
from gfviz.fusion.tokenise import ExampleEncoder, exact_ends, offset_ends
from tests.fusion.tiny import KINDS, make_tokenizer

ANSWERS = [
    " 3+5=8, 8*2=16 -> 16",
    " the lazy dog, again",
    " naïve café: déjà vu",
    " e\u0301 combining e\u0301\u0323 marks",
    " emoji 😀👍🏽 and 日本語",
    " next line\r\n\ttab  two  spaces",
    " ends in space ",
    "glued",
    " a </s> b <s>",
]
PROMPT = "Solve this now."


@pytest.fixture(scope="module")
def encoders() -> dict[str, ExampleEncoder]:
    return {kind: ExampleEncoder(make_tokenizer(kind, bos=kind == "metaspace-bpe")) for kind in KINDS}


def true_prefixes(encoder: ExampleEncoder, encoded, answer: str) -> list[str | None]:
    """Text behind each position, by decoding what stands before it: another way than offsets or token bytes."""
    found: list[str | None] = []
    tokenizer = encoder.tokenizer
    for position in range(encoded.positions):
        ids = encoded.ids[encoded.start : encoded.start + position]
        found.append(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return found


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("first", "second"), list(itertools.product(KINDS, KINDS)))
def test_aligned_positions_have_the_same_text_behind_them(encoders, first: str, second: str, answer: str) -> None:
    example = Example(PROMPT, answer)
    one, two = encoders[first].encode(example), encoders[second].encode(example)
    found = align(one, two)
    # The start and the end of the answer always meet.
    assert found.student[0] == 0 or one.boundaries[found.student[0]] == 0
    assert (found.student[-1], found.teacher[-1]) == (one.positions - 1, two.positions - 1)
    assert (np.diff(found.student) > 0).all()
    assert (np.diff(found.teacher) > 0).all()
    behind_one = true_prefixes(encoders[first], one, answer)
    behind_two = true_prefixes(encoders[second], two, answer)
    for i, j in zip(found.student, found.teacher):
        # What a tokenizer cannot write (unknown characters, WordPiece's spaces) is no evidence against the place.
        a, b = (squeezed(text) for text in (behind_one[i], behind_two[j]))
        if a is not None and b is not None:
            assert a == b, (i, j)


def squeezed(text: str) -> str | None:
    if "<unk>" in text or "\ufffd" in text:
        return None
    return "".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_encoding_aligns_with_itself_completely(encoders, kind: str, answer: str) -> None:
    encoded = encoders[kind].encode(Example(PROMPT, answer))
    known = np.unique(encoded.boundaries[encoded.boundaries >= 0])
    found = align(encoded, encoded)
    assert len(found.student) == len(known)
    np.testing.assert_array_equal(found.student, found.teacher)
    np.testing.assert_array_equal(found.student_chunks, found.teacher_chunks)


@pytest.mark.parametrize("answer", ANSWERS)
def test_byte_level_against_characters_covers_every_token(encoders, answer: str) -> None:
    """Characters end everywhere a byte-level token ends, unless that is inside a character."""
    example = Example(PROMPT, answer)
    one, two = encoders["byte-level"].encode(example), encoders["characters"].encode(example)
    encoded = answer.encode()
    ends = [int(b) for b in one.boundaries]
    inside = sum(1 for b in ends if b < len(encoded) and encoded[b] & 0xC0 == 0x80)
    if "</s>" in answer:
        return
    assert len(align(one, two).student) == one.positions - inside


def test_spans_have_equal_bytes(encoders) -> None:
    example = Example(PROMPT, " the quick brown fox")
    one, two = encoders["byte-level"].encode(example), encoders["metaspace-bpe"].encode(example)
    found = align(one, two)
    size = len(example.answer)
    for chunk in range(found.chunks):
        spans = []
        for encoded, numbers in ((one, found.student_chunks), (two, found.teacher_chunks)):
            inside = np.flatnonzero(numbers == chunk)
            ends = [*encoded.boundaries.tolist(), size]
            spans.append((ends[inside[0]], ends[inside[-1] + 1]))
        assert spans[0] == spans[1]


def test_prompt_and_answer_are_the_whole_text(encoders) -> None:
    for kind in ("byte-level", "metaspace-bpe"):
        encoder = encoders[kind]
        encoded = encoder.encode(Example("the quick brown", " fox jumps"))
        text = encoder.tokenizer.decode(encoded.ids, skip_special_tokens=True)
        assert text.strip() == "the quick brown fox jumps"
        assert encoded.ids[: encoded.start] == encoder.prompt_ids("the quick brown")


def test_a_prompt_that_would_merge_with_its_answer_is_kept_apart(encoders) -> None:
    encoder = encoders["byte-level"]
    encoded = encoder.encode(Example("the qu", "ick brown"))
    assert encoded.ids[: encoded.start] == encoder.prompt_ids("the qu")
    assert encoder.tokenizer.decode(encoded.ids, skip_special_tokens=True) == "the quick brown"


def test_chat_template_ids() -> None:
    tokenizer = make_tokenizer("byte-level")
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
    )
    encoder = ExampleEncoder(tokenizer, chat_template=True)
    encoded = encoder.encode(Example("hello", "fox"))
    assert tokenizer.decode(encoded.ids) == "<s>hello</s><s>fox</s>"
    assert encoded.boundaries[0] == 0
    assert encoded.boundaries[-1] == 3


def test_hand_worked_ends() -> None:
    assert exact_ends([b" a", b"bc"], b"abc") == [1, 3]
    assert exact_ends([b"abd"], b"abc") is None
    # An emoji in three tokens that all carry its span, then a letter: only the third ends where it ends.
    assert offset_ends([(0, 1), (0, 1), (0, 1), (1, 2)], "😀b") == [-1, -1, 4, 5]
