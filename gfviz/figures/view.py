"""What of a graph is drawn, where and in which colour: the step between a graph and the canvas."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.figures.palette import LIGHT, OTHER, THEMES
from gfviz.figures.text import visible_token
from gfviz.graph.communities import communities
from gfviz.graph.layout import layout
from gfviz.graph.products import absolute_strength

if TYPE_CHECKING:
    from gfviz.graph import CoactivationGraph

KEPT_PER_NODE = 3
VIEW_ENTRIES = 1 << 25
"""Above this many entries among the chosen nodes nothing is drawn: choosing edges takes 50 bytes for each."""
REST, NO_PARTNER = "smaller groups", "no partner"
NAMED_GROUPS = len(LIGHT.groups)


@dataclass(frozen=True, eq=False)
class GraphView:
    """A drawable part of a graph: `n` nodes and their edges, heaviest first.

    version: changes whenever the drawing does; nodes [n]: indices into the graph; labels: visible strings;
    strength [n]: Σ|C_ij| over the whole graph; community [n]: 0 is the largest; i, j, weight: edges among the n nodes
    (weight = |C_ij|); positions float64 [n, 2]; total_nodes: of the whole graph; total_edges: among the n
    nodes, drawn or not.
    """

    version: str
    title: str
    nodes: np.ndarray
    labels: tuple[str, ...]
    strength: np.ndarray
    community: np.ndarray
    i: np.ndarray
    j: np.ndarray
    weight: np.ndarray
    positions: np.ndarray
    total_nodes: int
    total_edges: int

    @property
    def n(self) -> int:
        """Number of drawn nodes."""
        return len(self.nodes)

    def moved(self, positions: np.ndarray, mark: str) -> GraphView:
        """The same view at other positions [n, 2]; `mark` distinguishes its version."""
        return replace(self, positions=positions, version=f"{self.version}-{mark}")


def graph_view(
    graph: CoactivationGraph, max_nodes: int = 3000, max_edges: int = 8000, seed: int = 0, title: str = ""
) -> GraphView:
    """Choose, group and place: the strongest `max_nodes` nodes, at most about `max_edges` edges among them.

    Edges are the heaviest, and for every node the three of highest cosine C_ij / √(C_ii C_jj), so that no drawn node
    hangs in the air, or on the commonest tokens alone, because its weights are small. Nodes without any edge are left
    out unless nothing else is there. Deterministic. Raises `GfvizError` for limits below 1, and where more than 2^25
    entries of C lie among the chosen nodes. Cost: a sparse product over these, then layout and communities, which
    `gfviz bench app` has within its first draws, cold.
    """
    if max_nodes < 1 or max_edges < 1:
        raise GfvizError("a view needs room for at least one node and one edge")
    strength = _magnitude(graph)
    chosen = np.argsort(-strength, kind="stable")[:max_nodes]
    chosen = np.sort(chosen[strength[chosen] > 0]) if (strength > 0).any() else np.arange(min(graph.n, max_nodes))
    alone = np.maximum(graph.diagonal()[chosen], 1e-300)
    i, j, weight, among = _chosen_edges(abs(graph.part(chosen, VIEW_ENTRIES)), alone, max_edges)
    # Hubs are heavy with everybody: relative to what both ends do alone, an edge says who belongs together.
    bond = weight / np.sqrt(alone[i] * alone[j])
    positions = spread(layout(len(chosen), i, j, bond, seed=seed))
    group = communities(len(chosen), i, j, bond, seed=seed)
    return GraphView(
        version=f"{graph.content_hash[:16]}-{max_nodes}-{max_edges}-{seed}",
        title=title,
        nodes=chosen,
        labels=tuple(visible_token(graph.labels[node]) for node in chosen),
        strength=strength[chosen],
        community=group,
        i=i,
        j=j,
        weight=weight,
        positions=positions,
        total_nodes=graph.n,
        total_edges=among,
    )


def _magnitude(graph: CoactivationGraph) -> np.ndarray:
    """Σ_{j≠i} |C_ij|: from row sums where nothing is negative, else from the matrix."""
    held = graph.factors if graph.factors is not None else graph.accumulated
    assert held is not None
    if held.nnz == 0 or held.data.min() >= 0:
        return graph.strength()
    if graph.factors is not None:
        return absolute_strength(graph.factors.astype(np.float64)) / graph.positions
    matrix = abs(graph.matrix())
    return np.asarray(matrix.sum(axis=1)).ravel() - matrix.diagonal()


def _chosen_edges(
    part: sparse.csr_array, alone: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Edges to draw, heaviest first, and how many there are to choose from."""
    upper = sparse.triu(part, k=1).tocoo()
    keep = upper.data > 0
    i, j, weight = upper.row[keep].astype(np.int64), upper.col[keep].astype(np.int64), upper.data[keep]
    # Stable, so ties stay in the order of (i, j).
    order = np.argsort(-weight, kind="stable")
    i, j, weight = i[order], j[order], weight[order]
    if len(weight) > limit:
        wanted = np.zeros(len(weight), bool)
        by_bond = np.argsort(-weight / np.sqrt(alone[i] * alone[j]), kind="stable")
        wanted[by_bond[_first_of_each(i[by_bond], j[by_bond], KEPT_PER_NODE)]] = True
        wanted[np.flatnonzero(~wanted)[: max(0, limit - int(wanted.sum()))]] = True
        return i[wanted], j[wanted], weight[wanted], len(weight)
    return i, j, weight, len(weight)


def _first_of_each(i: np.ndarray, j: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first `count` edges of every node."""
    ends = np.stack([i, j], 1).ravel()
    order = np.argsort(ends, kind="stable")
    ends, edge = ends[order], order // 2
    first = np.searchsorted(ends, ends)
    return np.unique(edge[np.arange(len(ends)) - first < count])


def spread(positions: np.ndarray, evenness: float = 0.6) -> np.ndarray:
    """`positions` [n, 2] turned to their principal axes and spread over the square [−1, 1]².

    Each axis is then `evened`, a mixture of the coordinate and its rank (`evenness` of it): the crowded middle gets
    room, single far nodes come nearer, and the order along both axes stays. O(n log n).

    >>> import numpy as np
    >>> spread(np.array([[0.0, 0.0], [1.0, 0.0], [100.0, 0.1]]))[:, 0].round(2).tolist()
    [-1.0, -0.39, 1.0]
    """
    if len(positions) < 3:
        return positions
    centred = positions - positions.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    # The sign of an axis is arbitrary: the longer tail goes to the right, and up.
    turned *= np.where((turned**3).sum(axis=0) < 0, -1.0, 1.0)
    return evened(turned, evenness)


def evened(positions: np.ndarray, evenness: float = 0.6) -> np.ndarray:
    """`positions` [n, 2] spread over the square [−1, 1]², each axis a mixture of the coordinate and its rank."""
    if len(positions) < 2:
        return positions
    out = np.empty_like(positions)
    for axis in range(2):
        value = positions[:, axis]
        low, width = value.min(), np.ptp(value)
        rank = np.argsort(np.argsort(value, kind="stable"), kind="stable") / (len(value) - 1)
        plain = (value - low) / width if width > 0 else rank
        out[:, axis] = 2.0 * ((1.0 - evenness) * plain + evenness * rank) - 1.0
    return out


def community_names(view: GraphView, shown: int = NAMED_GROUPS) -> list[tuple[str, int]]:
    """(name, size) of the `shown` largest communities and, where there are more nodes, of the rest.

    A community is called after its two strongest tokens.
    """
    named = []
    for number in range(min(shown, int(view.community.max()) + 1 if view.n else 0)):
        members = np.flatnonzero(view.community == number)
        top = members[np.argsort(-view.strength[members], kind="stable")[:2]]
        named.append((" · ".join(view.labels[node] for node in top), len(members)))
    rest = int((view.community >= shown).sum())
    return named + [(REST, rest)] if rest else named


def canvas_pane(
    view: GraphView, bbox: tuple[float, float, float, float] | None = None, names: list[str] | None = None
) -> dict[str, Any]:
    """The message that draws `view` on the canvas: JSON values only, arrays as base64 of little-endian floats and ints.

    Groups have a colour for either theme: the page may change it at any time. `bbox` (x0, x1, y0, y1) fixes the frame,
    so that several graphs share one camera. `names` are the groups of another view whose communities this one has taken
    over (`gfviz.figures.compare.beside`), so that one legend serves both.
    """
    shown = [name for name, _ in community_names(view)] if names is None else names
    group = np.minimum(view.community, max(len(shown) - 1, 0))
    sizes = np.bincount(group, minlength=len(shown))
    groups = [
        {"name": name, "count": int(sizes[k])}
        | {key: OTHER if name.startswith((REST, NO_PARTNER)) else theme.groups[k] for key, theme in THEMES.items()}
        for k, name in enumerate(shown)
    ]
    return {
        "version": view.version,
        "title": view.title,
        "labels": list(view.labels),
        "x": packed(view.positions[:, 0], "<f4"),
        "y": packed(view.positions[:, 1], "<f4"),
        "strength": packed(view.strength, "<f4"),
        "group": packed(group, "<u4"),
        "groups": groups,
        "source": packed(view.i, "<u4"),
        "target": packed(view.j, "<u4"),
        "weight": packed(view.weight, "<f4"),
        "bbox": None if bbox is None else {"x": [bbox[0], bbox[1]], "y": [bbox[2], bbox[3]]},
    }


def canvas_links(coupling: sparse.csr_array, left: GraphView, right: GraphView, floor: float = 1e-3) -> dict[str, Any]:
    """The coupling between the drawn nodes of two views; entries below `floor` of their row's mass are left out."""
    part = coupling[left.nodes][:, right.nodes].tocoo()
    row_mass = np.maximum(np.asarray(coupling.sum(axis=1)).ravel()[left.nodes], 1e-300)
    keep = part.data > floor * row_mass[part.row]
    return {
        "source": packed(part.row[keep], "<u4"),
        "target": packed(part.col[keep], "<u4"),
        "mass": packed(part.data[keep], "<f4"),
    }


def packed(values: np.ndarray, kind: str) -> str:
    """Base64 of `values` as the little-endian type `kind`, for a JSON message.

    >>> import numpy as np
    >>> packed(np.array([1.0, 0.5]), "<f4")
    'AACAPwAAAD8='
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


def shared_frame(*views: GraphView, margin: float = 0.05) -> tuple[float, float, float, float]:
    """One frame (x0, x1, y0, y1) around all views."""
    points = np.concatenate([view.positions for view in views])
    low, high = points.min(0), points.max(0)
    pad = margin * np.maximum(high - low, 1e-9)
    return float(low[0] - pad[0]), float(high[0] + pad[0]), float(low[1] - pad[1]), float(high[1] + pad[1])
