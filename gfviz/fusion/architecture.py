"""What can be known of a model before it is loaded: its configuration, and how long its batches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, ModelConfig
from gfviz.fusion.data import Example

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from gfviz.fusion.sizing import BatchShape


@dataclass(frozen=True)
class Architecture:
    """A model's configuration; `dtype` as its weights are stored; `shipped` where only gfviz's own copy was at hand."""

    name: str
    config: PretrainedConfig
    dtype: str
    source: str
    shipped: bool


def find_architecture(model: ModelConfig, key: str) -> Architecture:
    """The configuration of a folder, of a hub id, or of a model of the shipped recipes.

    The hub is not asked for those: without a network its retries take half a minute a model.

    Raises `GfvizError` naming `key` where there is none.
    """
    from transformers import AutoConfig

    from gfviz.fusion.recipes import shape_path

    shipped = shape_path(model.model)
    try:
        found = AutoConfig.from_pretrained(
            model.model, trust_remote_code=model.trust_remote_code, revision=model.revision,
            local_files_only=shipped is not None,
        )  # fmt: skip
        source = "its config.json"
    except Exception as error:
        if shipped is None or Path(model.model).exists():
            raise GfvizError(
                f"{key}: the size of {model.model} cannot be known: there is no config.json that can be read or "
                "fetched: name a folder that holds it"
            ) from error
        found, source = AutoConfig.from_pretrained(shipped), "the shape shipped with gfviz"
    text = found.get_text_config()
    stored = str(text.dtype or "float32").removeprefix("torch.")
    return Architecture(model.model, found, stored, source, source.startswith("the shape"))


def longest_batch(config: FusionConfig, examples: Sequence[Example] | None, notes: list[str]) -> BatchShape:
    """The padded batch of the longest examples on one device; the longest that the settings allow without data.

    Adds to `notes` what had to be assumed.
    """
    from gfviz.capture.models import load_tokenizer
    from gfviz.fusion.batch import pad_model
    from gfviz.fusion.sizing import BatchShape
    from gfviz.fusion.tokenise import ExampleEncoder

    rows = config.training.batch_size
    multiple = config.training.pad_multiple
    if examples:
        try:
            tokenizer = load_tokenizer(config.pivot.model, config.pivot.revision)
        except GfvizError:
            notes.append("batches: the pivot's tokenizer is not here; taken as long as the settings allow")
        else:
            encoder = ExampleEncoder(tokenizer, config.data.chat_template)
            limit = config.data.max_length or 2**31
            encoded = [item for item in map(encoder.encode, examples) if len(item.ids) <= limit]
            longest = sorted(encoded, key=lambda item: -len(item.ids))[:rows]
            if longest:
                batch = pad_model(longest, 0, config.training.padding_side, multiple)
                return BatchShape(rows, batch["input_ids"].shape[1], batch["mask"].shape[1])
    architecture = find_architecture(config.pivot, "pivot.model").config.get_text_config()
    length = config.data.max_length or int(architecture.max_position_embeddings)
    notes.append(f"batches: {length} tokens, all of them answer, the longest that the settings allow")
    return BatchShape(rows, -(-length // multiple) * multiple, length)
