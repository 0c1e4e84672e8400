"""Everything slow, once: keyed by a file's identity or by a graph's content hash, never by hashing arrays.

What brings torch along is imported where it is used: a page that measures nothing opens without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from gfviz.figures import GraphView, graph_view
from gfviz.graph import CoactivationGraph, load_graph
from gfvizui.places import GraphFile

if TYPE_CHECKING:
    from gfviz.gromov import GromovResult, Prediction


@st.cache_resource(max_entries=24, show_spinner="Reading the graph …")
def _load(path: str, modified: float, size: int) -> CoactivationGraph:
    return load_graph(path)


def load(file: GraphFile) -> CoactivationGraph:
    """The graph in `file`, read again only when the file has changed."""
    return _load(str(file.path), file.modified, file.size)


@st.cache_resource(max_entries=16, show_spinner="Laying out the graph …")
def _view(content_hash: str, max_nodes: int, max_edges: int, title: str, _graph: CoactivationGraph) -> GraphView:
    return graph_view(_graph, max_nodes, max_edges, title=title)


def view(graph: CoactivationGraph, max_nodes: int, max_edges: int, title: str = "") -> GraphView:
    """Layout and communities of the graph's drawn part."""
    return _view(graph.content_hash, max_nodes, max_edges, title, graph)


@st.cache_resource(max_entries=64, show_spinner=False)
def _derived(what: str, key: tuple, _compute: Callable[[], Any]) -> Any:
    return _compute()


def derived(what: str, key: tuple, compute: Callable[[], Any]) -> Any:
    """`compute()` once for each (what, key); the key must say everything that the result depends on."""
    return _derived(what, key, compute)


def distance(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float, on_rung=None) -> GromovResult:
    """The certified interval of a pair."""
    from gfviz.gromov import gromov_wasserstein

    return derived(
        "distance",
        (a.content_hash, b.content_hash, p, budget),
        lambda: gromov_wasserstein(a, b, p=p, budget=budget, on_rung=on_rung),
    )


def known_distance(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> bool:
    """Whether the distance is there, whoever asked for it (then asking again costs nothing)."""

    def absent() -> Any:
        raise LookupError

    try:
        derived("distance", (a.content_hash, b.content_hash, p, budget), absent)
    except LookupError:
        return False
    return True


def predicted(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> list[Prediction]:
    """What each rung of the budget is expected to take."""
    from gfviz.gromov import predict_cost

    return derived("cost", (a.content_hash, b.content_hash, p, budget), lambda: predict_cost(a, b, p=p, budget=budget))


def affordable(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> list[Prediction]:
    """The rungs that a budget will run, as far as that can be told: in seconds, those that each fit into it."""
    rungs = [rung for rung in predicted(a, b, p, budget) if not rung.reason]
    return rungs if isinstance(budget, str) else [rung for rung in rungs if rung.seconds <= budget]


def shares(a: CoactivationGraph, b: CoactivationGraph, result: GromovResult) -> tuple:
    """Each node's share of the objective at the best coupling found."""
    from gfviz.gromov import node_shares

    key = (a.content_hash, b.content_hash, result.p, result.budget, result.upper)
    return derived("shares", key, lambda: node_shares(a, b, result.coupling, p=result.p))
