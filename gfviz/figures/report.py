"""Figures and facts as one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gfviz.figures.palette import LIGHT

if TYPE_CHECKING:
    import plotly.graph_objects as go

_STYLE = (
    "body{{font:15px/1.5 system-ui,sans-serif;color:{text};max-width:1080px;margin:32px auto;padding:0 20px}}"
    "h1{{font-size:1.5rem}}h2{{font-size:1.1rem;margin-top:1.6em}}"
    "table{{border-collapse:collapse}}td,th{{padding:4px 14px 4px 0;text-align:left;border-bottom:1px solid {grid}}}"
    "pre{{background:{surface};padding:12px;overflow:auto;border-radius:6px}}"
)


def html_report(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Mapping[str, go.Figure],
    texts: Mapping[str, str] | None = None,
) -> str:
    """One self-contained page: `facts` as a table, each figure under its title, each text in a box.

    Plotly's script is written into the page once (about 5 MB), so that it opens without a network. All text is escaped.
    """
    from plotly.io import to_html

    style = _STYLE.format(text=LIGHT.text, grid=LIGHT.grid, surface=LIGHT.surface)
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts)
    parts = [f"<h1>{html.escape(title)}</h1><table>{rows}</table>"]
    for index, (name, figure) in enumerate(figures.items()):
        drawn = to_html(figure, full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        parts.append(f"<h2>{html.escape(name)}</h2>{drawn}")
    for name, text in (texts or {}).items():
        parts.append(f"<h2>{html.escape(name)}</h2><pre>{html.escape(text)}</pre>")
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"
