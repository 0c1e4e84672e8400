"""Compare: two graphs with one camera, the coupling drawn between them, and what differs."""

import streamlit as st
from gfvizui import address, cached, canvas, looks, measuring, parts
from gfvizui.looks import Look

from gfviz.figures import GraphView, canvas_links, canvas_pane, number, share_figure, shared_frame, visible_token
from gfviz.figures.compare import beside, coverage, edge_differences, partners, same_label, shared_groups, unmatched
from gfviz.graph import CoactivationGraph

SIZE = (300, 1200)
HEIGHT = 470
CANVAS = "compare_canvas"
# The words are the URL's too.
MATCHINGS = ("coupling", "token")
# Exponent and budget.
DISTANCE = (2.0, "fast")


def matching(a: CoactivationGraph, b: CoactivationGraph, kind: str):
    """(coupling [n, m], result or None); None where the user has not asked for the distance yet."""
    if kind == "token":
        match = cached.derived("same", (a.content_hash, b.content_hash), lambda: same_label(a, b))
        return match, None
    result = measuring.measure(a, b, *DISTANCE)
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
def side_by_side(a: CoactivationGraph, b: CoactivationGraph, coupling, key: tuple, look: Look) -> None:
    left = labelled(cached.view(a, *SIZE), "A")
    right = labelled(cached.view(b, *SIZE), "B")
    placed = cached.derived("beside", (*key, left.version, right.version), lambda: beside(left, right, coupling))
    links = cached.derived("links", (*key, left.version, right.version), lambda: canvas_links(coupling, left, placed))
    frame, names = shared_frame(left, placed), shared_groups(left, placed)
    column, side = st.columns([13, 5], gap="medium")
    look.follow(CANVAS, (left, placed))
    with column:
        canvas.graph_canvas(
            [canvas_pane(left, frame, names), canvas_pane(placed, frame, names)],
            CANVAS,
            f"compare/{left.version}/{placed.version}/{key[-1]}",
            HEIGHT,
            links=links,
            command=look.command(CANVAS, (left, placed)),
        )
    with side:
        destinations(a, b, coupling, look)
    look.tell()
    address.settle_alone()


def destinations(a: CoactivationGraph, b: CoactivationGraph, coupling, look: Look) -> None:
    """How the mass of the node looked at is divided."""
    if look.node is None:
        st.markdown("**Where does it go?**")
        st.caption("Click a node: lines lead to its partners, and the list here says how its mass is divided.")
        return
    here, there, flow = (a, b, coupling) if look.side == 0 else (b, a, coupling.T.tocsr())
    st.text(f"{visible_token(here.labels[look.node])}   in {'AB'[look.side]}")
    table = partners(flow, look.node, there, limit=12)
    if table.empty:
        st.caption("No partner: the other graph has no such token.")
        return
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        column_order=("goes to", "share"),
        column_config={
            # Left to themselves the two share a narrow place evenly, and the numbers are cut off.
            "goes to": st.column_config.TextColumn(width=90),
            "share": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0, width=120),
        },
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
    looks.arrive("a")
    a_file, b_file = parts.choose_pair(files, "token")
    a, b = cached.load(a_file), cached.load(b_file)
    address.hold("match", MATCHINGS[0], address.among(MATCHINGS))
    kind = st.segmented_control(
        "Match nodes by",
        list(MATCHINGS),
        help="coupling: where the distance's best transport plan sends the mass; token: the same string in both",
        key="match",
        required=True,
    )
    address.tell("match", kind, MATCHINGS[0])
    look = looks.look_at("compare", a, b)
    look.tell()
    if kind == "coupling" and not cached.known_distance(a, b, *DISTANCE):
        # Before what may take seconds: whoever reloads meanwhile asks for the same.
        address.settle()
    coupling, result = matching(a, b, str(kind))
    if coupling is None:
        return
    if coupling.nnz == 0:
        st.info("The two graphs share no label: match by the coupling of the distance.", icon=":material/info:")
        return
    header(a, b, result)
    key = (a.content_hash, b.content_hash, kind)
    side_by_side(a, b, coupling, key, look)
    differences(a, b, coupling, result, key)


parts.page(draw)
