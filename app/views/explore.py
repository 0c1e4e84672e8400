"""Explore: one graph on the canvas, one node under the glass, all of it as tables and files."""

import tempfile
import time
from functools import partial
from pathlib import Path

import streamlit as st
from gfvizui import address, cached, canvas, looks, parts, warming
from gfvizui.looks import Look

from gfviz.figures import (
    GraphView,
    canvas_pane,
    community_names,
    contexts,
    edge_table,
    heat_figure,
    neighbour_table,
    node_table,
    number,
)
from gfviz.graph import CoactivationGraph, export_graph

SIZES = {"300": (300, 1500), "1 000": (1000, 5000), "3 000": (3000, 15000), "10 000": (10_000, 50_000)}
HEIGHT = 510
CANVAS = "explore_canvas"
# Seconds for which a page just opened sends nothing more: a browser given the cards and tables at once draws the graph
# after them. About as long as a software renderer takes for a thousand nodes.
DRAWING = 0.8


def header(graph: CoactivationGraph, view: GraphView) -> None:
    groups = int(view.community.max()) + 1 if view.n else 0
    parts.cards(
        [
            ("Nodes", f"{graph.n:,}", f"{view.n:,} are drawn: the strongest"),
            (
                "Edges drawn",
                f"{len(view.weight):,}",
                f"Of {view.total_edges:,} among the drawn nodes: the heaviest, and each node's three of highest cosine",
            ),
            ("Positions", f"{graph.positions:,}", "Predicted tokens over which activity was averaged"),
            ("Communities", f"{groups:,}", "Louvain, on the drawn edges"),
            ("Total activity", number(float(graph.diagonal().sum())), "Σ C_ii, the trace of C"),
        ]
    )


def inspector(graph: CoactivationGraph, view: GraphView, look: Look) -> None:
    node = look.node
    if node is None:
        st.markdown("**Communities**")
        named = [(name, f"{size:,}") for name, size in community_names(view)]
        parts.small_table(named, ("strongest tokens", "nodes"), number=True)
        st.caption("Click a node, or press **/** on the canvas and type, to see what it acts with and where it fired.")
        return
    strength = cached.derived("strength", (graph.content_hash,), graph.strength)
    rank = int((strength > strength[node]).sum()) + 1
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(view_label(graph, node), width="stretch")
        st.button(
            "Clear", key="clear_node", type="tertiary", icon=":material/close:", on_click=look.point_at, args=(None,)
        )
    left, right = st.columns(2, gap="small")
    left.metric("Strength", number(float(strength[node])), help=f"Rank {rank:,} of {graph.n:,}")
    right.metric("Activity C_ii", number(float(graph.diagonal()[node])))
    neighbours = neighbour_table(graph, node, limit=10)
    st.markdown("**Acts together with**")
    event = st.dataframe(
        neighbours,
        height=248,
        hide_index=True,
        key=f"neighbours_{node}",
        on_select="rerun",
        selection_mode="single-row",
        column_order=("token", "weight", "share"),
        column_config={
            "weight": st.column_config.NumberColumn(format="%.3g", width="small"),
            "share": st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0, width="small"),
        },
    )
    if event["selection"]["rows"]:
        look.point_at(int(neighbours["node"].iloc[event["selection"]["rows"][0]]))
        st.rerun(scope="fragment")
    found = contexts(graph, node, limit=4, width=46)
    st.markdown("**Where it fired**")
    if found:
        parts.show_contexts(found)
    else:
        st.caption("The texts were not kept with this graph: capture it with its texts to see contexts here.")


def view_label(graph: CoactivationGraph, node: int) -> str:
    from gfviz.figures import visible_token

    key = graph.keys[node]
    name = key.hex() if isinstance(key, bytes) else str(int(key))
    return f"{visible_token(graph.labels[node])}   (id {name})" if graph.nodes == "token" else graph.labels[node]


@st.fragment
def workbench(graph: CoactivationGraph, view: GraphView, look: Look) -> None:
    left, right = st.columns([13, 5], gap="medium")
    look.follow(CANVAS, (view,))
    with left:
        command = look.command(CANVAS, (view,))
        canvas.graph_canvas([canvas_pane(view)], CANVAS, f"explore/{view.version}", HEIGHT, command=command)
    with right:
        inspector(graph, view, look)
    look.tell()
    address.settle_alone()


def tables(graph: CoactivationGraph, view: GraphView) -> None:
    names = ["About", "Nodes", "Edges", "Matrix", "Files"]
    about, nodes, edges, matrix, files = st.tabs(names, key="explore_tab", on_change="rerun")
    numeric = st.column_config.NumberColumn(format="%.4g")
    if about.open:
        with about:
            parts.small_table(facts(graph, view))
    if nodes.open:
        with nodes:
            table = cached.derived("nodes", (graph.content_hash,), lambda: node_table(graph, limit=5000))
            kinds = dict.fromkeys(("strength", "activity", "weight p", "row mean f"), numeric)
            st.dataframe(table, hide_index=True, height=320, column_config=kinds)
    if edges.open:
        with edges:
            table = cached.derived("edges", (graph.content_hash,), lambda: edge_table(graph, limit=2000))
            st.dataframe(table, hide_index=True, height=320, column_config=dict.fromkeys(("weight", "cosine"), numeric))
            st.caption(f"The {len(table):,} heaviest edges. Cosine is C_ij / √(C_ii C_jj).")
    if matrix.open:
        warming.hurry()
        with matrix:
            key = (graph.content_hash, parts.theme())
            figure = cached.derived("heat", key, lambda: heat_figure(graph, parts.theme(), limit=min(64, graph.n)))
            parts.chart(figure, "heat", "Heat map of the co-activation matrix")
    if files.open:
        with files:
            exports(graph)


def facts(graph: CoactivationGraph, view: GraphView) -> list[tuple[str, str]]:
    texts = len(graph.record.texts) if graph.record is not None else 0
    return [
        ("made from", graph.source or "not told in the file"),
        ("nodes", "vocabulary tokens" if graph.nodes == "token" else "ranks: the i-th largest logit"),
        ("logits", f"{graph.normalize}, {graph.weighting} weights p"),
        ("texts kept", f"{texts:,}" if texts else "none: no contexts to show"),
        ("edges among the drawn nodes", f"{view.total_edges:,}, of which {len(view.weight):,} are drawn"),
        ("node space", graph.space),
        ("content hash", graph.content_hash),
    ]


@st.fragment
def exports(graph: CoactivationGraph) -> None:
    st.caption(
        "PNG and SVG of the view as it stands are on the canvas's own bar. Here is the graph for other programs."
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        limit = st.number_input("Edges, heaviest first", 1, 1_000_000, 20_000, step=1000, key="export_edges", width=190)
        for form, icon in (("graphml", ":material/hub:"), ("gexf", ":material/hub:"), ("csv", ":material/table:")):
            st.download_button(
                form.upper() if form != "graphml" else "GraphML",
                data=partial(exported, graph, form, int(limit)),
                file_name=f"graph.{form}",
                key=f"export_{form}",
                icon=icon,
                on_click="ignore",
            )


def exported(graph: CoactivationGraph, form: str, limit: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"graph.{form}"
        export_graph(graph, target, form, limit=limit)
        return target.read_bytes()


def draw() -> None:
    files = parts.graphs_or_stop()
    looks.arrive("graph")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # Token graphs are the ones a person can read; names are all that is known before a file is opened.
        first_token = next((i for i, file in enumerate(files) if "token" in file.name), 0)
        file = parts.choose_graph("Graph", "graph", files, first_token)
        address.hold("size", "1 000", address.among(SIZES))
        size = st.segmented_control("Draw up to … nodes", list(SIZES), key="size", required=True)
        address.tell("size", size, "1 000")
    head, bench = st.container(), st.container()
    graph = cached.load(file)
    opened = "looks" not in st.session_state
    look = looks.look_at("explore", graph)
    view = cached.view(graph, *SIZES[str(size)])
    # The graph is what a visitor waits for: it is sent before the cards above it.
    with bench:
        workbench(graph, view, look)
    if opened:
        time.sleep(DRAWING)
    with head:
        header(graph, view)
    tables(graph, view)


parts.page(draw)
