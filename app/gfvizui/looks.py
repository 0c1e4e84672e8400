"""What is looked at on a canvas, one node and a threshold: said by the canvas, by the page or by the address."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import streamlit as st

from gfviz.figures import GraphView
from gfviz.graph import CoactivationGraph
from gfvizui import address, canvas

NODE, THRESHOLD = "node", "min_weight"
_NODE = re.compile(r"([ab]?)([0-9]{1,9})")


@dataclass
class Look:
    """The node (an index into the graph on `side`, drawn or not) and the threshold of one graph, or of one pair.

    sizes: nodes of each graph; nonce: changes with everything that the canvas did not say itself; heard: the stamps of
    what it has said.
    """

    sizes: tuple[int, ...]
    side: int = 0
    node: int | None = None
    threshold: float = 0.0
    nonce: int = 0
    heard: dict[str, float] = field(default_factory=dict)

    def point_at(self, node: int | None, side: int = 0) -> None:
        """Select `node` from outside the canvas."""
        self.side, self.node = side, node
        self.ask()

    def ask(self) -> None:
        """Let the canvas take over what is here."""
        self.nonce = st.session_state["looks_nonce"] = st.session_state.get("looks_nonce", 0) + 1

    def take(self, node: str, threshold: str) -> None:
        """Node and threshold as an address has them; what cannot be is nothing."""
        self.threshold = address.between(0.0, math.inf)(threshold) or 0.0
        found = _NODE.fullmatch(node)
        side = 1 if found and found[1] == "b" else 0
        there = found is not None and side < len(self.sizes) and int(found[2]) < self.sizes[side]
        self.point_at(int(found[2]) if found and there else None, side if there else 0)

    def tell(self) -> None:
        """Have them put into the address."""
        mark = "ab"[self.side] if len(self.sizes) > 1 else ""
        address.tell(NODE, None if self.node is None else f"{mark}{self.node}")
        address.tell(THRESHOLD, f"{self.threshold:.6g}" if self.threshold else None)

    def follow(self, key: str, views: Sequence[GraphView]) -> None:
        """Take over what the canvas `key` has said of these drawings; what it said of others is theirs."""
        for name, report in canvas.said(key).items():
            if report["versions"] != _versions(views) or report["stamp"] == self.heard.get(name):
                continue
            self.heard[name] = report["stamp"]
            if name == "threshold":
                self.threshold = float(report["value"])
            else:
                self.side, at = int(report["side"]), report["node"]
                self.node = None if at is None else int(views[self.side].nodes[int(at)])

    def command(self, key: str, views: Sequence[GraphView]) -> dict[str, Any]:
        """What the canvas `key`, which draws `views`, is to show."""
        if st.session_state.get(f"{key}_drawn") != _versions(views):
            st.session_state[f"{key}_drawn"] = _versions(views)
            self.ask()
        place = place_in(views[self.side], self.node)
        return {"nonce": self.nonce, "side": self.side, "selected": place, "threshold": self.threshold}


def _versions(views: Sequence[GraphView]) -> str:
    return "|".join(view.version for view in views)


def place_in(view: GraphView, node: int | None) -> int | None:
    """Index of a graph's node among the drawn ones."""
    if node is None:
        return None
    at = int(np.searchsorted(view.nodes, node))
    return at if at < view.n and view.nodes[at] == node else None


def arrive(key: str) -> None:
    """Before the page's first widget `key`, which names a graph: on arrival, note what the address asks for."""
    named = any(name in st.query_params for name in (key, NODE, THRESHOLD))
    if address.came_by_history() or (named and key not in st.session_state):
        st.session_state["looks_asked"] = [st.query_params.get(name, "") for name in (NODE, THRESHOLD)]


def look_at(page: str, *graphs: CoactivationGraph) -> Look:
    """The page's look at these graphs: as the address asks on arrival, else as it was left."""
    key = (page, *(graph.content_hash for graph in graphs))
    look = st.session_state.setdefault("looks", {}).setdefault(key, Look(tuple(graph.n for graph in graphs)))
    asked = st.session_state.pop("looks_asked", None)
    if asked is not None:
        look.take(*asked)
    return look
