"""Colours that every reader can tell apart, and the two templates of all Plotly figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gfviz.errors import GfvizError
from gfviz.figures.text import plotly_text

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito 2008, "Color Universal Design", without black and without yellow (invisible on white).
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
OTHER = "#999999"
# Tol 2021, "Colour schemes" (SRON/EPS/TN/09-002): "muted" for a white page and "light" for a dark one; more hues than
# lines need, for communities. Each theme has the same number.
_MUTED = ("#332288", "#CC6677", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933")
_LIGHT = ("#77AADD", "#EE8866", "#EEDD88", "#44BB99", "#99DDFF", "#FFAABB", "#BBCC33", "#AAAA00")


@dataclass(frozen=True)
class Theme:
    """The colours of one theme; `app_options` tells Streamlit the same ones.

    categories: of series, in order of use; groups: of communities.
    """

    name: str
    background: str
    surface: str
    text: str
    quiet: str
    grid: str
    accent: str
    contrast: str
    scale: tuple[str, ...]
    categories: tuple[str, ...]
    groups: tuple[str, ...]


LIGHT = Theme(
    "light",
    background="#ffffff",
    surface="#f5f6f8",
    text="#1b1f24",
    quiet="#5c6670",
    grid="#e4e7eb",
    accent="#0072B2",
    contrast="#D55E00",
    scale=("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"),
    categories=CATEGORIES,
    groups=_MUTED,
)
DARK = Theme(
    "dark",
    background="#12161c",
    surface="#1b2129",
    text="#e8ebef",
    quiet="#9aa4af",
    grid="#2b333d",
    # Streamlit writes white upon it: between that and the page, light enough for both (3.5 and 5.1 to 1).
    accent="#2F8FCC",
    contrast="#E69F00",
    scale=("#12161c", "#163a5f", "#1f6ea8", "#56b4e9", "#e6f4fd"),
    # The same, with the dark blue last, where a dark page wants it least.
    categories=(CATEGORIES[-1], *CATEGORIES[1:-1], CATEGORIES[0]),
    groups=_LIGHT,
)
THEMES = {"light": LIGHT, "dark": DARK}


def theme_of(name: str) -> Theme:
    """The theme called `name`. Raises `GfvizError` for another name."""
    if name not in THEMES:
        raise GfvizError(f"theme = {name!r} is unknown: choose one of {', '.join(THEMES)}")
    return THEMES[name]


def series_color(index: int, theme: str = "light") -> str:
    """Colour of the index-th series; grey once the distinguishable ones are used up."""
    colors = theme_of(theme).categories
    return colors[index] if index < len(colors) else OTHER


def translucent(color: str, alpha: float) -> str:
    """`#rrggbb` as an rgba() string.

    >>> translucent("#0072B2", 0.25)
    'rgba(0,114,178,0.25)'
    """
    red, green, blue = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


@cache
def _template(name: str) -> go.layout.Template:
    import plotly.graph_objects as go

    theme = theme_of(name)
    axis = {
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zerolinecolor": theme.grid,
        "tickcolor": theme.grid,
        "ticks": "outside",
        "ticklen": 4,
        "automargin": True,
        "tickformat": ".4~g",
        "title": {"standoff": 8, "font": {"size": 12}},
        "tickfont": {"size": 11, "color": theme.quiet},
    }
    return go.layout.Template(
        layout={
            "font": {"family": "Source Sans, sans-serif", "size": 13, "color": theme.text},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(theme.categories),
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 8, "r": 12, "t": 34, "b": 8},
            "title": {"font": {"size": 14}, "x": 0, "xanchor": "left", "y": 0.98, "yanchor": "top", "pad": {"l": 4}},
            "legend": {
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.01,
                "yanchor": "bottom",
                "font": {"size": 12},
                "bgcolor": "rgba(0,0,0,0)",
            },
            "hoverlabel": {"font": {"size": 12}, "bgcolor": theme.surface, "bordercolor": theme.grid},
            "hovermode": "closest",
        }
    )


def blank(theme: str, height: int, title: str = "", note: str = "") -> go.Figure:
    """An empty figure in `theme`; `note` is written in the middle where there is nothing to draw."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": _template(theme), "height": height})
    if title:
        figure.update_layout(title={"text": plotly_text(title)})
    if note:
        figure.add_annotation(
            text=note, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"color": theme_of(theme).quiet}
        )
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure
