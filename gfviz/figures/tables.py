"""Graphs as tables: nodes, edges, neighbours, and where in the text a node fired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gfviz.errors import GfvizError
from gfviz.figures.text import visible_token

if TYPE_CHECKING:
    import pandas as pd

    from gfviz.graph import CoactivationGraph


def node_table(graph: CoactivationGraph, limit: int | None = None) -> pd.DataFrame:
    """Nodes by falling strength: label, strength Σ_{j≠i} C_ij, activity C_ii, weight p, row mean f."""
    import pandas as pd

    strength = graph.strength()
    order = np.argsort(-strength, kind="stable")[:limit]
    return pd.DataFrame(
        {
            "node": order,
            "token": [visible_token(graph.labels[i]) for i in order],
            "strength": strength[order],
            "activity": graph.diagonal()[order],
            "weight p": graph.weights[order],
            "row mean f": graph.row_means()[order],
        }
    )


def edge_table(graph: CoactivationGraph, limit: int = 500, min_weight: float = 0.0) -> pd.DataFrame:
    """The heaviest edges: both labels, weight C_ij, and its correlation C_ij / √(C_ii C_jj)."""
    import pandas as pd

    edges = graph.edges(limit=limit, min_weight=min_weight)
    diagonal = graph.diagonal()
    scale = np.sqrt(diagonal[edges.i] * diagonal[edges.j])
    return pd.DataFrame(
        {
            "token": [visible_token(graph.labels[i]) for i in edges.i],
            "with": [visible_token(graph.labels[j]) for j in edges.j],
            "weight": edges.weight,
            "cosine": np.divide(edges.weight, scale, out=np.zeros_like(scale), where=scale > 0),
        }
    )


def neighbour_table(graph: CoactivationGraph, node: int, limit: int = 12) -> pd.DataFrame:
    """The nodes that act together with `node` most: label, weight C_ij, its share of the node's strength.

    From factors one sparse product, O(T·k); raises `GfvizError` for a node outside the graph.
    """
    import pandas as pd

    row = row_of(graph, node)
    row[node] = 0.0
    order = np.argsort(-np.abs(row), kind="stable")[:limit]
    order = order[row[order] != 0]
    total = np.abs(row).sum()
    return pd.DataFrame(
        {
            "node": order,
            "token": [visible_token(graph.labels[i]) for i in order],
            "weight": row[order],
            "share": np.abs(row[order]) / total if total > 0 else np.zeros(len(order)),
        }
    )


def row_of(graph: CoactivationGraph, node: int) -> np.ndarray:
    """Row `node` of C, float64 [n]."""
    if not 0 <= node < graph.n:
        raise GfvizError(f"node {node} is outside 0..{graph.n - 1}")
    if graph.factors is not None:
        column = graph.factors[:, [node]].astype(np.float64).toarray().ravel()
        return np.asarray(graph.factors.astype(np.float64).T @ column).ravel() / graph.positions
    assert graph.accumulated is not None
    return graph.accumulated[[node]].toarray().ravel().astype(np.float64)


@dataclass(frozen=True)
class Context:
    """A place where a node fired: the text before, the predicted token's span, the text after; z there."""

    before: str
    token: str
    after: str
    activation: float
    text: int


def contexts(graph: CoactivationGraph, node: int, limit: int = 5, width: int = 60) -> list[Context]:
    """Where `node` was most active, at most one place for a text, strongest first; empty where texts were not kept.

    The span is the token that really followed, which need not be the node's own.
    """
    record = graph.record
    if graph.factors is None or record is None or not record.texts or record.spans is None:
        return []
    if not 0 <= node < graph.n:
        raise GfvizError(f"node {node} is outside 0..{graph.n - 1}")
    column = graph.factors[:, [node]].tocoo()
    order = np.argsort(-np.abs(column.data), kind="stable")
    found: list[Context] = []
    seen: set[int] = set()
    for at in order:
        row = int(column.row[at])
        text = int(np.searchsorted(record.offsets, row, side="right")) - 1
        if text in seen:
            continue
        seen.add(text)
        start, stop = (int(v) for v in record.spans[row])
        body = record.texts[text]
        found.append(
            Context(
                before=visible_token(body[max(0, start - width) : start], spaces=False, limit=width + 1)
                if start
                else "",
                token=visible_token(body[start:stop]),
                after=visible_token(body[stop : stop + width], spaces=False) if stop < len(body) else "",
                activation=float(column.data[at]),
                text=text,
            )
        )
        if len(found) == limit:
            break
    return found


def rung_table(rungs) -> pd.DataFrame:
    """The rungs of a result: name, side, value, milliseconds, whether it ran, and what it noted."""
    import pandas as pd

    return pd.DataFrame(
        {
            "bound": [rung.name for rung in rungs],
            "side": [rung.side for rung in rungs],
            "value": [np.nan if rung.value is None else float(rung.value) for rung in rungs],
            "time (ms)": [1e3 * rung.seconds for rung in rungs],
            "used": [rung.used for rung in rungs],
            "note": [rung.note for rung in rungs],
        }
    )


def config_difference(configs: Mapping[str, dict]) -> pd.DataFrame:
    """Keys (dotted) in which configurations differ: a column for each name, values as text, "–" where one has none."""
    import pandas as pd

    flat = {name: dict(_flat(config)) for name, config in configs.items()}
    every = sorted(set().union(*flat.values()))
    keys = [key for key in every if len({one.get(key, "–") for one in flat.values()}) > 1]
    return pd.DataFrame({"key": keys} | {name: [one.get(key, "–") for key in keys] for name, one in flat.items()})


def _flat(tree, prefix: str = ""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}{key}.")
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _flat(value, f"{prefix}{index}.")
    else:
        yield prefix[:-1], str(tree)
