"""Capture: a model, some texts, and the graph of how its output tokens act together on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gfviz.capture.forward import SignalReader
from gfviz.capture.models import LoadedModel, load_model
from gfviz.capture.texts import Text, as_texts
from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.signals import TopKLogits, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_WINDOW = 1024
# Above this many kept entries (about 400 MB) a graph is accumulated instead of held as factors.
_FACTOR_ENTRIES = 1 << 25
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Window:
    """A stretch of one tokenized text; `counts[t]` says whether token t is to be predicted, spans are characters."""

    text: int
    ids: np.ndarray
    counts: np.ndarray
    spans: np.ndarray


def capture(
    model: str | Path | LoadedModel | PreTrainedModel,
    texts: Iterable[str | Text | tuple[str, str]],
    k: int | None = None,
    nodes: str = "token",
    normalize: str = "prob",
    weights: str = "uniform",
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    padding_side: str = "right",
    keep: str = "auto",
    keep_texts: bool = True,
    device: str | None = None,
    progress: bool | Progress = False,
) -> CoactivationGraph:
    """Run a causal language model over texts and return their co-activation graph.

    `model` is a folder, a hub id, a `LoadedModel`, or a transformers model (then pass its `tokenizer`). `texts` are
    strings, every token of which counts after the first, or (prompt, answer) pairs, of which the answer's tokens count
    (MATH.md section 1). `k` defaults to min(64, V). Texts longer than `max_length` (the model's context, at most 1024,
    by default) are read in consecutive windows, each token predicted once. Batches hold texts of like length and at
    most `batch_tokens` tokens; the graph does not depend on them beyond rounding. `keep` is "factors" (per-position
    rows, which the bootstrap and example contexts need), "accumulated", or "auto" (factors up to 2^25 entries).
    `progress` shows a bar, or calls back with (positions done, positions in all).
    Raises `GfvizError` for bad input. Cost: the forward passes, and O(T·k) memory for factors.
    """
    if keep not in ("auto", "factors", "accumulated"):
        raise GfvizError(f"keep = {keep!r} is unknown: choose auto, factors or accumulated")
    chosen = as_texts(texts)
    loaded = _loaded(model, tokenizer, device)
    vocabulary_size = loaded.model.get_output_embeddings().weight.shape[0]
    if k is not None and not 1 <= k <= vocabulary_size:
        raise GfvizError(f"k = {k} is outside 1..{vocabulary_size}, the vocabulary of {loaded.name}: pass another k")
    windows = list(_windows(loaded, chosen, _window_length(loaded, max_length)))
    total = sum(int(w.counts.sum()) for w in windows)
    if total == 0:
        raise GfvizError("no position counts: every text is a single token (give longer texts)")
    # Ranks have no names: reading a large vocabulary would cost more than a short text does.
    vocabulary = None if nodes == "rank" else Vocabulary.from_tokenizer(loaded.tokenizer, vocabulary_size)
    k_kept = min(64, vocabulary_size) if k is None else k
    if keep == "auto":
        keep = "factors" if total * k_kept <= _FACTOR_ENTRIES else "accumulated"
    pieces: dict[int, TopKLogits] = {}
    accumulated: CoactivationGraph | None = None

    kept_texts = chosen if keep_texts else []

    def to_graph() -> CoactivationGraph:
        return _assemble(pieces, windows, kept_texts, nodes, normalize, weights, vocabulary, loaded.name)

    reader = SignalReader(loaded.model, k_kept)
    with _reporter(progress, loaded.name, total) as report:
        held = 0
        for batch in _batches(windows, batch_tokens):
            signals = _run(loaded, reader, [windows[i] for i in batch], padding_side)
            pieces.update(zip(batch, signals))
            done = sum(signal.positions for signal in signals)
            report(done)
            held += done * k_kept
            if keep == "accumulated" and held > _FACTOR_ENTRIES // 8:
                part = to_graph().accumulate()
                accumulated = part if accumulated is None else accumulated.merge(part)
                pieces.clear()
                held = 0
    if keep == "factors":
        return to_graph()
    rest = [to_graph().accumulate()] if pieces else []
    parts = rest if accumulated is None else [accumulated, *rest]
    return parts[0].merge(*parts[1:])


def _loaded(model: Any, tokenizer: Any, device: str | None) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, str | Path):
        return load_model(model, device=device)
    if tokenizer is None:
        raise GfvizError("pass the tokenizer of the model: capture(model, texts, tokenizer=...)")
    if model.get_output_embeddings() is None:
        raise GfvizError(f"{type(model).__name__} has no language-model head: give a causal LM")
    return LoadedModel(model, tokenizer, type(model).__name__)


def _window_length(loaded: LoadedModel, asked: int | None) -> int:
    context = loaded.context
    if asked is None:
        return min(context or DEFAULT_WINDOW, DEFAULT_WINDOW)
    if asked < 2 or (context is not None and asked > context):
        raise GfvizError(f"max_length = {asked} is outside 2..{context or 'any'}, the context of {loaded.name}")
    return asked


def _windows(loaded: LoadedModel, texts: list[Text], length: int) -> Iterator[_Window]:
    tokenizer = loaded.tokenizer
    fast = bool(tokenizer.is_fast)
    if not fast and any(text.answer_start for text in texts):
        raise GfvizError(f"{loaded.name}: (prompt, answer) pairs need a fast tokenizer (tokenizer.json)")
    contents = [text.content for text in texts]
    # verbose: long texts are cut into windows here, the tokenizer need not warn of them
    encoded = tokenizer(
        contents,
        return_offsets_mapping=fast,
        return_special_tokens_mask=not fast,
        return_attention_mask=False,
        verbose=False,
    )
    for number, text in enumerate(texts):
        ids = np.array(encoded["input_ids"][number], dtype=np.int64)
        if fast:
            offsets = encoded["offset_mapping"][number]
        else:
            whole = (0, len(text.content))
            offsets = [(0, 0) if special else whole for special in encoded["special_tokens_mask"][number]]
        spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        # A token counts if it writes part of the answer. Special tokens write nothing: their span is empty.
        counts = (spans[:, 1] > text.answer_start) & (spans[:, 1] > spans[:, 0])
        if len(counts):
            counts[0] = False  # nothing precedes the first token
        for start in range(0, max(len(ids) - 1, 1), length - 1):
            part = slice(start, start + length)
            inner = counts[part].copy()
            inner[:1] = False  # the window before has predicted it
            if inner.any():
                yield _Window(number, ids[part], inner, spans[part])


def _batches(windows: list[_Window], batch_tokens: int) -> Iterator[list[int]]:
    """Windows of like length together, longest first: memory that does not suffice fails at once, not at the end."""
    order = sorted(range(len(windows)), key=lambda i: (-len(windows[i].ids), i))
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(windows[batch[0]].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _run(loaded: LoadedModel, reader: SignalReader, windows: list[_Window], padding_side: str) -> list[TopKLogits]:
    """The signals [t, k] of each window's counted positions, reduced on the device and brought to the CPU."""
    width = max(len(w.ids) for w in windows)
    ids = torch.zeros(len(windows), width, dtype=torch.int64)
    attention = torch.zeros(len(windows), width, dtype=torch.int64)
    predicts = torch.zeros(len(windows), width, dtype=torch.bool)
    for row, window in enumerate(windows):
        start = width - len(window.ids) if padding_side == "left" else 0
        part = slice(start, start + len(window.ids))
        ids[row, part] = torch.from_numpy(window.ids)
        attention[row, part] = 1
        # The logits at index t − 1 predict token t.
        predicts[row, part][:-1] = torch.from_numpy(window.counts[1:])
    with _evaluating(loaded.model):
        signal = reader.read(ids, attention, predicts).to("cpu")
    sizes = predicts.sum(1).tolist()
    parts = zip(
        signal.values.split(sizes), signal.ids.split(sizes), signal.logsumexp.split(sizes), signal.mask.split(sizes)
    )
    return [TopKLogits(values, ids, total, mask, signal.vocab_size) for values, ids, total, mask in parts]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode: a model in the middle of its training must not draw dropout into its graph."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _assemble(
    pieces: dict[int, TopKLogits],
    windows: list[_Window],
    texts: list[Text],
    nodes: str,
    normalize: str,
    weights: str,
    vocabulary: Vocabulary | None,
    name: str,
) -> CoactivationGraph:
    """One graph of the windows read so far, their rows in the order of the texts."""
    order = sorted(pieces)  # windows are made in the order of the texts
    signals = [pieces[i] for i in order]
    joined = TopKLogits(
        torch.cat([s.values for s in signals]),
        torch.cat([s.ids for s in signals]),
        torch.cat([s.logsumexp for s in signals]),
        torch.cat([s.mask for s in signals]),
        signals[0].vocab_size,
    )
    owners = np.repeat([windows[i].text for i in order], [s.mask.shape[0] for s in signals])
    count = len(texts) or int(owners.max()) + 1
    offsets = np.searchsorted(owners, np.arange(count + 1)).astype(np.int64)
    spans = np.concatenate([windows[i].spans[windows[i].counts] for i in order])
    record = TextRecord(offsets, tuple(text.content for text in texts), spans)
    return CoactivationGraph.from_signal(joined, nodes, normalize, weights, vocabulary, record=record, source=name)


class _reporter:
    """A Rich bar, a callback, or nothing, behind one call: report(positions just done)."""

    def __init__(self, progress: bool | Progress, name: str, total: int) -> None:
        self._progress, self._name, self._total, self._done = progress, name, total, 0
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if self._progress is True:
            from gfviz.console import progress_bar

            self._bar = progress_bar()
            self._bar.start()
            self._task = self._bar.add_task(f"capture {self._name}", total=self._total)
        return self._report

    def _report(self, positions: int) -> None:
        self._done += positions
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif callable(self._progress):
            self._progress(self._done, self._total)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
