"""A teacher read from an offline cache, in bounded memory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.fusion.cache import (
    CacheMeta,
    read_meta,
    read_shard,
    require_equal,
    require_same_cuts,
    require_shards,
    shard_path,
    template_hash,
    values_are_sound,
)
from gfviz.fusion.data import Example, examples_hash
from gfviz.fusion.losses.base import AnswerSignal
from gfviz.fusion.rows import SignalDtype, SignalRow, from_rows
from gfviz.fusion.tokenise import ExampleEncoder

MEMORY_BYTES = 512 * 1024 * 1024
_NAMES = ("log_probs", "ids", "token_log_prob")


class CachedTeacher:
    """A teacher read from an offline cache; the same signal, to the last digit on a CPU, as its model online.

    A shard is read and checked whole at first use. Shards stay in memory up to `memory` bytes; of the others each
    example's rows are read from the file again: training asks for examples in random order, where throwing out one
    shard for another would read whole shards for single examples.
    """

    def __init__(self, name: str, folder: str | Path, meta: CacheMeta, memory: int = MEMORY_BYTES) -> None:
        self.name = name
        self.folder = Path(folder)
        self.meta = meta
        self.memory = memory
        self.held = 0
        self._shards: dict[int, dict[str, Tensor]] = {}
        self._offsets: dict[int, Tensor] = {}

    def signals(self, part: Mapping[str, Any]) -> AnswerSignal:
        """The signal of a teacher's part of a batch. Raises `GfvizError` for a damaged shard."""
        return from_rows([self.row(index) for index in part["index"]], part, self.meta.width)

    def idle(self) -> None:
        """Nothing to take part in: every process reads for itself."""

    def row(self, index: int) -> SignalRow:
        """The signal of one example of the cached data."""
        number, place = divmod(index, self.meta.shard_examples)
        if number not in self._offsets:
            self._read(number)
        offsets = self._offsets[number]
        start, stop = int(offsets[place]), int(offsets[place + 1])
        if number in self._shards:
            return SignalRow(*(self._shards[number][name][start:stop] for name in _NAMES))
        return self._row_on_disk(number, start, stop)

    def _read(self, number: int) -> None:
        shard = read_shard(shard_path(self.folder, number), self.meta, number)
        size = sum(tensor.numel() * tensor.element_size() for tensor in shard.values())
        self._offsets[number] = shard["offsets"]
        if self.held + size <= self.memory:
            self._shards[number] = shard
            self.held += size

    def _row_on_disk(self, number: int, start: int, stop: int) -> SignalRow:
        path = shard_path(self.folder, number)
        try:
            with safe_open(path, framework="pt") as shard:
                found = {name: shard.get_slice(name)[start:stop] for name in _NAMES}
        except (SafetensorError, OSError) as error:
            raise GfvizError(
                f"{path} is missing or damaged ({type(error).__name__}): run `gfviz cache` again"
            ) from error
        # The file may have changed since it was checked.
        if len(found["token_log_prob"]) != stop - start or not values_are_sound(found, self.meta):
            raise GfvizError(f"{path} holds impossible values: run `gfviz cache` again after removing it")
        return SignalRow(*(found[name] for name in _NAMES))


def _unknown_of(model: str, cached: str) -> bool:
    # `hub:ID` names no commit, and a path that is gone is all that is left of a folder.
    return model.startswith("hub:") and ("@" not in model or not cached.startswith("hub:"))


def open_cache(
    name: str,
    folder: str | Path,
    examples: Sequence[Example],
    *,
    dtype: SignalDtype,
    temperature: float,
    chat_template: bool,
    model: str | None = None,
) -> tuple[CachedTeacher, Any]:
    """A cached teacher and its tokenizer, checked against the data and settings of a run.

    `model` is the `model_hash` of the teacher that the run names; one that is not on this machine at all (`hub:ID`)
    has nothing to be compared with. Raises `GfvizError` naming both values where the cache was made from other data or
    another model, with another chat template, precision or temperature, or where its own tokenizer has changed.
    """
    from gfviz.capture.models import load_tokenizer

    folder = Path(folder)
    meta = read_meta(folder)
    try:
        tokenizer = load_tokenizer(folder / "tokenizer")
    except GfvizError as error:
        raise GfvizError(f"the cache {folder} lacks its tokenizer: run `gfviz cache` again") from error
    encoder = ExampleEncoder(tokenizer, chat_template)
    wanted = CacheMeta(**{
        **asdict(meta), "tokenizer_hash": encoder.vocabulary.identity, "data_hash": examples_hash(examples),
        "template_hash": template_hash(tokenizer, chat_template), "dtype": dtype, "temperature": temperature,
        "examples": len(examples),
    })  # fmt: skip
    checked = ("tokenizer_hash", "template_hash", "data_hash", "examples", "dtype", "temperature")
    require_equal(meta, wanted, folder, checked)
    if model is not None and model != meta.model_hash and not _unknown_of(model, meta.model_hash):
        raise GfvizError(
            f"the cache {folder} does not fit: its model is {meta.model_hash}, needed is {model}: capture into another "
            "folder"
        )
    require_shards(folder, meta)
    require_same_cuts(folder, meta, encoder, examples)
    return CachedTeacher(name, folder, meta), tokenizer
