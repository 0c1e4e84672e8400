"""Graphs for other programs: networkx, GraphML, GEXF, CSV."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gfviz.errors import GfvizError
from gfviz.files import atomic_path

if TYPE_CHECKING:
    import networkx

    from gfviz.graph.coactivation import CoactivationGraph

EXPORT_FORMATS = ("graphml", "gexf", "csv")
NETWORK_LIMIT = 1 << 22
"""Above this many edges no networkx graph is made: it takes half a kilobyte for each."""
# What XML 1.0 cannot hold, even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_networkx(graph: CoactivationGraph, limit: int | None = None, min_weight: float = 0.0) -> networkx.Graph:
    """The body of `CoactivationGraph.to_networkx`: nodes 0..n−1 with key, label, activity, strength, weight p.

    Raises `GfvizError` above 2^22 edges.

    >>> import torch
    >>> from gfviz.signals import TopKLogits
    >>> from gfviz.graph import CoactivationGraph
    >>> graph = CoactivationGraph.from_signal(TopKLogits.from_logits(torch.zeros(2, 3)), nodes="rank")
    >>> graph.to_networkx().number_of_edges()
    3
    """
    import networkx

    made = networkx.Graph(source=graph.source, nodes=graph.nodes, normalize=graph.normalize, positions=graph.positions)
    activity, strength, weights = graph.diagonal(), graph.strength(), graph.weights
    for i, label in enumerate(graph.labels):
        key = graph.keys[i]
        made.add_node(
            i,
            key=key.hex() if isinstance(key, bytes) else int(key),
            label=label,
            activity=float(activity[i]),
            strength=float(strength[i]),
            p=float(weights[i]),
        )
    edges = graph.edges(limit, min_weight)
    if len(edges.weight) > NETWORK_LIMIT:
        raise GfvizError(
            f"{len(edges.weight)} edges are more than networkx is given at once ({NETWORK_LIMIT}): "
            "ask for the heaviest, or a larger weight, or export a csv"
        )
    made.add_weighted_edges_from(zip(edges.i.tolist(), edges.j.tolist(), edges.weight.tolist()))
    return made


def export_graph(
    graph: CoactivationGraph, path: str | Path, form: str, limit: int | None = None, min_weight: float = 0.0
) -> None:
    """Write the graph as "graphml", "gexf" or "csv" (an edge table), whole or not at all.

    `limit` and `min_weight` choose edges as in `CoactivationGraph.edges`. Labels are untrusted: control characters
    that XML cannot hold are written as `\\xNN`, and a CSV cell that a spreadsheet would take for a formula gets a
    leading apostrophe. Raises `GfvizError` for an unknown format or a folder that cannot be written.
    """
    if form not in EXPORT_FORMATS:
        raise GfvizError(f"cannot export to '{form}': choose one of {', '.join(EXPORT_FORMATS)}")
    with atomic_path(path) as scratch:
        if form == "csv":
            _write_csv(graph, scratch, limit, min_weight)
            return
        import networkx

        made = to_networkx(graph, limit, min_weight)
        for _, attributes in made.nodes(data=True):
            attributes["label"] = xml_text(attributes["label"])
        made.graph = {key: xml_text(value) if isinstance(value, str) else value for key, value in made.graph.items()}
        # networkx names GEXF nodes by `label`, and writes no prettyprint that would change a label's spaces.
        writer = networkx.write_graphml if form == "graphml" else networkx.write_gexf
        writer(made, scratch, prettyprint=False)


def xml_text(text: str) -> str:
    """The text with the characters that XML 1.0 forbids written as escapes.

    >>> xml_text("a\\x00b")
    'a\\\\x00b'
    """
    return _NOT_XML.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def spreadsheet_text(text: str) -> str:
    """The text as a CSV cell that no spreadsheet runs as a formula.

    >>> spreadsheet_text("=1+1"), spreadsheet_text(" the")
    ("'=1+1", ' the')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _write_csv(graph: CoactivationGraph, path: Path, limit: int | None, min_weight: float) -> None:
    edges = graph.edges(limit, min_weight)
    names = [spreadsheet_text(label).encode("utf-8", "backslashreplace").decode("utf-8") for label in graph.labels]
    with open(path, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["source", "target", "source_label", "target_label", "weight"])
        # Some at a time: Python's numbers take four times the memory of the arrays.
        for start in range(0, len(edges.weight), 1 << 16):
            i, j, weight = (column[start : start + (1 << 16)].tolist() for column in edges)
            table.writerows([a, b, names[a], names[b], repr(w)] for a, b, w in zip(i, j, weight))
