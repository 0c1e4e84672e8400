"""`CoactivationGraph`: which tokens, or ranks, of a language model's output act together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gfviz.errors import GfvizError
from gfviz.graph import products
from gfviz.lazy import sparse

if TYPE_CHECKING:
    import networkx

    from gfviz.signals import TopKLogits, Vocabulary

NODE_KINDS = ("token", "rank")
WEIGHTINGS = ("uniform", "mass")
DENSE_LIMIT = 20_000


class EdgeList(NamedTuple):
    """Edges i < j of a graph with their weights C_ij, heaviest first (by |weight|); three arrays of one length."""

    i: np.ndarray
    j: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class TextRecord:
    """Where the rows of the factors come from: `offsets` [S+1] are the rows at which each of the S texts begins.

    `texts` are the texts, where they were kept, and `spans` [T, 2] the characters of its text that each row's predicted
    token covers.
    """

    offsets: np.ndarray
    texts: tuple[str, ...] = ()
    spans: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class CoactivationGraph:
    """C = (1/T) Σ_t z_t z_tᵀ over the positions of one or many texts (MATH.md section 1), with node weights p.

    nodes: "token" (vocabulary ids or byte strings) or "rank" (the i-th largest logit); normalize: how z was made;
    weighting: "uniform" or "mass" (∝ diag(C)^½); positions: T; keys [n]: int64 ids, or bytes in the space "bytes";
    labels: n readable strings, untrusted text; space: which graphs share node identities.
    Held either as `factors`, a sparse [T, n] matrix Z with C = ZᵀZ/T, or as `accumulated`, C itself as a sparse
    [n, n] matrix; never dense unless `dense()` is called.

    >>> import torch
    >>> from gfviz.signals import TopKLogits
    >>> signal = TopKLogits.from_logits(torch.log(torch.tensor([[0.75, 0.25], [0.25, 0.75]])), k=1)
    >>> graph = CoactivationGraph.from_signal(signal, nodes="token")
    >>> graph.n, graph.dense().round(4).tolist()
    (2, [[0.2813, 0.0], [0.0, 0.2813]])
    """

    nodes: str
    normalize: str
    weighting: str
    positions: int
    keys: np.ndarray
    labels: list[str] = field(repr=False)
    space: str
    factors: sparse.csr_array | None = field(default=None, repr=False)
    accumulated: sparse.csr_array | None = field(default=None, repr=False)
    record: TextRecord | None = field(default=None, repr=False)
    source: str = ""

    def __post_init__(self) -> None:
        if self.nodes not in NODE_KINDS:
            raise GfvizError(f"nodes = {self.nodes!r} is unknown: choose one of {', '.join(NODE_KINDS)}")
        if self.weighting not in WEIGHTINGS:
            raise GfvizError(f"weights = {self.weighting!r} is unknown: choose one of {', '.join(WEIGHTINGS)}")
        if (self.factors is None) == (self.accumulated is None):
            raise GfvizError("a graph holds either factors or an accumulated matrix, exactly one of them")
        if self.n == 0 or self.positions < 1:
            raise GfvizError("the graph is empty: no position counted (is the text empty, or all masked?)")
        shape = (self.positions, self.n) if self.factors is not None else (self.n, self.n)
        held = self._held
        # One form for one graph, so that equal graphs have equal bytes and files.
        held.sum_duplicates()
        if held.shape != shape or len(self.labels) != self.n:
            raise GfvizError(f"the graph's matrix is {held.shape} with {len(self.labels)} labels, expected {shape}")
        products.require_range(held, self.n, self.positions if self.factors is not None else 0)

    @classmethod
    def from_signal(
        cls,
        signal: TopKLogits,
        nodes: str = "token",
        normalize: str = "prob",
        weights: str = "uniform",
        labels: Vocabulary | Sequence[str] | object | None = None,
        texts: Sequence[str] = (),
        record: TextRecord | None = None,
        source: str = "",
    ) -> CoactivationGraph:
        """Build the graph of a signal [T, k] or [B, T, k].

        The record of texts says which rows belong together; without one, each of the B sequences is a text, and
        `texts` may name them.

        `labels` names the vocabulary: a tokenizer, a `Vocabulary`, a list of V strings, or nothing. Values are kept
        in the signal's precision (float32 at least). Raises `GfvizError` for unknown options, non-finite logits at a
        counted position, or no counted position at all. O(T·k log(T·k)) time, O(T·k) memory.
        """
        from gfviz.graph.build import graph_from_signal

        return graph_from_signal(signal, nodes, normalize, weights, labels, tuple(texts), record, source)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.keys)

    @property
    def _held(self) -> sparse.csr_array:
        held = self.factors if self.factors is not None else self.accumulated
        assert held is not None  # __post_init__ saw to it
        return held

    @cached_property
    def weights(self) -> np.ndarray:
        """Node weights p, float64 [n], Σp = 1: uniform, or ∝ diag(C)^½ ("mass")."""
        if self.weighting == "uniform":
            return np.full(self.n, 1.0 / self.n)
        root = np.sqrt(self.diagonal())
        total = root.sum()
        if not total > 0:
            raise GfvizError("weights = 'mass' need a non-zero diagonal: every node of this graph has zero mass")
        return root / total

    @cached_property
    def _factors64(self) -> sparse.csr_array:
        return self._held.astype(np.float64)

    @cached_property
    def _by_node(self) -> sparse.csc_array:
        """The factors' transpose: the same memory, but making the view costs as much as a small product."""
        return self._factors64.T

    def row_means(self) -> np.ndarray:
        """f_C(i) = Σ_k p_k C_ik, float64 [n], by s_t = Σ_k p_k z_tk and f = Σ_t s_t z_t / T: O(T·k), never n×n."""
        held = self._factors64
        if self.factors is None:
            return held @ self.weights
        return self._by_node @ (held @ self.weights) / self.positions

    def diagonal(self) -> np.ndarray:
        """C_ii, float64 [n]: how strongly each node is active on its own. O(T·k)."""
        held = self._factors64
        if self.factors is None:
            return held.diagonal()
        return np.bincount(held.indices, held.data**2, minlength=self.n) / self.positions

    def strength(self) -> np.ndarray:
        """Σ_{j≠i} C_ij, float64 [n]: the weighted degree of each node. O(T·k)."""
        held = self._factors64
        ones = np.ones(self.n)
        sums = held @ ones if self.factors is None else held.T @ (held @ ones) / self.positions
        return sums - self.diagonal()

    def matrix(self) -> sparse.csr_array:
        """C as a sparse float64 [n, n] matrix. From factors O(T·k²) time and up to min(n², T·k²) entries.

        Raises `GfvizError` above 2^28 entries (3.2 GB).
        """
        held = self._factors64
        return held if self.factors is None else self._over_positions(products.gram(held))

    def part(self, chosen: np.ndarray, most: int = products.MATRIX_LIMIT) -> sparse.csr_array:
        """C over the distinct nodes `chosen` [m], sparse float64 [m, m]. O(nnz) and the products of these nodes alone.

        Raises `GfvizError` above `most` entries.
        """
        held = self._factors64
        if self.factors is not None:
            return self._over_positions(products.gram(held[:, chosen], most))
        found = held[chosen][:, chosen]
        if found.nnz > most:
            raise GfvizError(f"the matrix over {len(chosen)} nodes holds more than {most} entries: take fewer nodes")
        return found

    def entries(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """C_ij at the pairs (i[s], j[s]), float64 [S]."""
        if not len(i):
            return np.zeros(0)  # indexing a sparse matrix by nothing gives one row
        if self.factors is None:
            return np.asarray(self._factors64[i, j]).ravel()
        return products.entries(self._factors64, i, j) / self.positions

    def _over_positions(self, product: sparse.csr_array) -> sparse.csr_array:
        product.data /= self.positions
        product.eliminate_zeros()
        return product

    def dense(self) -> np.ndarray:
        """C as a dense float64 [n, n] array, asked for by name. Raises `GfvizError` above 20 000 nodes (3.2 GB)."""
        if self.n > DENSE_LIMIT:
            raise GfvizError(f"a dense matrix of {self.n} nodes is refused (limit {DENSE_LIMIT}): use matrix()")
        if self.factors is None:
            return self._factors64.toarray()
        if self.nodes == "rank":
            z = self.factors.toarray().astype(np.float64)  # full: a dense product is ten times faster than a sparse one
            return (z.T @ z) / self.positions
        found = products.dense_gram(self._factors64)
        found /= self.positions
        return found

    def edges(self, limit: int | None = None, min_weight: float = 0.0) -> EdgeList:
        """Edges i < j with |C_ij| > `min_weight`, heaviest first, at most `limit` of them.

        Weights that agree to nine digits count as ties, of which any are kept. From factors in memory for the edges
        returned alone, and the fewer they are the earlier the search may end. Raises `GfvizError` above 2^24 edges, and
        where a limit takes more than 2^33 products.
        """
        if self.factors is not None:
            i, j, weight = products.heaviest_edges(self._factors64, self.positions, limit, min_weight)
        else:
            upper = sparse.triu(self._factors64, k=1).tocoo()
            keep = np.abs(upper.data) > min_weight
            i, j, weight = upper.row[keep], upper.col[keep], upper.data[keep]
            if limit is not None and limit < len(weight):
                chosen = np.argpartition(-np.abs(weight), limit)[:limit] if limit > 0 else np.empty(0, np.int64)
                i, j, weight = i[chosen], j[chosen], weight[chosen]
        order = np.lexsort((j, i, -np.abs(weight)))
        return EdgeList(i[order].astype(np.int64), j[order].astype(np.int64), weight[order])

    def accumulate(self) -> CoactivationGraph:
        """The same graph held as C itself, without the rows of single positions (and so without its texts)."""
        if self.factors is None:
            return self
        return replace(self, factors=None, accumulated=self.matrix(), record=None)

    def to_rank(self) -> CoactivationGraph:
        """The rank graph of the same positions: node i is the i-th largest entry of each row of the factors.

        For every normalisation a larger logit has a larger z, so this is what `nodes="rank"` would have captured,
        without a second run of the model. Raises `GfvizError` where the factors were not kept. O(T·k log k).

        >>> import torch
        >>> from gfviz.signals import TopKLogits
        >>> signal = TopKLogits.from_logits(torch.randn(5, 9), k=3)
        >>> ranks = CoactivationGraph.from_signal(signal, nodes="rank")
        >>> CoactivationGraph.from_signal(signal, nodes="token").to_rank().content_hash == ranks.content_hash
        True
        """
        from gfviz.graph.build import rank_graph

        return rank_graph(self)

    def merge(self, *others: CoactivationGraph) -> CoactivationGraph:
        """The graph of both corpora: T·C adds up on the union of the nodes (MATH.md section 1), exact to rounding.

        Weights and row means are computed again from the merged graph. Raises `GfvizError` unless all agree in node
        kind, node space, normalisation and weighting. O(total entries).
        """
        from gfviz.graph.build import merge_graphs

        return merge_graphs([self, *others])

    def select_texts(self, chosen: Sequence[int] | np.ndarray) -> CoactivationGraph:
        """The graph of some of its texts, repeats allowed (a bootstrap draw); nodes that no longer occur are dropped.

        Raises `GfvizError` where per-text factors were not kept or an index is out of range. O(entries chosen).
        """
        from gfviz.graph.build import select_texts

        return select_texts(self, np.asarray(chosen, dtype=np.int64))

    @property
    def text_offsets(self) -> np.ndarray | None:
        """Rows of `factors` at which each text begins, int64 [S+1]; None where they were not kept."""
        return None if self.record is None else self.record.offsets

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The texts themselves, where they were kept."""
        return None if self.record is None or not self.record.texts else self.record.texts

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 in hex over everything that defines the graph (not its texts): equal graphs, equal hash.

        For caches within one process: no file holds it, and another version may compute another.
        """
        digest = hashlib.sha256()
        held = self._held
        head = (self.nodes, self.normalize, self.weighting, self.space, self.positions, self.factors is None)
        labels = [label.encode("utf-8", "surrogatepass") for label in self.labels]
        keys = _framed(list(self.keys)) if self.keys.dtype == object else [self.keys.astype("<i8").tobytes()]
        numbers = [held.indptr.astype("<i8").tobytes(), held.indices.astype("<i8").tobytes(), held.data.tobytes()]
        for part in [repr(head).encode(), *keys, *_framed(labels), str(held.data.dtype).encode(), *numbers]:
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file, whole or not at all. Raises `GfvizError` where it cannot be written."""
        from gfviz.graph.storage import save_graph

        save_graph(self, path)

    def to_networkx(self, limit: int | None = None, min_weight: float = 0.0) -> networkx.Graph:
        """A `networkx.Graph` with node attributes label, activity (C_ii), strength, and edge attribute weight."""
        from gfviz.graph.export import to_networkx

        return to_networkx(self, limit, min_weight)

    def __repr__(self) -> str:
        origin = f" of {self.source}" if self.source else ""
        return f"<CoactivationGraph{origin}: {self.n} {self.nodes} nodes, {self.positions} positions, {self.normalize}>"

    def _repr_html_(self) -> str:
        from html import escape

        top = np.argsort(-self.diagonal(), kind="stable")[:8]
        names = ", ".join(f"<code>{escape(repr(self.labels[i])[1:-1])}</code>" for i in top)
        rows = {
            "nodes": f"{self.n} ({escape(self.nodes)})",
            "positions": str(self.positions),
            "normalisation": escape(self.normalize),
            "weights": escape(self.weighting),
            "most active": names,
        }
        cells = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in rows.items())
        return f"<table><caption>Co-activation graph {escape(self.source)}</caption>{cells}</table>"


def _framed(parts: list[bytes]) -> list[bytes]:
    """Their lengths and all of them in a row: a separator could stand inside a part, and two lists would be one."""
    return [np.array([len(part) for part in parts], "<i8").tobytes(), b"".join(parts)]
