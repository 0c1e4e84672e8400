"""Distance: the certified interval of a pair, what each bound gave and cost, and why the closed form is loose."""

import pandas as pd
import streamlit as st
from gfvizui import address, cached, measuring, parts, studyviews

from gfviz.errors import GfvizError
from gfviz.figures import duration, interval_figure, ladder_figure, number, profile_figure, share_figure
from gfviz.figures.text import visible_token
from gfviz.graph import CoactivationGraph
from gfviz.gromov import BUDGETS, GromovResult, apriori_interval, sorted_gw

SECONDS = "seconds"
WORDS = {
    "fast": "cheap bounds and one local search",
    "standard": "all bounds that pay, more starts",
    "thorough": "every rung, proofs where they are possible",
}


def dial(a: CoactivationGraph, b: CoactivationGraph) -> tuple[float, str | float]:
    """Exponent and budget, with what they are predicted to cost before anything is computed."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        address.hold("p", 2, address.among([1, 2]))
        p = st.segmented_control("Exponent p", [1, 2], key="p", required=True, help="2 is the default of POT") or 2
        address.tell("p", p, 2)
        address.hold("budget", BUDGETS[0], address.among([*BUDGETS, SECONDS]))
        name = st.segmented_control("Budget", [*BUDGETS, SECONDS], key="budget", required=True) or BUDGETS[0]
        address.tell("budget", name, BUDGETS[0])
        chosen: str | float = name
        if name == SECONDS:
            least, most = 0.1, 86_400.0
            address.hold("seconds", 5.0, address.between(least, most))
            chosen = float(st.number_input("Seconds", least, most, key="seconds", width=130, format="%g"))
            address.tell("seconds", chosen)
        else:
            address.drop("seconds")
        for budget in [*BUDGETS, *([chosen] if name == SECONDS else [])]:
            price(a, b, float(p), budget, budget == chosen)
    return float(p), chosen


def price(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float, chosen: bool) -> None:
    """One budget's predicted time and memory."""
    rungs = cached.affordable(a, b, p, budget)
    seconds, size = measuring.expected(rungs, budget), max((rung.bytes for rung in rungs), default=0.0)
    name = budget if isinstance(budget, str) else f"{budget:g} s"
    mark = "**" if chosen else ""
    memory = f"{size / 1e6:,.0f} MB" if size > 1e6 else "under 1 MB"
    words = WORDS.get(name, "rungs by their price, until the time is spent")
    st.caption(
        f"{mark}{name}{mark}: about {duration(seconds)}, {memory}",
        help=f"{len(rungs)} rungs: {words}. Predicted, one core.",
        width="content",
    )


def headline(a: CoactivationGraph, b: CoactivationGraph, result: GromovResult) -> None:
    closed = closed_form(a, b, result.p)
    ratio = closed / result.upper if result.upper > 0 else 1.0
    parts.cards(
        [
            (f"GW_{result.p:g} is at least", number(result.lower), f"Best lower bound: {result.lower_rung}"),
            ("and at most", number(result.upper), f"Objective at the best coupling found: {result.upper_rung}"),
            ("Gap", percent(result.gap), "(upper − lower) / upper"),
            ("Proof", result.proof or "open", "How the interval was closed to a number, if it was"),
            ("Closed form", number(closed), f"sorted_gw at the same p: {100 * ratio:.0f} % of the upper end"),
        ]
    )


def closed_form(a: CoactivationGraph, b: CoactivationGraph, p: float) -> float:
    return cached.derived("sorted", (a.content_hash, b.content_hash, p), lambda: sorted_gw(a, b, p=p))


def carriers(a: CoactivationGraph, b: CoactivationGraph, result: GromovResult) -> None:
    st.markdown("**Which nodes carry the distance**")
    try:
        left, right = cached.shares(a, b, result)
    except GfvizError as error:
        st.caption(parts.plain(str(error)))
        return
    for column, graph, share, name in zip(st.columns(2, gap="medium"), (a, b), (left, right), "AB"):
        total = float(share.sum())
        with column:
            st.caption(f"Graph {name}: share of the objective at the best coupling found")
            if total <= 0:
                st.caption("The objective is zero: nothing carries it.")
                continue
            labels = [visible_token(label) for label in graph.labels]
            parts.chart(
                share_figure(labels, share / total, parts.theme(), 12),
                f"share_{name}",
                "Share of nodes in the distance",
            )


def share_of_truth(closed: float, result: GromovResult) -> str:
    """How much of the distance the closed form is sure to be, in words."""
    certain = closed / result.upper if result.upper > 0 else 1.0
    if certain > 0.999:
        return "the distance"
    low = f"{100 * certain:.0f}"
    if result.lower <= 0:
        return f"at least {low} % of it"
    high = f"{100 * min(closed / result.lower, 1):.0f}"
    return f"{low} % of it" if low == high else f"at least {low} % of it and at most {high} %"


def why_loose(a: CoactivationGraph, b: CoactivationGraph, result: GromovResult) -> None:
    st.markdown("**Why the closed form is loose here**")
    closed = closed_form(a, b, result.p)
    low, high = cached.derived(
        "apriori", (a.content_hash, b.content_hash, result.p), lambda: apriori_interval(a, b, p=result.p)
    )
    share = share_of_truth(closed, result)
    least, most = number(result.lower), number(result.upper)
    words = (
        f"The closed form sees each node only by its mean row f (the curves). It gives {number(closed)}; the distance "
        + (f"is {most}" if least == most else f"lies between {least} and {most}")
        + f", so the closed form is {share}."
    )
    if share != "the distance":
        words += " What is missing is how rows differ around their mean."
    st.write(words)
    same_mass = a.normalize == b.normalize == "prob" and a.weighting == b.weighting == "uniform"
    if same_mass:
        st.caption(
            "With true probabilities and uniform weights every position has nearly the same total mass, so f is just "
            "the mean probability of each node: no pairwise structure is left in the closed form. `spectral`, "
            "`entries` and `rows` keep it."
        )
    st.caption(f"The a-priori certificate, from one graph at a time, says only [{number(low)}, {number(high)}].")


def draw() -> None:
    parts.heading(
        "Distance", "Gromov–Wasserstein: a lower bound, an upper bound, and the truth certified between them."
    )
    files = parts.graphs_or_stop()
    file_a, file_b = parts.choose_pair(files, "rank")
    a, b = cached.load(file_a), cached.load(file_b)
    p, budget = dial(a, b)
    # Before what may take minutes: whoever reloads meanwhile asks for the same.
    address.settle()
    result = measuring.measure(a, b, p, budget)
    if result is None:
        costs(a, b, p, budget)
        studyviews.study()
        return
    headline(a, b, result)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        st.markdown("**The ladder**")
        parts.chart(ladder_figure(result, parts.theme()), "ladder", "Every bound at its value")
        why_loose(a, b, result)
    with right:
        st.markdown("**How the interval closed**")
        parts.chart(interval_figure(result, parts.theme()), "closing", "Interval over the time spent")
        st.markdown("**What the closed form sees**")
        parts.chart(profile_figure({"A": a, "B": b}, parts.theme()), "profile", "Sorted row means of both graphs")
    carriers(a, b, result)
    studyviews.study()


def percent(share: float) -> str:
    """A gap for a card: tiny ones are not worth their exponent."""
    return "0 %" if share == 0 else "< 0.01 %" if share < 1e-4 else f"{100 * share:.3g} %"


def costs(a: CoactivationGraph, b: CoactivationGraph, p: float, budget: str | float) -> None:
    """The predicted price list of a budget that waits for a click."""
    rungs = cached.predicted(a, b, p, budget)
    table = pd.DataFrame(
        {
            "rung": [rung.rung for rung in rungs],
            "seconds": [rung.seconds for rung in rungs],
            "MB": [rung.bytes / 1e6 for rung in rungs],
            "left out because": [rung.reason for rung in rungs],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        column_config={
            "seconds": st.column_config.NumberColumn(format="%.3g"),
            "MB": st.column_config.NumberColumn(format="%.1f"),
        },
    )


parts.page(draw)
