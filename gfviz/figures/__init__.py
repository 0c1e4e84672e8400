"""Floor 5: pure functions from graphs, results and runs to Plotly figures, tables and the canvas's message."""

from gfviz.figures.curves import (
    Line,
    curve_drawing,
    curve_figure,
    distance_drawing,
    distance_figure,
    lines_of,
    smoothed,
)
from gfviz.figures.drawing import Drawing, board
from gfviz.figures.ladder import interval_figure, ladder_figure, share_figure
from gfviz.figures.matrix import heat_figure, profile_figure, tail_figure
from gfviz.figures.palette import CATEGORIES, THEMES, Theme, blank, series_color, theme_of
from gfviz.figures.tables import (
    Context,
    config_difference,
    contexts,
    edge_table,
    neighbour_table,
    node_table,
    rung_table,
)
from gfviz.figures.text import duration, number, plotly_text, visible_token
from gfviz.figures.view import (
    GraphView,
    canvas_links,
    canvas_pane,
    community_names,
    graph_view,
    packed,
    shared_frame,
)

__all__ = [
    "CATEGORIES",
    "THEMES",
    "Context",
    "Drawing",
    "GraphView",
    "Line",
    "Theme",
    "blank",
    "board",
    "canvas_links",
    "canvas_pane",
    "community_names",
    "config_difference",
    "contexts",
    "curve_drawing",
    "curve_figure",
    "distance_drawing",
    "distance_figure",
    "duration",
    "edge_table",
    "graph_view",
    "heat_figure",
    "interval_figure",
    "ladder_figure",
    "lines_of",
    "neighbour_table",
    "node_table",
    "number",
    "packed",
    "plotly_text",
    "profile_figure",
    "rung_table",
    "series_color",
    "share_figure",
    "shared_frame",
    "smoothed",
    "tail_figure",
    "theme_of",
    "visible_token",
]
