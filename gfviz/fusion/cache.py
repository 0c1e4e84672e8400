"""Offline teacher signals: written once, shard by shard, resumable; read in place of the model, verified.

    FOLDER/cache.json  shard-00000.safetensors …  tokenizer/

A shard holds `log_probs` [N, k], `ids` [N, k], `token_log_prob` [N] of its examples' answer tokens one after another,
their `boundaries` [N] (bytes of the answer before each token) and `offsets` [S+1].
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.files import atomic_path, atomic_write_text, fresh_folder, read_small_text, remove_whatever, sync_folder
from gfviz.fusion.batch import pad_model
from gfviz.fusion.data import Example, examples_hash
from gfviz.fusion.lengths import require_room
from gfviz.fusion.rows import DTYPES, SignalDtype, SignalRow
from gfviz.fusion.tokenise import Encoded, ExampleEncoder

CACHE_VERSION = 1
_MAX_META = 1024 * 1024


@dataclass(frozen=True)
class CacheMeta:
    """What a cache was made from and how. Two caches are interchangeable iff these are equal.

    What has a default is not in the caches of earlier versions, and then not compared.
    """

    version: int
    model: str
    model_hash: str
    tokenizer_hash: str
    template_hash: str
    data_hash: str
    examples: int
    k: int
    width: int
    dtype: SignalDtype
    temperature: float
    shard_examples: int
    encoding_hash: str = ""
    context: int | None = None

    @property
    def shards(self) -> int:
        """How many shard files the whole cache has."""
        return -(-self.examples // self.shard_examples)


@dataclass(frozen=True)
class CacheReport:
    """A finished capture: tokens and bytes on disk, and how many shards were there already."""

    folder: Path
    examples: int
    tokens: int
    bytes: int
    reused_shards: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the shards per answer token."""
        return self.bytes / max(self.tokens, 1)


def build_cache(
    model: Any,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    k: int | None = None,
    dtype: SignalDtype = "float16",
    temperature: float = 1.0,
    chat_template: bool = False,
    batch_size: int = 16,
    shard_examples: int = 256,
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    part: tuple[int, int] = (0, 1),
    on_progress: Callable[[int, int], None] | None = None,
) -> CacheReport:
    """Capture a teacher's signals over `examples` into `folder`; an interrupted capture goes on where it stopped.

    `model` is a folder, a hub id or a `LoadedModel`. `part` = (n, of): only every of-th shard from the n-th on, so that
    several processes fill one folder; the report is of those. Raises `GfvizError` where the folder holds a cache of
    something else (both hashes are named), for k above the vocabulary, for examples longer than the teacher's context,
    or a teacher that returns NaN.
    """
    from gfviz.capture.models import LoadedModel
    from gfviz.fusion.evaluation import load_target
    from gfviz.fusion.saving import model_hash, tokenizer_hash
    from gfviz.fusion.teachers import OnlineTeacher, check_width

    if not examples:
        raise GfvizError("there is no example to cache")
    loaded = load_target(model, device, revision, trust_remote_code)
    folder = Path(folder)
    encoder = ExampleEncoder(loaded.tokenizer, chat_template)
    width = int(loaded.model.get_output_embeddings().weight.shape[0])
    meta = CacheMeta(
        CACHE_VERSION, str(loaded.name if isinstance(model, LoadedModel) else model),
        model_hash(str(loaded.model.name_or_path), loaded.revision), encoder.vocabulary.identity,
        template_hash(loaded.tokenizer, chat_template), examples_hash(examples), len(examples),
        check_width(k, {"the teacher": width}), width, dtype, temperature, shard_examples,
        tokenizer_hash(loaded.tokenizer), loaded.context,
    )  # fmt: skip
    require_room(examples, encoder, loaded.context, meta.model)
    _claim(folder, meta)
    if part[0] == 0:
        _keep_tokenizer(loaded.tokenizer, folder, meta)
    teacher = OnlineTeacher(loaded.name, loaded.model, meta.k, temperature, dtype)
    tokens = size = reused = 0
    for number in range(part[0], meta.shards, part[1]):
        path = shard_path(folder, number)
        chosen = examples[number * shard_examples : (number + 1) * shard_examples]
        if path.is_file() and _shard_is_whole(path, meta, number):
            reused += 1
        else:
            _write_shard(path, teacher, [encoder.encode(example) for example in chosen], meta, batch_size)
        tokens += _shard_tokens(path)
        size += path.stat().st_size
        if on_progress is not None:
            on_progress(min(len(examples), (number + 1) * shard_examples), len(examples))
    return CacheReport(folder, len(examples), tokens, size, reused)


def _shard_tokens(path: Path) -> int:
    with safe_open(path, framework="pt") as shard:
        return int(shard.get_slice("token_log_prob").get_shape()[0])


def cache_report(folder: str | Path, reused_shards: int = 0) -> CacheReport:
    """The report of a cache that is whole. Raises `GfvizError` for one that lacks shards."""
    meta = read_meta(folder)
    paths = [shard_path(Path(folder), number) for number in range(meta.shards)]
    require_shards(Path(folder), meta)
    sizes = sum(path.stat().st_size for path in paths)
    return CacheReport(Path(folder), meta.examples, sum(map(_shard_tokens, paths)), sizes, reused_shards)


def require_shards(folder: Path, meta: CacheMeta) -> None:
    """Raise `GfvizError` where a shard's file is not there."""
    missing = [number for number in range(meta.shards) if not shard_path(folder, number).is_file()]
    if missing:
        raise GfvizError(f"the cache {folder} lacks {len(missing)} of {meta.shards} shards: run `gfviz cache` again")


def template_hash(tokenizer: Any, chat_template: bool) -> str:
    """SHA-256 of the chat template where it is used, else of nothing."""
    return hashlib.sha256((str(tokenizer.chat_template) if chat_template else "").encode()).hexdigest()


def shard_path(folder: Path, number: int) -> Path:
    """File of one shard."""
    return folder / f"shard-{number:05d}.safetensors"


def read_meta(folder: str | Path) -> CacheMeta:
    """What `cache.json` says. Raises `GfvizError` where it is missing, broken or of another version."""
    path = Path(folder) / "cache.json"
    try:
        data = json.loads(read_small_text(path, _MAX_META))
        version = data.get("version")
        if type(version) is int and version != CACHE_VERSION:
            raise GfvizError(f"{path} has version {version}, this gfviz reads {CACHE_VERSION}: capture anew")
        meta = CacheMeta(**{
            name: data[name] if field.default is MISSING else data.get(name, field.default)
            for name, field in CacheMeta.__dataclass_fields__.items()
        })  # fmt: skip
        if not _plausible(meta):
            raise GfvizError(f"{path}: its numbers cannot be right: capture anew")
    except GfvizError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GfvizError(
            f"no teacher cache at {folder} ({type(error).__name__}): make one with `gfviz cache`"
        ) from error
    return meta


def _plausible(meta: CacheMeta) -> bool:
    numbers = (meta.version, meta.examples, meta.k, meta.width, meta.shard_examples)
    texts = (
        meta.model, meta.model_hash, meta.tokenizer_hash, meta.template_hash, meta.data_hash, meta.dtype,
        meta.encoding_hash,
    )  # fmt: skip
    return (
        all(isinstance(text, str) for text in texts)
        and meta.dtype in DTYPES
        and all(type(number) is int and 0 < number < 2**31 for number in numbers)
        and meta.k <= meta.width
        and (meta.context is None or (type(meta.context) is int and 0 < meta.context < 2**31))
        and type(meta.temperature) in (int, float)
        and 0 < meta.temperature < 1e9
    )


def _keep_tokenizer(tokenizer: Any, folder: Path, meta: CacheMeta) -> None:
    """Write the tokenizer whole or not at all; one that is there and is the same stays untouched for its readers."""
    from gfviz.capture.models import load_tokenizer

    target, scratch, old = folder / "tokenizer", folder / ".tokenizer.new", folder / ".tokenizer.old"
    if target.is_dir():
        with suppress(GfvizError):
            kept = load_tokenizer(target)
            same_names = ExampleEncoder(kept, False).vocabulary.identity == meta.tokenizer_hash
            if same_names and kept.chat_template == tokenizer.chat_template:
                return
    try:
        # A cache from elsewhere may hold a link by that name, through which all would be written elsewhere.
        fresh_folder(scratch)
        remove_whatever(old)
        tokenizer.save_pretrained(scratch)
        for path in scratch.rglob("*"):
            if path.is_file():
                with open(path, "rb") as written:
                    os.fsync(written.fileno())
        if target.exists():
            os.rename(target, old)
        os.rename(scratch, target)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:
        raise GfvizError(f"cannot write {target}: {' '.join(str(error).split())[:200]}") from error
    finally:
        for stale in (scratch, old):
            with suppress(OSError):
                remove_whatever(stale)


def _claim(folder: Path, meta: CacheMeta) -> None:
    if not (folder / "cache.json").exists():
        atomic_write_text(folder / "cache.json", json.dumps(asdict(meta), indent=1) + "\n")
        return
    require_equal(read_meta(folder), meta, folder, tuple(CacheMeta.__dataclass_fields__))


def require_equal(found: CacheMeta, wanted: CacheMeta, folder: Path, names: Sequence[str]) -> None:
    """Raise `GfvizError` with both values for the first of `names` in which two caches differ."""
    for name in names:
        told, known = getattr(found, name), getattr(wanted, name)
        if name == "model" or told in ("", None):
            continue
        if told != known:
            raise GfvizError(
                f"the cache {folder} does not fit: its {name} is {told}, needed is {known}: capture into another folder"
            )


def _write_shard(path: Path, teacher: Any, encoded: list[Encoded], meta: CacheMeta, batch_size: int) -> None:
    rows: list[SignalRow] = []
    for start in range(0, len(encoded), batch_size):
        rows += teacher.rows_of(pad_model(encoded[start : start + batch_size], 0, "left"))
    if any(torch.isnan(row.log_probs).any() or torch.isnan(row.token_log_prob).any() for row in rows):
        raise GfvizError(f"the teacher {meta.model} returned NaN: check its weights and dtype")
    lengths = torch.tensor([0, *(len(row.token_log_prob) for row in rows)])
    tensors = {
        "log_probs": torch.cat([row.log_probs for row in rows]),
        "ids": torch.cat([row.ids for row in rows]),
        "token_log_prob": torch.cat([row.token_log_prob for row in rows]),
        "boundaries": torch.cat([torch.from_numpy(item.boundaries).to(torch.int32) for item in encoded]),
        "offsets": lengths.cumsum(0),
    }
    with atomic_path(path) as scratch:
        try:
            save_file(tensors, scratch, {"data_hash": meta.data_hash, "version": str(CACHE_VERSION)})
        except SafetensorError as error:
            raise GfvizError(f"cannot write {path}: {error}") from error


def _shard_is_whole(path: Path, meta: CacheMeta, number: int) -> bool:
    try:
        read_shard(path, meta, number)
    except GfvizError:
        return False
    return True


def read_shard(path: Path, meta: CacheMeta, number: int) -> dict[str, Tensor]:
    """The checked tensors of one shard. Raises `GfvizError` for a missing, cut, foreign or impossible one."""
    count = min(meta.shard_examples, meta.examples - number * meta.shard_examples)
    try:
        with safe_open(path, framework="pt") as shard:
            described = shard.metadata() or {}
            if described.get("data_hash") != meta.data_hash:
                raise GfvizError(f"{path} belongs to another cache: capture again")
            if described.get("version") != str(CACHE_VERSION):
                raise GfvizError(
                    f"{path} has version {str(described.get('version'))[:20]}, this gfviz reads {CACHE_VERSION}: "
                    "capture anew"
                )
            found = {name: shard.get_tensor(name) for name in ("log_probs", "ids", "token_log_prob", "offsets")}
    except (SafetensorError, OSError) as error:
        raise GfvizError(f"{path} is missing or damaged ({type(error).__name__}): run `gfviz cache` again") from error
    offsets, total = found["offsets"], found["token_log_prob"].numel()
    sound = (
        found["token_log_prob"].dim() == 1
        and found["log_probs"].shape == found["ids"].shape == (total, meta.k)
        and found["log_probs"].dtype == DTYPES[meta.dtype]
        and found["ids"].dtype == torch.int32
        and found["token_log_prob"].dtype == torch.float32
        and offsets.shape == (count + 1,)
        and offsets.dtype == torch.int64
        and int(offsets[0]) == 0
        and int(offsets[-1]) == total
        and bool((offsets.diff() > 0).all())
        and values_are_sound(found, meta)
    )
    if not sound:
        raise GfvizError(f"{path} holds impossible values: run `gfviz cache` again after removing it")
    return found


def require_same_cuts(folder: Path, meta: CacheMeta, encoder: ExampleEncoder, examples: Sequence[Example]) -> None:
    """Raise `GfvizError` where `encoder` cuts the answers of the first shard otherwise than the capture did."""
    path = shard_path(folder, 0)
    try:
        with safe_open(path, framework="pt") as shard:
            kept = shard.get_tensor("boundaries")
    except (SafetensorError, OSError) as error:
        raise GfvizError(f"{path} is missing or damaged ({type(error).__name__}): run `gfviz cache` again") from error
    cut = [encoder.encode(example).boundaries for example in examples[: meta.shard_examples]]
    if kept.tolist() != [int(place) for item in cut for place in item]:
        raise GfvizError(
            f"the cache {folder} does not fit: its tokenizer cuts the texts otherwise than it did at the capture: "
            "capture into another folder"
        )


def values_are_sound(found: Mapping[str, Tensor], meta: CacheMeta) -> bool:
    """Whether log-probabilities are such and ids are of the vocabulary."""
    return (
        bool((found["ids"] >= 0).all())
        and bool((found["ids"] < meta.width).all())
        and not bool(torch.isnan(found["log_probs"]).any())
        and bool((found["log_probs"] <= 1e-2).all())
        and not bool(torch.isnan(found["token_log_prob"]).any())
    )
