"""Families of pairs from trained models: each model is run once, and every graph of the study is cut from that."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.graph import CoactivationGraph, load_graph
from gfviz.paths import sample_data_dir
from gfviz.study.validate.families import Family, Pair

WIDTH = 128
"""Kept entries a position: the widest k that the study looks at."""
CHUNK = 8
"""Texts of one pair."""
TOKEN_K = 8
"""Kept entries a position of the token graphs, which sets how soon a graph reaches a number of nodes."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What a model said over its texts: `values` float64 [T, K] probabilities in descending order, `ids` [T, K].

    `offsets` [S+1] are the rows at which the texts begin; `name` is the model's, `kind` says which texts it read.
    """

    name: str
    kind: str
    values: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, name: str, kind: str, graph: CoactivationGraph) -> Trace:
        """Read a token graph's factors back as one row a position. Raises `GfvizError` where rows differ in length."""
        factors, offsets = graph.factors, graph.text_offsets
        if factors is None or offsets is None or np.ptp(np.diff(factors.indptr)) != 0:
            raise GfvizError(f"the graph of {name} holds no rows of one length: delete it, and it is captured again")
        values = factors.data.astype(np.float64).reshape(graph.positions, -1)
        ids = graph.keys[factors.indices].reshape(graph.positions, -1)
        order = np.argsort(-values, axis=1, kind="stable")
        return cls(name, kind, np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1), offsets)

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def chunks(self) -> int:
        return max(1, (len(self.offsets) - 1) // CHUNK)

    @cached_property
    def fewest_tokens(self) -> int:
        """Distinct tokens of the chunk that has fewest."""
        return min(len(np.unique(self.ids[self.rows(chunk)])) for chunk in range(self.chunks))

    def rows(self, chunk: int) -> slice:
        """Rows of the chunk's texts (chunks are taken in turn)."""
        first = (chunk % self.chunks) * CHUNK
        last = min(first + CHUNK, len(self.offsets) - 1)
        return slice(int(self.offsets[first]), int(self.offsets[last]))

    def rank_graph(self, k: int, rows: slice) -> CoactivationGraph:
        """Rank graph of the k largest probabilities at these rows."""
        z = self.values[rows, :k]
        names = [f"rank {i + 1}" for i in range(k)]
        return CoactivationGraph(
            "rank",
            "prob",
            "uniform",
            len(z),
            np.arange(k),
            names,
            "rank",
            factors=sparse.csr_array(z),
            source=self.name,
        )

    def token_graph(self, k: int, rows: slice, heaviest: int | None = None) -> CoactivationGraph:
        """Token graph of the k largest probabilities at these rows, cut to its `heaviest` nodes (by C_ii) if asked."""
        values, ids = self.values[rows, :k], self.ids[rows, :k]
        keys, columns = np.unique(ids, return_inverse=True)
        indptr = np.arange(len(values) + 1) * values.shape[1]
        factors = sparse.csr_array((values.ravel(), columns.ravel(), indptr), shape=(len(values), len(keys)))
        if heaviest is not None:
            weight = np.bincount(columns.ravel(), values.ravel() ** 2, minlength=len(keys))
            kept = np.sort(np.argsort(-weight, kind="stable")[:heaviest])
            keys, factors = keys[kept], sparse.csr_array(factors[:, kept])
        return CoactivationGraph(
            "token",
            "prob",
            "uniform",
            len(values),
            keys,
            [str(key) for key in keys],
            f"vocab:{self.name}",
            factors=factors,
            source=self.name,
        )

    def rows_of_nodes(self, count: int, chunk: int) -> slice:
        """Rows from the chunk's first on whose `TOKEN_K` largest entries name at least `count` tokens."""
        start = self.rows(chunk).start
        seen: set[int] = set()
        for row in range(start, len(self.ids)):
            seen.update(self.ids[row, :TOKEN_K].tolist())
            if len(seen) >= count:
                return slice(start, row + 1)
        return slice(start, len(self.ids))


def find_models(folder: Path | None) -> list[Path]:
    """Model folders below `folder`, by name; without one the models shipped with gfviz, and none if there are none."""
    if folder is None:
        shipped = sample_data_dir() / "models"
        return _model_folders(shipped) if shipped.is_dir() else []
    found = _model_folders(folder)
    if not found:
        raise GfvizError(f"{folder}: no model folder (with a config.json) in it: give the folder that holds the models")
    return found


def find_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints below `folder`, in training order: folders with a number in their name, here or one level below."""
    found = _model_folders(folder) or [path for below in sorted(folder.glob("*/")) for path in _model_folders(below)]
    numbered = [(int(match[-1]), path) for path in found if (match := re.findall(r"\d+", path.name))]
    if len(numbered) < 2:
        raise GfvizError(f"{folder}: fewer than two checkpoints (model folders named by their step) in it")
    return [path for _, path in sorted(numbered)]


def _model_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/config.json"))


def study_texts(kind: str, count: int) -> Sequence[str | tuple[str, str]]:
    """The first `count` texts that a model reads: held-out "prose", or the "task" test as (prompt, answer)."""
    from gfviz.capture import read_texts

    if kind == "task":
        return [
            (text.content[: text.answer_start], text.content[text.answer_start :])
            for text in read_texts(sample_data_dir() / "tasks" / "test.jsonl", count)
        ]
    lines = (sample_data_dir() / "prose" / "held_out.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.strip()][:count]


def trace_model(folder: Path, out: Path, count: int, name: str) -> Trace:
    """Run a model over the study's texts, or read the graph that an earlier run kept in `out`/graphs.

    Models whose name begins with "task" read the tasks, all others prose. Cost: one pass over about 3000 positions.
    """
    from gfviz.capture import capture, load_model

    kind = "task" if folder.name.startswith("task") else "prose"
    texts = study_texts(kind, count)
    path = out / "graphs" / f"{name}-{fingerprint(folder, texts)}.safetensors"
    if not path.is_file():
        loaded = load_model(folder)
        vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
        capture(loaded, texts, k=min(WIDTH, vocabulary), nodes="token", keep="factors", keep_texts=False).save(path)
    return Trace.of(name, kind, load_graph(path))


def fingerprint(folder: Path, texts: Sequence[object] = ()) -> str:
    """Twelve hex digits that change with the model's weights and tokenizer, and with the texts."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer*.json"), folder / "config.json"]):
        if path.is_file():
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    digest.update(repr(list(texts)).encode())
    return digest.hexdigest()[:12]


def model_families(traces: Sequence[Trace], checkpoints: Sequence[Trace]) -> dict[str, Family]:
    """Rank and token graphs of pairs of models, and rank graphs across the checkpoints of one."""
    found: list[Family] = []
    pairs = list(combinations(traces, 2))
    if pairs:
        found += [
            Family("model-rank", "rank graphs of two trained models", True, True, _rank_pairs(pairs), "model"),
            Family(
                "model-token",
                "the n most active tokens of two trained models",
                True,
                True,
                _token_pairs(pairs),
                "model",
            ),
            Family(
                "model-token-whole",
                f"whole token graphs (k = {TOKEN_K}) of two trained models, about n nodes each",
                True,
                False,
                _whole_pairs(pairs),
                "model",
            ),
        ]
    if len(checkpoints) > 1:
        steps = [*pairwise(checkpoints), *((early, checkpoints[-1]) for early in checkpoints[:-2])]
        about = "rank graphs of one model at two steps of its training"
        found.append(Family("checkpoints", about, True, True, _rank_pairs(steps), "model"))
    return {family.name: family for family in found}


def largest_size(name: str, traces: Iterable[Trace]) -> int:
    """Largest n for which a model family has a pair: set by the models' kept entries, or by their tokens."""
    room = {"model-token": lambda t: t.fewest_tokens, "model-token-whole": lambda t: len(np.unique(t.ids[:, :TOKEN_K]))}
    widest = sorted((room[name](trace) if name in room else trace.width for trace in traces), reverse=True)
    return widest[1] if len(widest) > 1 else 0


_Couples = Sequence[tuple[Trace, Trace]]
_Maker = Callable[[int, np.random.Generator, int], Pair]


def _pick(pairs: _Couples, index: int) -> tuple[Trace, Trace, int]:
    first, second = pairs[index % len(pairs)]
    return first, second, index // len(pairs)


def _about(first: Trace, second: Trace, chunk: int) -> str:
    return f"{first.name} and {second.name}, texts {chunk * CHUNK + 1} to {(chunk + 1) * CHUNK}"


def _rank_pairs(pairs: _Couples) -> _Maker:
    def make(n: int, rng: np.random.Generator, index: int) -> Pair:
        wide = [pair for pair in pairs if min(pair[0].width, pair[1].width) >= n]
        first, second, chunk = _pick(wide, index)
        sides = [trace.rank_graph(n, trace.rows(chunk)) for trace in (first, second)]
        return Pair(sides[0], sides[1], about=_about(first, second, chunk))

    return make


def _token_pairs(pairs: _Couples) -> _Maker:
    def make(n: int, rng: np.random.Generator, index: int) -> Pair:
        rich = [pair for pair in pairs if min(pair[0].fewest_tokens, pair[1].fewest_tokens) >= n]
        first, second, chunk = _pick(rich, index)
        sides = [trace.token_graph(WIDTH, trace.rows(chunk), heaviest=n) for trace in (first, second)]
        return Pair(sides[0], sides[1], about=_about(first, second, chunk))

    return make


def _whole_pairs(pairs: _Couples) -> _Maker:
    def make(n: int, rng: np.random.Generator, index: int) -> Pair:
        rich = [pair for pair in pairs if largest_size("model-token-whole", pair) >= n]
        first, second, chunk = _pick(rich, index)
        sides = [trace.token_graph(TOKEN_K, trace.rows_of_nodes(n, chunk)) for trace in (first, second)]
        return Pair(sides[0], sides[1], about=f"{first.name} and {second.name}, from text {chunk * CHUNK + 1} on")

    return make
