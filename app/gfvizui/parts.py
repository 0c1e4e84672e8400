"""Small parts that every page uses: the page frame, cards, choices, empty states, untrusted text."""

from __future__ import annotations

import html
import inspect
import ipaddress
import re
from collections.abc import Callable, Iterable
from shlex import quote

import streamlit as st

from gfviz.errors import GfvizError
from gfviz.figures import Context
from gfviz.graph import CoactivationGraph
from gfviz.runs import Glance
from gfviz.times import when as when
from gfvizui import address, cached, warming
from gfvizui.places import GraphFile, demo_command, find_graphs, graphs_root, runs_root

_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")


def page(draw: Callable[[], None]) -> None:
    """Run a page; bad input becomes one line on it instead of a traceback."""
    with warming.drawing():
        address.turn_to(inspect.getfile(draw))
        try:
            draw()
        except GfvizError as error:
            st.error(plain(str(error)), icon=":material/error:")
        address.settle()


def plain(text: str) -> str:
    """`text` for places that read Markdown, with nothing in it acting as such."""
    return _MARKS.sub(r"\\\1", text).replace("\n", " ")


def exposed(address: str | None) -> bool:
    """Whether a server bound to `address` can be reached from other machines; None means all interfaces.

    >>> exposed(None), exposed("0.0.0.0"), exposed("127.0.0.1"), exposed("localhost"), exposed("::1")
    (True, True, False, False, False)
    """
    if address == "localhost":
        return False
    try:
        return address is None or not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # another name: nobody can tell where it leads


def warn_if_exposed() -> None:
    """Say so where the app is open to other machines: it reads local files and starts processes for who asks."""
    address = st.get_option("server.address")
    if exposed(address):
        st.warning(
            f"This app listens on {plain(address or 'all interfaces')}: whoever reaches this machine can read its "
            "graphs and runs and start processes on it. Start it with `gfviz app`, which binds 127.0.0.1.",
            icon=":material/lan:",
        )


def theme() -> str:
    """Name of the theme the browser shows."""
    return "dark" if st.context.theme.type == "dark" else "light"


def heading(title: str, text: str) -> None:
    """Title of a page with one line of what it is for."""
    with st.container(gap="xxsmall"):
        st.subheader(title, anchor=False)
        st.caption(text)


def cards(items: Iterable[tuple[str, str, str | None]]) -> None:
    """A row of metric cards: (label, value, help)."""
    listed = list(items)
    for column, (label, value, note) in zip(st.columns(len(listed), gap="small"), listed):
        column.metric(label, value, help=note, border=True)


def chart(figure, key: str, alt: str) -> None:
    """A Plotly figure in the page's own theme; no toolbar, no logo, no link."""
    st.plotly_chart(figure, theme=None, key=key, config={"displayModeBar": False, "displaylogo": False}, alt=alt)


def damaged(runs: Iterable[Glance], most: int = 3) -> None:
    """Say which of the listed runs cannot be read, and why; nothing where all can."""
    found = [run for run in runs if run.status is None]
    lines = [f"**{plain(run.run.id)}** cannot be shown: {plain(run.reason)}" for run in found[:most]]
    if len(found) > most:
        lines.append(f"… and {len(found) - most} more.")
    if lines:
        st.warning("  \n".join(lines), icon=":material/warning:")


def empty_graphs() -> None:
    """What to do where there is no graph yet."""
    empty(
        "No graphs here yet",
        f"Looked for `*.safetensors` in {plain(str(graphs_root()))} and in the runs of {plain(str(runs_root()))}.",
        f"# graphs, a distance and a short fusion\n{demo_command()}\n"
        f"# a graph of your own\ngfviz graph MODEL --texts FILE --out {quote(str(graphs_root() / 'my.safetensors'))}",
    )


def empty(title: str, text: str, command: str = "") -> None:
    """An empty state: what is missing, and the command that makes it."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(text)
        if command:
            st.code(command, language="bash")


def choose_graph(label: str, key: str, files: list[GraphFile], index: int = 0) -> GraphFile:
    """A choice among the saved graphs, kept in the URL."""
    names = [file.name for file in files]
    first = names[min(index, len(names) - 1)]
    address.hold(key, first, address.among(names))
    name = st.selectbox(label, names, key=key)
    # Also the default: which file is listed first changes.
    address.tell(key, name)
    return next((file for file in files if file.name == name), files[0])


def choose_pair(files: list[GraphFile], kind: str) -> tuple[GraphFile, GraphFile]:
    """Two graphs side by side; by default the first two whose names speak of `kind` ("token" or "rank")."""
    alike = [index for index, file in enumerate(files) if kind in file.name.rsplit("/", 1)[-1]] or [0]
    one = alike[0]
    near = [index for index in alike[1:] if files[index].group == files[one].group] or [min(one + 1, len(files) - 1)]
    left, right = st.columns(2, gap="small")
    with left:
        a = choose_graph("Graph A", "a", files, one)
    with right:
        b = choose_graph("Graph B", "b", files, near[0])
    return a, b


def graphs_or_stop() -> list[GraphFile]:
    """All saved graphs; without one, the empty state and the end of the page."""
    files = find_graphs()
    if not files:
        empty_graphs()
        st.stop()
    return files


def small_table(rows: Iterable[tuple[str, str]], head: tuple[str, str] | None = None, number: bool = False) -> None:
    """Two columns of text, the second right-aligned where it is a `number`. All text is escaped.

    For a few rows: `st.dataframe` loads an editor of tables first, which takes longer than drawing the graph.
    """
    side = "right" if number else "left"

    def row(cells: tuple[str, str], tag: str, style: str) -> str:
        first, second = (f"<bdi>{html.escape(cell)}</bdi>" for cell in cells)
        cell = f"padding:5px 8px 5px 0;border-bottom:1px solid rgba(128,128,128,.22);overflow-wrap:anywhere;{style}"
        return (
            f"<tr><{tag} style='text-align:left;{cell}'>{first}</{tag}>"
            f"<{tag} style='text-align:{side};font-variant-numeric:tabular-nums;{cell}'>{second}</{tag}></tr>"
        )

    body = "".join(row(cells, "td", "") for cells in rows)
    top = row(head, "th", "font-weight:400;opacity:.72") if head else ""
    st.html(f"<table style='width:100%;border-collapse:collapse;font-size:.9rem'>{top}{body}</table>")


def show_contexts(found: list[Context]) -> None:
    """Places where a node fired, the predicted token marked. All text is escaped."""
    rows = "".join(
        "<div style='padding:5px 0;border-bottom:1px solid rgba(128,128,128,.22);overflow-wrap:anywhere'>"
        f"<bdi style='opacity:.72'>{html.escape(item.before)}</bdi>"
        f"<bdi style='font-weight:650;padding:0 3px;border-radius:3px;background:rgba(86,180,233,.28)'>"
        f"{html.escape(item.token)}</bdi><bdi style='opacity:.72'>{html.escape(item.after)}</bdi>"
        f" <span style='opacity:.55;white-space:nowrap'>{item.activation:.3g}</span></div>"
        for item in found
    )
    st.html(f"<div style='font-size:.87rem;line-height:1.45'>{rows}</div>")


def log_lines(text: str) -> None:
    """Lines of a program's output, in letters of one width. All text is escaped."""
    st.html(
        "<pre style='margin:0;background:none;border:0;padding:0;font-size:.8rem;white-space:pre-wrap;"
        f"overflow-wrap:anywhere'>{html.escape(text)}</pre>"
    )


def load(file: GraphFile) -> CoactivationGraph:
    """The graph in `file`."""
    return cached.load(file)
