"""The graph canvas and the view of curves as Streamlit components, without the manifest that these want in a wheel.

Under `server.py` the built script has an address of its own, and Streamlit is given one line that fetches it: the
browser has it before the page asks for it and keeps it compiled. Elsewhere the whole script is passed inline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import streamlit as st

from gfviz.figures import Drawing, board
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
def component(name: str):
    """The component of build/`name`.js and .css."""
    css = (BUILD / f"{name}.css").read_text(encoding="utf-8")
    return st.components.v2.component(f"gfviz_{name}", js=script(name), css=css)


def graph_canvas(
    panes: list[dict[str, Any]],
    key: str,
    memory: str,
    height: int = 560,
    links: dict[str, Any] | None = None,
    command: dict[str, Any] | None = None,
) -> None:
    """Draw one graph, or two side by side with `links`; what is done there, `said` tells.

    `memory` names what the camera, the threshold and the pins belong to: they survive reruns and remounts while it
    stays the same. `command` {nonce, side, selected, threshold} is obeyed once for each nonce, and by a new canvas.
    """
    data = {"panes": panes, "height": height, "links": links, "memory": memory, "command": command}
    component("canvas")(key=key, data=data, on_selected_change=_nothing, on_threshold_change=_nothing, height="content")


def said(key: str) -> dict[str, dict[str, Any]]:
    """What the canvas `key` has last reported, also before it is drawn in this run.

    "selected" {side, node} and "threshold" {value}, each with the `versions` of the panes it is about and a `stamp`.
    """
    state = st.session_state.get(key) or {}
    return {name: state[name] for name in ("selected", "threshold") if state.get(name) is not None}


def curves(drawings: Sequence[Drawing], key: str, memory: str) -> None:
    """Draw charts in two columns. Zoom and hidden lines survive newer numbers while `memory` stays the same."""
    component("curves")(key=key, data=board(drawings) | {"memory": memory}, height="content")


def _nothing() -> None:
    """Streamlit returns a state value only where it has a callback."""
