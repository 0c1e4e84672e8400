"""The graph canvas as a Streamlit component, without the manifest that Streamlit wants in a wheel.

Under `server.py` the built script has an address of its own, and Streamlit is given one line that fetches it: the
browser has it before the page asks for it and keeps it compiled. Elsewhere the whole script is passed inline.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st

from gfvizui.assets import BUILD, Assets, address_of


def script(name: str) -> str:
    """The script of a component: one that fetches the built `name`.js, or the built file itself."""
    if not Assets.served:
        return (BUILD / f"{name}.js").read_text(encoding="utf-8")
    # Streamlit runs it from a blob, in which an address needs its host.
    return f"""const {{ default: render }} = await import(new URL("{address_of(name)}", document.baseURI));
export default render;
"""


@cache
def _component():
    css = (BUILD / "canvas.css").read_text(encoding="utf-8")
    return st.components.v2.component("gfviz_canvas", js=script("canvas"), css=css)


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
