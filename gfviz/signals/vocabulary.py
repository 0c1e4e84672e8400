"""What each vocabulary id stands for, in bytes, whatever convention its tokenizer writes tokens in."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gfviz.errors import GfvizError

# No tokenizer comes near; a forged one with an id of 2^32 - 1 would make as many names.
_MAX_IDS = 1 << 24
_BYTE_FALLBACK = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")


@dataclass(frozen=True)
class Vocabulary:
    """The byte string of every vocabulary id, in one convention for all tokenizers: a word's leading space is a space.

    `tokens[i]` is the text that id i adds to a running text: `Ġthe` (byte-level), `▁the` (SentencePiece) and a
    word-initial WordPiece `the` are all b" the"; `##ing` is b"ing"; `<0x0A>` is b"\\n". Special tokens keep their
    written name and are listed in `special`. Two vocabularies are the same space of graph nodes iff their `identity`
    is equal.

    >>> Vocabulary.from_tokens(["Ġthe", "ing"]).tokens
    (b' the', b'ing')
    >>> Vocabulary.from_tokens(["▁the", "<0x0A>"]).labels([0, 1])
    [' the', '\\n']
    """

    tokens: tuple[bytes, ...]
    special: frozenset[int] = frozenset()

    @classmethod
    def from_tokenizer(cls, tokenizer, size: int | None = None) -> Vocabulary:
        """Read a Hugging Face tokenizer (fast or slow). `size` pads with unnamed ids up to the model's logits.

        Raises `GfvizError` for an object that has no vocabulary, or ids beyond 2^24. O(V).
        """
        try:
            written: dict[str, int] = tokenizer.get_vocab()
            special = frozenset(int(i) for i in tokenizer.all_special_ids)
        except AttributeError as error:
            raise GfvizError(
                f"labels must be a tokenizer, a Vocabulary or a list of strings, not {type(tokenizer).__name__}"
            ) from error
        count = max(size or 0, 1 + max(written.values(), default=-1))
        if count > _MAX_IDS:
            raise GfvizError(f"the tokenizer names the id {count - 1}: no vocabulary has more than {_MAX_IDS} ids")
        pieces = [f"<unused {i}>" for i in range(count)]
        for piece, index in written.items():
            pieces[index] = piece
        return cls.from_tokens(pieces, special=special, convention=_convention_of(tokenizer, pieces))

    @classmethod
    def from_tokens(
        cls, pieces: Sequence[str], special: frozenset[int] = frozenset(), convention: str | None = None
    ) -> Vocabulary:
        """Build from written tokens; `convention`: "byte-level", "metaspace", "wordpiece", "plain" (None: guessed)."""
        convention = convention or _guess_convention(pieces)
        decode = {"byte-level": _from_byte_level, "metaspace": _from_metaspace, "wordpiece": _from_wordpiece}.get(
            convention, _from_plain
        )
        return cls(tuple(_encode(piece) if i in special else decode(piece) for i, piece in enumerate(pieces)), special)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the tokens, in hex: equal iff every id means the same bytes."""
        digest = hashlib.sha256()
        for token in self.tokens:
            digest.update(len(token).to_bytes(4, "little"))
            digest.update(token)
        return digest.hexdigest()

    def labels(self, ids: Sequence[int]) -> list[str]:
        """Readable strings of some ids: UTF-8 where it is valid, `\\xNN` for the bytes that are not."""
        count = len(self.tokens)
        return [readable(self.tokens[i]) if 0 <= i < count else f"<unused {i}>" for i in map(int, ids)]


def readable(token: bytes) -> str:
    """A token's bytes as text; bytes that are no UTF-8 appear as `\\xNN`.

    >>> readable(b"caf\\xc3\\xa9"), readable(b"\\xc3")
    ('café', '\\\\xc3')
    """
    return token.decode("utf-8", errors="backslashreplace")


def _encode(text: str) -> bytes:
    # Tokenizer files may hold lone surrogates, which plain UTF-8 refuses.
    return text.encode("utf-8", errors="surrogatepass")


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins: printable Latin-1 for itself, the other bytes from U+0100 upwards in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table.update({chr(0x100 + offset): byte for offset, byte in enumerate(others)})
    return table


_ALPHABET = _byte_level_alphabet()


def _from_byte_level(piece: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in piece)
    except KeyError:
        return _encode(piece)  # an added token, written as it is


def _from_metaspace(piece: str) -> bytes:
    fallback = _BYTE_FALLBACK.match(piece)
    return bytes([int(fallback[1], 16)]) if fallback else _encode(piece.replace("\u2581", " "))


def _from_wordpiece(piece: str) -> bytes:
    return _encode(piece[2:]) if piece.startswith("##") and len(piece) > 2 else b" " + _encode(piece)


def _from_plain(piece: str) -> bytes:
    return _encode(piece)


def _guess_convention(pieces: Sequence[str]) -> str:
    if any(piece.startswith("\u2581") for piece in pieces):
        return "metaspace"
    if any("\u0120" in piece or "\u010a" in piece for piece in pieces):
        return "byte-level"
    if sum(piece.startswith("##") for piece in pieces) > 1:
        return "wordpiece"
    return "plain"


def _convention_of(tokenizer, pieces: Sequence[str]) -> str:
    """The convention that the tokenizer's own decoder undoes; a guess from its tokens where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # slow tokenizers have none
    if backend is None:
        return _guess_convention(pieces)
    described = json.loads(backend.to_str())
    kinds = {part.get("type") for part in _steps(described.get("decoder"), "decoders")}
    kinds |= {part.get("type") for part in _steps(described.get("pre_tokenizer"), "pretokenizers")}
    for kind, convention in (("ByteLevel", "byte-level"), ("Metaspace", "metaspace"), ("WordPiece", "wordpiece")):
        if kind in kinds:
            return convention
    return _guess_convention(pieces)


def _steps(part: dict | None, many: str) -> list[dict]:
    if not part:
        return []
    return [step for inner in part[many] for step in _steps(inner, many)] if many in part else [part]
