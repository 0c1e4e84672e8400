"""From an example to token ids, with the bytes of the answer that lie before each answer token.

Two models agree about a position when the same bytes of the answer lie behind them there, whatever their tokenizers.
That number, the *boundary* of a position, is all that alignment needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.fusion.data import Example
from gfviz.signals import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = -1


@dataclass(frozen=True)
class Encoded:
    """One example for one model: `ids` of prompt and answer, `start` the index of the first answer token (>= 1).

    Position j has its logits at index start − 1 + j and predicts ids[start + j]; `boundaries[j]` is the number of the
    answer's bytes before that token, −1 where the token before it ends inside a character.
    `closed`: EOS is the last token.
    """

    ids: list[int]
    start: int
    boundaries: np.ndarray
    closed: bool = True

    @property
    def positions(self) -> int:
        """How many answer tokens there are to predict."""
        return len(self.ids) - self.start


class ExampleEncoder:
    """Encodes examples for one tokenizer. Raises `GfvizError` for a chat template that the tokenizer does not have."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", chat_template: bool = False) -> None:
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        if chat_template and not tokenizer.chat_template:
            raise GfvizError(
                f"data.chat_template (--chat-template) is on, but the tokenizer of {tokenizer.name_or_path} has none: "
                "turn it off"
            )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Bytes of every id."""
        return Vocabulary.from_tokenizer(self.tokenizer)

    @cached_property
    def _prefix(self) -> list[int]:
        # What the tokenizer puts before any text (BOS), found by asking it; what it puts behind (SEP) has no place
        # between a prompt and its answer.
        bare = self._plain("a")
        whole = list(self.tokenizer("a").input_ids)
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start]
        return []

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids that the model reads before it answers."""
        if self.chat_template:
            turns = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            return self._plain(str(text))
        ids = self._prefix + self._plain(prompt)
        if not ids:
            # Something must stand before the first answer token to predict it from.
            start = next((i for i in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id) if i is not None), None)
            if start is None:
                raise GfvizError("a prompt is empty and the tokenizer has neither BOS nor EOS to begin with: fill it")
            ids = [int(start)]
        return ids

    def encode(self, example: Example) -> Encoded:
        """Ids and boundaries of one example, the answer closed by EOS where the tokenizer has one."""
        prompt = self.prompt_ids(example.prompt)
        ids, ends = self._answer(example, prompt)
        size = len(example.answer.encode("utf-8", "surrogatepass"))
        # The last token closes the answer, even where the tokenizer left out trailing white space.
        boundaries = [0, *ends[:-1]]
        eos = self.tokenizer.eos_token_id
        if eos is not None:
            ids = [*ids, int(eos)]
            boundaries.append(size)
        return Encoded(prompt + ids, len(prompt), np.array(boundaries, np.int64), eos is not None)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _answer(self, example: Example, prompt: list[int]) -> tuple[list[int], list[int]]:
        if not self.chat_template:
            # Together where the prompt's tokens stay what they are, since some tokenizers begin every text with a
            # space marker that an answer in the middle of a text must not have.
            whole, offsets = self._with_offsets(example.prompt + example.answer)
            count = len(prompt) - len(self._prefix)
            bare = prompt[len(self._prefix) :]
            if bare and example.prompt and whole[:count] == bare and len(whole) > count:
                rest = None if offsets is None else offsets[count:]
                return whole[count:], self._ends(whole[count:], rest, example, len(example.prompt))
        ids, offsets = self._with_offsets(example.answer)
        if not ids:
            raise GfvizError(f"the answer {example.answer[:40]!r} has no tokens for {self.tokenizer.name_or_path}")
        return ids, self._ends(ids, offsets, example, 0)

    def _with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        if not self.tokenizer.is_fast:
            return self._plain(text), None
        encoding: Any = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoding.input_ids), [(int(a), int(b)) for a, b in encoding.offset_mapping]

    def _ends(self, ids: list[int], offsets: list[tuple[int, int]] | None, example: Example, skipped: int) -> list[int]:
        answer = example.answer.encode("utf-8", "surrogatepass")
        exact = exact_ends([self.vocabulary.tokens[token] for token in ids], answer)
        if exact is not None:
            return exact
        if offsets is None:
            return [UNKNOWN] * len(ids)
        return offset_ends([(a - skipped, b - skipped) for a, b in offsets], example.answer)


def exact_ends(tokens: Sequence[bytes], text: bytes) -> list[int] | None:
    """Where each token ends in `text`, where the tokens' bytes put together are the text (a space before it aside).

    Bytes inside a character count, so the pieces of an emoji have ends of their own.

    >>> exact_ends([b" caf", b"\\xc3", b"\\xa9"], "café".encode())
    [3, 4, 5]
    >>> exact_ends([b"caf", b"e"], "café".encode()) is None
    True
    """
    joined = b"".join(tokens)
    shift = 0 if joined == text else 1 if joined == b" " + text else None
    if shift is None:
        return None
    return [max(0, int(end)) for end in np.cumsum([len(token) for token in tokens]) - shift]


def offset_ends(offsets: Sequence[tuple[int, int]], text: str) -> list[int]:
    """Where each token ends in the UTF-8 bytes of `text`, from character offsets; −1 inside a character.

    Tokens that share a character all carry its whole span: only the last of them ends where it ends.

    >>> offset_ends([(0, 1), (1, 2), (1, 2), (2, 3)], "aéb")
    [1, -1, 3, 4]
    """
    widths = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    at = np.concatenate([[0], np.cumsum(widths)]).astype(int)
    ends: list[int] = []
    reached = 0
    for number, (_, end) in enumerate(offsets):
        end = min(max(end, 0), len(text))
        following = offsets[number + 1 : number + 2]
        inside = bool(following) and following[0][0] < end
        if inside or end < reached:
            ends.append(UNKNOWN)
        else:
            reached = end
            ends.append(int(at[end]))
    return ends
