"""Making graphs: from a signal, by merging, by choosing texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gfviz.errors import GfvizError
from gfviz.graph.coactivation import CoactivationGraph, TextRecord
from gfviz.lazy import sparse
from gfviz.signals import TopKLogits, Vocabulary

RANK_SPACE = "rank"
BYTES_SPACE = "bytes"


def graph_from_signal(
    signal: TopKLogits,
    nodes: str,
    normalize: str,
    weights: str,
    labels: object | None,
    texts: tuple[str, ...],
    record: TextRecord | None,
    source: str,
) -> CoactivationGraph:
    """The body of `CoactivationGraph.from_signal`."""
    signal = signal.detach().to("cpu")
    what = "the logits" if not source else f"the logits of {source}"
    signal.require_finite(what)
    if normalize == "prob":
        signal.require_resolved(what)
    mask = signal.mask.numpy()
    if not mask.any():
        raise GfvizError("the graph is empty: no position counted (is the text empty, or all masked?)")
    z = _widened(signal.normalized(normalize)[signal.mask])
    if not np.isfinite(z).all():
        raise GfvizError(f"normalize = {normalize!r} needs finite logits, but some kept ones are -inf: use 'prob'")
    values = signal.values[signal.mask].float().numpy()
    ids = signal.ids[signal.mask].numpy()
    if record is None:
        record = TextRecord(np.concatenate([[0], np.cumsum(np.atleast_2d(mask).sum(1))]).astype(np.int64), texts)
    _check_record(record, len(z))
    if nodes == "rank":
        return _of_rows(z, normalize, weights, record, source)
    keys, factors = _token_factors(z, ids, np.isneginf(values))
    named, names, space = _node_names(keys, labels, signal)
    graph = CoactivationGraph(
        nodes, normalize, weights, len(z), named, names, space, factors=factors, record=record, source=source
    )
    return graph if space != BYTES_SPACE else _in_key_order(graph)


def rank_graph(graph: CoactivationGraph) -> CoactivationGraph:
    """The body of `CoactivationGraph.to_rank`."""
    if graph.nodes == "rank":
        return graph
    if graph.factors is None:
        raise GfvizError("this graph kept no rows of single positions: capture it again with nodes='rank'")
    lengths = np.diff(graph.factors.indptr)
    rows = np.zeros((graph.positions, int(lengths.max())), dtype=graph.factors.dtype)
    present = np.arange(rows.shape[1]) < lengths[:, None]
    # Forbidden tokens are missing from a row; they rank last, with probability 0.
    rows[present] = -graph.factors.data
    rows[~present] = np.inf
    rows.sort(axis=1)
    rows = np.where(np.isinf(rows), 0, -rows)
    return _of_rows(rows, graph.normalize, graph.weighting, graph.record, graph.source)


def _of_rows(z: np.ndarray, normalize: str, weights: str, record: TextRecord | None, source: str) -> CoactivationGraph:
    """The rank graph whose rows are z [T, k], descending."""
    columns = np.arange(z.shape[1])
    names = [f"rank {i + 1}" for i in columns]
    factors = sparse.csr_array(z)
    return CoactivationGraph(
        "rank", normalize, weights, len(z), columns, names, RANK_SPACE, factors=factors, record=record, source=source
    )


def _widened(z) -> np.ndarray:
    return (z if z.dtype.itemsize >= 4 else z.float()).numpy()


def _token_factors(z: np.ndarray, ids: np.ndarray, absent: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Sparse rows over the ids that occur; a forbidden token (logit −inf) does not occur."""
    present = ~absent
    keys, columns = np.unique(ids[present], return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum(present.sum(1))])
    factors = sparse.csr_array((z[present], columns.ravel(), indptr), shape=(len(z), len(keys)))
    factors.sort_indices()
    return keys.astype(np.int64), factors


def _node_names(keys: np.ndarray, labels: object | None, signal: TopKLogits) -> tuple[np.ndarray, list[str], str]:
    if labels is None:
        size = "unknown" if signal.vocab_size is None else signal.vocab_size
        return keys, [str(key) for key in keys], f"vocab:unnamed-{size}"
    if signal.served:
        return _byte_names(keys, labels)
    if isinstance(labels, Sequence) and not isinstance(labels, str | bytes):
        labels = Vocabulary.from_tokens([str(label) for label in labels], convention="plain")
    vocabulary = labels if isinstance(labels, Vocabulary) else Vocabulary.from_tokenizer(labels, signal.vocab_size)
    if keys[-1] >= len(vocabulary) and signal.vocab_size is None:
        raise GfvizError(f"token id {keys[-1]} is outside the {len(vocabulary)} labels: is this the model's tokenizer?")
    return keys, vocabulary.labels(keys.tolist()), f"vocab:{vocabulary.identity}"


def _byte_names(keys: np.ndarray, labels: object) -> tuple[np.ndarray, list[str], str]:
    """Served models: the node is the byte string itself, so that files of different requests merge."""
    vocabulary = labels if isinstance(labels, Vocabulary) else Vocabulary(tuple(labels))  # type: ignore[arg-type]
    named = np.empty(len(keys), dtype=object)
    named[:] = [vocabulary.tokens[key] for key in keys]
    return named, vocabulary.labels(keys.tolist()), BYTES_SPACE


def _in_key_order(graph: CoactivationGraph) -> CoactivationGraph:
    order = np.array(sorted(range(graph.n), key=lambda i: graph.keys[i]))
    assert graph.factors is not None
    factors = sparse.csr_array(graph.factors[:, order])
    return replace(graph, keys=graph.keys[order], labels=[graph.labels[i] for i in order], factors=factors)


def _check_record(record: TextRecord, rows: int) -> None:
    offsets = record.offsets
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise GfvizError(f"the record's offsets do not divide the {rows} positions that count")
    if record.texts and len(record.texts) != len(offsets) - 1:
        raise GfvizError(f"{len(record.texts)} texts were given for {len(offsets) - 1} sequences")
    if record.spans is not None and record.spans.shape != (rows, 2):
        raise GfvizError(f"spans have the shape {record.spans.shape}, expected (start, end) for {rows} rows")


def merge_graphs(graphs: Sequence[CoactivationGraph]) -> CoactivationGraph:
    """The body of `CoactivationGraph.merge`: T·C adds on the union of the nodes."""
    first = graphs[0]
    for other in graphs[1:]:
        for name in ("nodes", "normalize", "weighting"):
            mine, theirs = getattr(first, name), getattr(other, name)
            if mine != theirs:
                raise GfvizError(f"cannot merge graphs of different {name}: {mine} and {theirs}")
        if first.space != other.space:
            raise GfvizError(
                f"cannot merge graphs over different vocabularies ({first.space[:18]}… and {other.space[:18]}…): "
                "capture both with the same tokenizer, or use rank nodes"
            )
    if len(graphs) == 1:
        return first
    keys, labels = _union([g.keys for g in graphs], [g.labels for g in graphs])
    columns = [_positions_in(keys, g.keys) for g in graphs]
    total = sum(g.positions for g in graphs)
    if all(g.factors is not None for g in graphs):
        parts = [_with_columns(g.factors, c, len(keys)) for g, c in zip(graphs, columns)]
        stacked = sparse.csr_array(sparse.vstack(parts, format="csr"))
        record = _joined_record(graphs)
        return replace(first, positions=total, keys=keys, labels=labels, factors=stacked, record=record)
    accumulated = sparse.csr_array((len(keys), len(keys)), dtype=np.float64)
    for graph, c in zip(graphs, columns):
        part = graph.matrix().tocoo()
        scaled = part.data * (graph.positions / total)
        accumulated = accumulated + sparse.coo_array((scaled, (c[part.row], c[part.col])), accumulated.shape).tocsr()
    return replace(
        first,
        positions=total,
        keys=keys,
        labels=labels,
        factors=None,
        accumulated=sparse.csr_array(accumulated),
        record=None,
    )


def _union(keys: list[np.ndarray], labels: list[list[str]]) -> tuple[np.ndarray, list[str]]:
    names = {key: label for ks, ls in zip(keys, labels) for key, label in zip(ks.tolist(), ls)}
    ordered = sorted(names)
    union = np.empty(len(ordered), dtype=keys[0].dtype)
    union[:] = ordered
    return union, [names[key] for key in ordered]


def _positions_in(union: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return np.searchsorted(union, keys) if union.dtype != object else _object_positions(union, keys)


def _object_positions(union: np.ndarray, keys: np.ndarray) -> np.ndarray:
    where = {key: i for i, key in enumerate(union)}
    return np.array([where[key] for key in keys], dtype=np.int64)


def _with_columns(factors, columns: np.ndarray, n: int) -> sparse.csr_array:
    return sparse.csr_array((factors.data, columns[factors.indices], factors.indptr), shape=(factors.shape[0], n))


def _joined_record(graphs: Sequence[CoactivationGraph]) -> TextRecord | None:
    records = [g.record for g in graphs if g.record is not None]
    if len(records) < len(graphs):
        return None
    starts = np.cumsum([0, *(g.positions for g in graphs)])
    offsets = np.concatenate([[0], *(r.offsets[1:] + start for r, start in zip(records, starts))]).astype(np.int64)
    texts = sum((r.texts for r in records), ()) if all(r.texts for r in records) else ()
    spans = [r.spans for r in records if r.spans is not None]
    return TextRecord(offsets, texts, np.concatenate(spans) if len(spans) == len(records) else None)


def select_texts(graph: CoactivationGraph, chosen: np.ndarray) -> CoactivationGraph:
    """The body of `CoactivationGraph.select_texts`."""
    if graph.factors is None or graph.record is None:
        raise GfvizError("this graph kept no per-text factors: capture it again with keep='factors'")
    offsets = graph.record.offsets
    if chosen.size == 0 or chosen.min() < 0 or chosen.max() >= len(offsets) - 1:
        raise GfvizError(f"choose texts among 0..{len(offsets) - 2}")
    rows = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in chosen])
    if rows.size == 0:
        raise GfvizError("the chosen texts hold no position that counts")
    factors = graph.factors[rows]
    used = np.arange(graph.n) if graph.nodes == "rank" else np.unique(factors.indices)
    lengths = offsets[chosen + 1] - offsets[chosen]
    record = TextRecord(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        tuple(graph.record.texts[s] for s in chosen) if graph.record.texts else (),
        None if graph.record.spans is None else graph.record.spans[rows],
    )
    columns = np.searchsorted(used, factors.indices)
    return replace(
        graph,
        positions=len(rows),
        keys=graph.keys[used],
        labels=[graph.labels[i] for i in used],
        factors=sparse.csr_array((factors.data, columns, factors.indptr), shape=(len(rows), len(used))),
        record=record,
    )
