"""A chart as plain data, so that a newer one with the same lines only changes their numbers.

Plotly checks every property of every object it makes, which for one chart takes longer than reading, smoothing and
sending its data; a chart that ticks is therefore made once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gfviz.figures.palette import blank

if TYPE_CHECKING:
    import plotly.graph_objects as go

NUMBERS = ("x", "y")


class Drawing(NamedTuple):
    """Scatter traces as dictionaries, `x` and `y` arrays in them, and what the layout has beside the theme's own."""

    theme: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    note: str = ""

    def figure(self) -> go.Figure:
        """The Plotly figure; about 10 ms."""
        figure = blank(self.theme, int(self.layout["height"]), self.title, self.note)
        figure.add_traces([{"type": "scatter", **trace} for trace in self.traces])
        return figure.update_layout(dict(self.layout))

    def like(self, other: Drawing) -> bool:
        """Whether the two differ in the numbers of their traces at most."""
        return self._style() == other._style()

    def _style(self) -> tuple:
        traces = [{key: value for key, value in trace.items() if key not in NUMBERS} for trace in self.traces]
        return self.theme, self.title, self.note, dict(self.layout), traces

    def onto(self, figure: go.Figure, drawn: Drawing) -> go.Figure:
        """`figure`, which shows `drawn`, brought to this drawing: in place where they are `like`, else a new one.

        >>> import numpy as np
        >>> x, layout = np.arange(2), {"height": 99}
        >>> one, two = (Drawing("light", "t", [{"x": x, "y": np.array([0, k])}], layout) for k in (1, 2))
        >>> figure = one.figure()
        >>> two.onto(figure, one) is figure, figure.data[0].y.tolist()
        (True, [0, 2])
        """
        if not self.like(drawn):
            return self.figure()
        for trace, before, now in zip(figure.data, drawn.traces, self.traces):
            for name in NUMBERS:
                if not np.array_equal(before[name], now[name], equal_nan=True):
                    trace[name] = now[name]
        return figure
