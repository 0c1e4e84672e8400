"""Tokenizers of every kind and models of a few thousand weights, built in milliseconds."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gfviz.fusion.data import Example

TEXTS = [
    "Solve 6-1+8*4 now. 6-1=5, 8*4=32, 5+32=37 -> 37",
    "the quick brown fox jumps over the lazy dog, again and again",
    "naïve café, résumé: déjà vu — e\u0301 combining",
    "emoji 😀👍🏽 and 日本語 text\r\nnext line\ttab",
    "True and not False is True",
] * 4
KINDS = ("byte-level", "metaspace-bpe", "metaspace-unigram", "wordpiece", "characters")


def make_tokenizer(kind: str, size: int = 300, bos: bool = False) -> PreTrainedTokenizerFast:
    """A trained tokenizer of that kind with <unk>, <s>, </s> and <pad>."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    if kind == "byte-level":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "metaspace-bpe":
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=size + 256, special_tokens=special + alphabet)
    elif kind == "metaspace-unigram":
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        core.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>")
    elif kind == "wordpiece":
        core = Tokenizer(models.WordPiece(unk_token="<unk>"))
        core.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special)
    else:
        core = Tokenizer(models.WordLevel(unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        core.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(special_tokens=special)
    core.train_from_iterator(TEXTS, trainer)
    core.add_special_tokens([AddedToken(name, special=True) for name in special])
    if bos:
        from tokenizers import processors

        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def make_model(kind: str, vocabulary: int, width: int = 32, seed: int = 0, dropout: float = 0.0):
    """A random model: gpt2, llama or qwen2."""
    torch.manual_seed(seed)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=vocabulary, n_positions=128, n_embd=width, n_layer=2, n_head=4, attn_pdrop=dropout,
            resid_pdrop=dropout, embd_pdrop=dropout, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    cls, lm = (LlamaConfig, LlamaForCausalLM) if kind == "llama" else (Qwen2Config, Qwen2ForCausalLM)
    config = cls(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, attention_dropout=dropout,
        bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    return lm(config)


def save_tiny(folder: Path, kind: str = "llama", tokens: str = "byte-level", **options) -> Path:
    """A model folder with its tokenizer; the logits are a little wider than the tokenizer, as in real models."""
    tokenizer = make_tokenizer(tokens)
    model = make_model(kind, len(tokenizer) + 5, **options)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sums(count: int = 24) -> list[Example]:
    """Small sums in two families."""
    found = []
    for number in range(count):
        a, b = number % 7 + 1, number % 5 + 2
        if number % 2:
            found.append(Example(f"Solve {a}*{b} now.", f" {a}*{b}={a * b} -> {a * b}", str(a * b), "product"))
        else:
            found.append(Example(f"Solve {a}+{b} now.", f" -> {a + b}", str(a + b), "sum"))
    return found


def power_cut(step: int, kind: str = "step"):
    """An event hook that ends a training with a RuntimeError after that step (or checkpoint), as nothing expects."""

    def die(event) -> None:
        if event.kind == kind and event.step >= step:
            raise RuntimeError("the power is gone")

    return die
