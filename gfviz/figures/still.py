"""A graph as a still picture (PNG), for papers and READMEs; the browser's canvas is for exploring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gfviz.errors import GfvizError
from gfviz.figures.palette import CATEGORIES, OTHER
from gfviz.figures.text import visible_token
from gfviz.files import atomic_path
from gfviz.graph.communities import communities
from gfviz.graph.layout import layout

if TYPE_CHECKING:
    from gfviz.graph import CoactivationGraph

_LABELS = 70


def draw_png(
    graph: CoactivationGraph, path: str | Path, edges: int = 400, min_weight: float = 0.0, seed: int = 0
) -> None:
    """Draw the nodes that the `edges` heaviest edges above `min_weight` join: 1800×1350 pixels on white.

    A node's area is its activity C_ii, its colour its community, an edge's width its weight. Deterministic by `seed`.
    Raises `GfvizError` where no edge is left or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    kept = graph.edges(edges, min_weight)
    if len(kept.weight) == 0:
        raise GfvizError("no edge is left to draw: lower --min-weight or raise --edges")
    nodes, ends = np.unique(np.concatenate([kept.i, kept.j]), return_inverse=True)
    i, j = ends[: len(kept.i)], ends[len(kept.i) :]
    strength = np.abs(kept.weight)
    place = layout(len(nodes), i, j, strength, seed=seed)
    group = communities(len(nodes), i, j, strength, seed=seed)
    activity = graph.diagonal()[nodes]
    size = 12 + 700 * activity / activity.max()
    relative = np.sqrt(strength / strength.max())

    figure = Figure(figsize=(12, 9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    segments = np.stack([place[i], place[j]], axis=1)
    axes.add_collection(
        LineCollection(segments.tolist(), colors=[(0.35, 0.4, 0.45, 0.12 + 0.5 * r) for r in relative],
                       linewidths=(0.4 + 2.2 * relative).tolist())
    )  # fmt: skip
    colors = [CATEGORIES[g] if g < len(CATEGORIES) else OTHER for g in group]
    axes.scatter(place[:, 0], place[:, 1], s=size, c=colors, edgecolors="white", linewidths=0.8, zorder=2)
    for node in np.argsort(-activity, kind="stable")[:_LABELS]:
        # parse_math off: a token may hold dollar signs, which matplotlib would read as TeX.
        axes.annotate(
            visible_token(graph.labels[nodes[node]]), place[node], xytext=(0, 4 + np.sqrt(size[node]) / 2),
            textcoords="offset points", ha="center", fontsize=8, color="#1b1f24", zorder=3, parse_math=False,
        )  # fmt: skip
    axes.autoscale_view()
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", facecolor="white", metadata={"Software": "gfviz"})
