"""The graph canvas as a Streamlit component: the built script is passed inline, so that a wheel needs no manifest."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

BUILD = Path(__file__).resolve().parent.parent / "canvas" / "build"


@cache
def _component():
    return st.components.v2.component(
        "gfviz_canvas",
        js=(BUILD / "canvas.js").read_text(encoding="utf-8"),
        css=(BUILD / "canvas.css").read_text(encoding="utf-8"),
    )


def graph_canvas(
    panes: list[dict[str, Any]],
    key: str,
    memory: str,
    height: int = 560,
    links: dict[str, Any] | None = None,
    command: dict[str, Any] | None = None,
) -> tuple[dict[str, Any] | None, float | None]:
    """Draw one graph, or two side by side with `links`; returns (selected {side, node, version} or None, threshold).

    `memory` names what the camera, the threshold and the pins belong to: they survive reruns and remounts while it
    stays the same. `command` {nonce, selected?, side?, threshold?} is obeyed once for each nonce.
    """
    data = {"panes": panes, "height": height, "links": links, "memory": memory, "command": command}
    state = _component()(
        key=key, data=data, on_selected_change=_nothing, on_threshold_change=_nothing, height="content"
    )
    return state.selected, state.threshold


def _nothing() -> None:
    """Streamlit returns a state value only where it has a callback."""
