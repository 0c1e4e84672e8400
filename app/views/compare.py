"""Compare: two graphs with one camera, the coupling drawn between them, and what differs."""

import streamlit as st
from gfvizui import cached, canvas, measuring, parts

from gfviz.figures import GraphView, canvas_links, canvas_pane, number, share_figure, shared_frame, visible_token
from gfviz.figures.compare import beside, coverage, edge_differences, partners, same_label, shared_groups, unmatched
from gfviz.graph import CoactivationGraph

SIZE = (300, 1200)
HEIGHT = 470
# The words are the URL's too.
MATCHINGS = ("coupling", "token")


def matching(a: CoactivationGraph, b: CoactivationGraph, kind: str):
    """(coupling [n, m], result or None); None where the user has not asked for the distance yet."""
    if kind == "token":
        match = cached.derived("same", (a.content_hash, b.content_hash), lambda: same_label(a, b))
        return match, None
    result = measuring.measure(a, b, 2.0, "fast")
    return (None, None) if result is None else (result.coupling, result)


def header(a: CoactivationGraph, b: CoactivationGraph, result) -> None:
    found = cached.derived("coverage", (a.content_hash, b.content_hash), lambda: coverage(a, b))
    cards: list[tuple[str, str, str | None]] = [
        ("Nodes", f"{a.n:,} | {b.n:,}", "In A and in B"),
        ("Shared labels", f"{found.shared:,}", "Nodes of both graphs with one label"),
        ("Activity covered", f"{found.left_activity:.0%} | {found.right_activity:.0%}", "Share of Σ C_ii they carry"),
    ]
    if result is not None:
        cards.append((f"GW_{result.p:g} between", f"{number(result.lower, 3)} … {number(result.upper, 3)}", None))
    parts.cards(cards)


def labelled(view: GraphView, name: str) -> GraphView:
    from dataclasses import replace

    return replace(view, title=name)


@st.fragment
def side_by_side(a: CoactivationGraph, b: CoactivationGraph, coupling, key: tuple) -> None:
    left = labelled(cached.view(a, *SIZE), "A")
    right = labelled(cached.view(b, *SIZE), "B")
    placed = cached.derived("beside", (*key, left.version, right.version), lambda: beside(left, right, coupling))
    links = cached.derived("links", (*key, left.version, right.version), lambda: canvas_links(coupling, left, placed))
    frame, names = shared_frame(left, placed), shared_groups(left, placed)
    theme = parts.theme()
    column, side = st.columns([14, 4], gap="medium")
    with column:
        selected, _ = canvas.graph_canvas(
            [canvas_pane(left, theme, frame, names), canvas_pane(placed, theme, frame, names)],
            "compare_canvas",
            f"compare/{left.version}/{placed.version}/{key[-1]}",
            HEIGHT,
            links=links,
        )
    versions = (left.version, placed.version)
    with side:
        if selected is None or selected.get("version") != versions[int(selected["side"])]:
            st.markdown("**Where does it go?**")
            st.caption("Click a node: lines lead to its partners, and the list here says how its mass is divided.")
            return
        here, there, view = (a, b, left) if selected["side"] == 0 else (b, a, placed)
        node = int(view.nodes[int(selected["node"])])
        st.text(f"{visible_token(here.labels[node])}   in {'AB'[int(selected['side'])]}")
        flow = coupling if selected["side"] == 0 else coupling.T.tocsr()
        table = partners(flow, node, there, limit=12)
        if table.empty:
            st.caption("No partner: the other graph has no such token.")
            return
        st.dataframe(
            table,
            hide_index=True,
            height="content",
            column_order=("goes to", "share"),
            column_config={"share": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)},
        )


def differences(a: CoactivationGraph, b: CoactivationGraph, coupling, result, key: tuple) -> None:
    names = ["Edge differences", "Who carries the distance", "Only in A", "Only in B"]
    tabs = st.tabs(names, key="compare_tab", on_change="rerun")
    numeric = st.column_config.NumberColumn(format="%.4g")
    if tabs[0].open:
        with tabs[0]:
            table = cached.derived("edge differences", key, lambda: edge_differences(a, b, coupling))
            st.dataframe(
                table,
                hide_index=True,
                height=320,
                column_config=dict.fromkeys(("weight A", "weight B", "A − B"), numeric),
            )
            st.caption("Among the 4 000 heaviest edges of A, each with the pair that its ends are matched to in B.")
    if tabs[1].open:
        with tabs[1]:
            carriers(a, b, result)
    for tab, one, other in ((tabs[2], a, b), (tabs[3], b, a)):
        if tab.open:
            with tab:
                st.dataframe(
                    unmatched(one, other),
                    hide_index=True,
                    height=320,
                    column_config={
                        "activity": numeric,
                        "share": st.column_config.NumberColumn(format="percent"),
                    },
                )


def carriers(a: CoactivationGraph, b: CoactivationGraph, result) -> None:
    if result is None:
        st.caption("Choose the coupling of the distance above: shares are those of its objective.")
        return
    left, right = cached.shares(a, b, result)
    for column, graph, share, name in zip(st.columns(2, gap="medium"), (a, b), (left, right), "AB"):
        if share.sum() <= 0:
            column.caption("The objective is zero: nothing carries it.")
            continue
        with column:
            st.caption(f"Nodes of {name}")
            figure = share_figure(graph.labels, share / share.sum(), parts.theme(), 14)
            parts.chart(figure, f"carriers_{name}", "Share of nodes in the distance")


def draw() -> None:
    files = parts.graphs_or_stop()
    a_file, b_file = parts.choose_pair(files, "token")
    a, b = cached.load(a_file), cached.load(b_file)
    kind = st.segmented_control(
        "Match nodes by",
        list(MATCHINGS),
        default="coupling",
        help="coupling: where the distance's best transport plan sends the mass; token: the same string in both",
        key="match",
        bind="query-params",
        required=True,
    )
    coupling, result = matching(a, b, kind)
    if coupling is None:
        return
    if coupling.nnz == 0:
        st.info("The two graphs share no label: match by the coupling of the distance.", icon=":material/info:")
        return
    header(a, b, result)
    key = (a.content_hash, b.content_hash, kind)
    side_by_side(a, b, coupling, key)
    differences(a, b, coupling, result, key)


parts.page(draw)
