"""The four kinds of tokenizer that the sample models are trained with.

Every kind is lossless on any Unicode text, but for the mark ▁ itself, which the SentencePiece kinds read as a space.
Digits are tokens of their own. The special tokens are the same: `<pad>` 0, `<s>` 1 (put before every text), `</s>` 2.
"""

import json
from collections.abc import Iterable
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gfviz.errors import GfvizError

TokenizerKind = Literal["byte-bpe", "unigram", "metaspace-bpe", "characters"]
KINDS: dict[TokenizerKind, str] = {
    "byte-bpe": "byte-level BPE",
    "unigram": "Unigram over Metaspace (SentencePiece style) with byte fallback",
    "metaspace-bpe": "BPE over Metaspace (SentencePiece style) with byte fallback",
    "characters": "single characters with byte fallback",
}
_PAD, _BOS, _EOS, _UNK = "<pad>", "<s>", "</s>", "<unk>"
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_PRINTABLE = [chr(code) for code in range(32, 127)]


def train_tokenizer(
    kind: TokenizerKind, texts: Iterable[str], size: int, longest: int, symbols_apart: bool = False
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of one kind on texts; `size` bounds its vocabulary (the byte pieces of a fallback included).

    `longest` is the model's context, in tokens. With `symbols_apart` no token spans two symbols, as ")*(" would: a
    small model learns formulas sooner where each symbol has a place of its own. `characters` learns nothing from
    the texts. Raises `GfvizError` for an unknown kind, or a size too small for the bytes and the special tokens.

    >>> tokenizer = train_tokenizer("characters", [], 400, 64)
    >>> tokenizer.decode(tokenizer("3+5=8 é")["input_ids"], skip_special_tokens=True)
    '3+5=8 é'
    """
    if kind not in KINDS:
        raise GfvizError(f"unknown kind of tokenizer '{kind}': use one of {', '.join(KINDS)}")
    if size < 256 + len(_PRINTABLE) + 4:
        raise GfvizError(f"a vocabulary of {size} cannot hold the bytes and the characters: use {260 + 95} or more")
    makers = {"byte-bpe": _byte_bpe, "unigram": _unigram, "metaspace-bpe": _metaspace_bpe, "characters": _characters}
    tokenizer = makers[kind](list(texts), size, symbols_apart)
    bos, eos = tokenizer.token_to_id(_BOS), tokenizer.token_to_id(_EOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A $B", special_tokens=[(_BOS, bos), (_EOS, eos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        padding_side="left",
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _apart(space: str) -> list[pre_tokenizers.PreTokenizer]:
    """Cut into words, single digits and single symbols; a word or symbol takes the space before it along."""
    pattern = rf"\d|{space}?\p{{L}}+|{space}?[^\s\p{{L}}\p{{N}}▁]|[\s▁]+"
    return [pre_tokenizers.Split(Regex(pattern), behavior="isolated")]


def _byte_bpe(texts: list[str], size: int, symbols_apart: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    splits = _apart(" ") if symbols_apart else [pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not symbols_apart)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_PAD, _BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _metaspace(tokenizer: Tokenizer, symbols_apart: bool) -> Tokenizer:
    splits = _apart("▁") if symbols_apart else [pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always"), *splits])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _unigram(texts: list[str], size: int, symbols_apart: bool) -> Tokenizer:
    tokenizer = _metaspace(Tokenizer(models.Unigram()), symbols_apart)
    trainer = trainers.UnigramTrainer(
        vocab_size=size - len(_BYTES),
        special_tokens=[_PAD, _BOS, _EOS, _UNK],
        unk_token=_UNK,
        initial_alphabet=["▁", *_PRINTABLE[1:]],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    # The trainer knows no byte pieces; a score below every learned one keeps them for what nothing else can write.
    lowest = min(score for _, score in state["model"]["vocab"]) - 10
    state["model"]["vocab"] += [[piece, lowest] for piece in _BYTES]
    state["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(state))


def _metaspace_bpe(texts: list[str], size: int, symbols_apart: bool) -> Tokenizer:
    tokenizer = _metaspace(Tokenizer(models.BPE(unk_token=_UNK)), symbols_apart)
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(_BYTES),
        special_tokens=[_PAD, _BOS, _EOS, _UNK],
        initial_alphabet=["▁", *_PRINTABLE[1:]],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    state = json.loads(tokenizer.to_str())
    known = state["model"]["vocab"]
    known.update({piece: len(known) + index for index, piece in enumerate(_BYTES)})
    state["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(state))


def _characters(texts: list[str], size: int, symbols_apart: bool) -> Tokenizer:
    vocabulary = {piece: index for index, piece in enumerate([_PAD, _BOS, _EOS, _UNK, *_PRINTABLE, *_BYTES])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_UNK, byte_fallback=True))
    tokenizer.add_special_tokens([_PAD, _BOS, _EOS, _UNK])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer
