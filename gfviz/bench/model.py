"""A randomly initialised model with a tokenizer of numbered words: nothing is downloaded, only speed counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def random_model(size: Literal["100M", "tiny"], device: torch.device) -> PreTrainedModel:
    """A Llama of 100M parameters (vocabulary 32 000), or of a few thousand."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    big = size == "100M"
    config = LlamaConfig(
        vocab_size=32_000 if big else 128,
        hidden_size=640 if big else 16,
        intermediate_size=1728 if big else 32,
        num_hidden_layers=12 if big else 1,
        num_attention_heads=10 if big else 2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    model: torch.nn.Module = LlamaForCausalLM(config)
    return cast("PreTrainedModel", model.to(device))


def products_per_token(model: PreTrainedModel) -> int:
    """Multiplications of a forward pass for each token: it meets every weight once, but those of the embedding."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Word "w7" is token 7."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0")


def random_text(length: int, vocabulary: int, seed: int) -> str:
    """`length` words drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{i}" for i in torch.randint(vocabulary, (length,), generator=generator).tolist())
