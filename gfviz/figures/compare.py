"""Two graphs beside each other: who is matched with whom, which edges differ, how far the vocabularies agree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from gfviz.errors import GfvizError
from gfviz.figures.text import visible_token
from gfviz.figures.view import NO_PARTNER, REST, GraphView, community_names, evened

if TYPE_CHECKING:
    import pandas as pd

    from gfviz.graph import CoactivationGraph


# A community beyond any that a graph can have: what belongs to no group of the other graph.
UNMATCHED = 1 << 30


class Coverage(NamedTuple):
    """Tokens that both graphs hold: how many, and which share of each graph's activity Σ C_ii they carry."""

    shared: int
    left_nodes: int
    right_nodes: int
    left_activity: float
    right_activity: float


def same_label(a: CoactivationGraph, b: CoactivationGraph) -> sparse.csr_array:
    """The matching of nodes with one label, csr [n, m] of ones scaled to sum 1: what two tokenizers have in common.

    A label that occurs more than once in a graph counts for its first node.
    """
    place: dict[str, int] = {}
    for j, label in enumerate(b.labels):
        place.setdefault(label, j)
    pairs, seen = [], set()
    for i, label in enumerate(a.labels):
        if label in place and label not in seen:
            seen.add(label)
            pairs.append((i, place[label]))
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    ones = np.full(len(pairs), 1.0 / max(len(pairs), 1))
    return sparse.csr_array((ones, (rows, columns)), shape=(a.n, b.n))


def coverage(a: CoactivationGraph, b: CoactivationGraph) -> Coverage:
    """How far the two graphs' labels agree. O(n + m)."""
    match = same_label(a, b).tocoo()
    left, right = a.diagonal(), b.diagonal()
    return Coverage(
        len(match.data),
        a.n,
        b.n,
        float(left[match.row].sum() / max(left.sum(), 1e-300)),
        float(right[match.col].sum() / max(right.sum(), 1e-300)),
    )


def partners(coupling: sparse.csr_array, node: int, b: CoactivationGraph, limit: int = 10) -> pd.DataFrame:
    """Where the mass of `node` goes: partners in `b` with their share of it, largest first."""
    import pandas as pd

    if not 0 <= node < coupling.shape[0]:
        raise GfvizError(f"node {node} is outside 0..{coupling.shape[0] - 1}")
    row = coupling[[node]].tocoo()
    order = np.argsort(-row.data, kind="stable")[:limit]
    total = max(float(row.data.sum()), 1e-300)
    return pd.DataFrame(
        {
            "node": row.col[order],
            "goes to": [visible_token(b.labels[k]) for k in row.col[order]],
            "share": row.data[order] / total,
        }
    )


def best_partner(coupling: sparse.csr_array) -> np.ndarray:
    """For every row the column of its largest entry, -1 for an empty row; int64 [n]."""
    coupling = sparse.csr_array(coupling)
    best = np.full(coupling.shape[0], -1, np.int64)
    for i in np.flatnonzero(np.diff(coupling.indptr)):
        part = slice(coupling.indptr[i], coupling.indptr[i + 1])
        best[i] = coupling.indices[part][np.argmax(coupling.data[part])]
    return best


def edge_differences(
    a: CoactivationGraph, b: CoactivationGraph, coupling: sparse.csr_array, limit: int = 200, pool: int = 4000
) -> pd.DataFrame:
    """Edges whose weight differs most between a graph and its partner under `coupling` (best partner of each node).

    Looked for among the `pool` heaviest edges of `a` with the pairs they are matched to. Columns: the edge in A, its
    weight, the matched pair in B, that weight, the difference A − B; by falling |difference|.
    """
    import pandas as pd

    match = best_partner(coupling)
    edges = a.edges(limit=pool)
    keep = (match[edges.i] >= 0) & (match[edges.j] >= 0)
    i, j, weight = edges.i[keep], edges.j[keep], edges.weight[keep]
    other = b.entries(match[i], match[j])
    order = np.argsort(-np.abs(weight - other), kind="stable")[:limit]

    def names(graph: CoactivationGraph, one: np.ndarray, two: np.ndarray) -> list[str]:
        return [f"{visible_token(graph.labels[p])} – {visible_token(graph.labels[q])}" for p, q in zip(one, two)]

    return pd.DataFrame(
        {
            "edge in A": names(a, i[order], j[order]),
            "weight A": weight[order],
            "matched in B": names(b, match[i[order]], match[j[order]]),
            "weight B": other[order],
            "A − B": (weight - other)[order],
        }
    )


def unmatched(a: CoactivationGraph, b: CoactivationGraph, limit: int = 200) -> pd.DataFrame:
    """The most active nodes of `a` whose label `b` does not hold: label, activity C_ii, share of all activity."""
    import pandas as pd

    known = set(b.labels)
    activity = a.diagonal()
    alone = np.array([i for i, label in enumerate(a.labels) if label not in known], np.int64)
    order = alone[np.argsort(-activity[alone], kind="stable")][:limit]
    return pd.DataFrame(
        {
            "token": [visible_token(a.labels[i]) for i in order],
            "activity": activity[order],
            "share": activity[order] / max(float(activity.sum()), 1e-300),
        }
    )


def beside(left: GraphView, right: GraphView, coupling: sparse.csr_array) -> GraphView:
    """`right` with every node near where its partners stand in `left` and in their community: matched parts face.

    Positions are the coupling's barycentres, a fifth of the node's own place mixed in so that equal ones part, spread
    over the square again because averages crowd its middle. A node's
    community is the one that most of its mass comes from; a node without a partner is put after all of `left`'s.
    """
    part = sparse.csr_array(coupling[left.nodes][:, right.nodes])
    mass = np.asarray(part.sum(axis=0)).ravel()
    known = mass > 0
    positions = right.positions.copy()
    centre = (part.T @ left.positions)[known] / mass[known][:, None]
    positions[known] = 0.8 * centre + 0.2 * right.positions[known]
    groups = int(left.community.max()) + 1 if left.n else 1
    member = sparse.csr_array((np.ones(left.n), (np.arange(left.n), left.community)), shape=(left.n, groups))
    votes = (part.T @ member).toarray()
    community = np.where(known, votes.argmax(axis=1), UNMATCHED)
    return replace(right.moved(evened(positions), left.version), community=community)


def shared_groups(left: GraphView, right: GraphView) -> list[str]:
    """Names of `left`'s groups for both panes, `right` being `beside` it; the last is what belongs to none of them."""
    names = [name for name, _ in community_names(left)]
    if names and names[-1] == REST:
        return names[:-1] + [f"{REST}, {NO_PARTNER}"]
    return names + [NO_PARTNER] if (right.community >= len(names)).any() else names
