"""Asking for a distance: at once where it is cheap, after a click where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from gfviz.figures import duration, number, rung_table
from gfviz.graph import CoactivationGraph
from gfvizui import cached

if TYPE_CHECKING:
    from gfviz.gromov import GromovResult, Prediction

AUTOMATIC_SECONDS = 4.0


def expected(rungs: list[Prediction], budget: str | float) -> float:
    """Seconds that a budget's rungs are predicted to take; never more than a budget in seconds allows."""
    total = sum(rung.seconds for rung in rungs)
    return total if isinstance(budget, str) else min(total, budget)


def measure(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> GromovResult | None:
    """The result, at once where it is cheap or known, else after a click; rungs are shown as they are spent."""
    seconds = expected(cached.affordable(a, b, p, budget), budget)
    if seconds > AUTOMATIC_SECONDS and not cached.known_distance(a, b, p, budget):
        named = budget if isinstance(budget, str) else f"{budget:g} s"
        label = f"Compute with budget {named} (about {duration(seconds)})"
        if not st.button(label, type="primary", icon=":material/calculate:"):
            st.caption("Predicted to take longer than a few seconds, so it waits for you.")
            return None
    with st.status("Climbing the ladder …", expanded=False) as status:

        def on_rung(record, lower: float, upper: float) -> None:
            if record.value is not None:
                status.update(label=f"{record.name}: {number(record.value)} · now [{number(lower)}, {number(upper)}]")

        result = cached.distance(a, b, p, budget, on_rung)
        left_out = sum(not rung.used for rung in result.rungs)
        ran = len(result.rungs) - left_out
        status.update(label=f"{ran} bounds in {duration(result.seconds)}, {left_out} left out", state="complete")
        st.dataframe(
            rung_table(result.rungs),
            hide_index=True,
            height="content",
            column_config={
                "value": st.column_config.NumberColumn(format="%.6g"),
                "time (ms)": st.column_config.NumberColumn(format="%.2f"),
            },
        )
    return result
