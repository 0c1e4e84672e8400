"""Figures and tables, judged by the data inside them."""

import base64

import numpy as np
import pytest
import torch

from gfviz.errors import GfvizError
from gfviz.figures import (
    Line,
    canvas_links,
    canvas_pane,
    community_names,
    config_difference,
    contexts,
    curve_figure,
    distance_figure,
    edge_table,
    graph_view,
    heat_figure,
    interval_figure,
    ladder_figure,
    lines_of,
    neighbour_table,
    node_table,
    profile_figure,
    rung_table,
    series_color,
    share_figure,
    smoothed,
    tail_figure,
    visible_token,
)
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.gromov import gromov_wasserstein
from gfviz.signals import TopKLogits

HOSTILE = ["<script>x</script>", "\u202eabc", "a\nb", " the", "\ud800", "", "\u05d0", "&amp;", "**md**", "\x07"]


def make_graph(nodes: str = "token", seed: int = 0, positions: int = 60, record: TextRecord | None = None):
    logits = torch.tensor(np.random.default_rng(seed).gumbel(size=(1, positions, 10)) * 2, dtype=torch.float32)
    signal = TopKLogits.from_logits(logits, k=4)
    labels = HOSTILE if nodes == "token" else None
    return CoactivationGraph.from_signal(signal, nodes=nodes, labels=labels, record=record)


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_tables_agree_with_the_dense_matrix():
    graph = make_graph()
    dense = graph.dense()
    nodes = node_table(graph)
    off = dense - np.diag(np.diag(dense))
    assert nodes["strength"].to_numpy() == pytest.approx(off.sum(1)[nodes["node"]], rel=1e-9)
    assert nodes["strength"].is_monotonic_decreasing
    assert nodes["row mean f"].to_numpy() == pytest.approx((dense @ graph.weights)[nodes["node"]], rel=1e-9)
    edges = edge_table(graph, limit=3)
    heaviest = np.sort(off[np.triu_indices(graph.n, 1)])[::-1][:3]
    assert edges["weight"].to_numpy() == pytest.approx(heaviest, rel=1e-9)
    for node in (0, graph.n - 1):
        row = off[node]
        table = neighbour_table(graph, node, limit=4)
        assert table["weight"].to_numpy() == pytest.approx(np.sort(row)[::-1][:4], rel=1e-9)
        assert table["share"].to_numpy() == pytest.approx(np.sort(row)[::-1][:4] / row.sum(), rel=1e-9)
        assert neighbour_table(graph.accumulate(), node, limit=4)["weight"].tolist() == pytest.approx(
            table["weight"].tolist(), rel=1e-9
        )
    with pytest.raises(GfvizError, match="outside"):
        neighbour_table(graph, graph.n)


def test_contexts_are_the_most_active_places_and_one_for_each_text():
    record = TextRecord(np.array([0, 2, 4]), ("ab cd", "ef gh"), np.array([[0, 2], [3, 5], [0, 2], [3, 5]]))
    logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 0.0]]])
    graph = CoactivationGraph.from_signal(
        TopKLogits.from_logits(logits, k=1), nodes="token", labels=["x", "y"], record=record
    )
    found = contexts(graph, 0)
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    assert [(c.text, c.before, c.token, c.after) for c in found] == [(1, "ef ", "gh", ""), (0, "", "ab", " cd")]
    assert [c.activation for c in found] == pytest.approx([sigmoid(9.0), sigmoid(3.0)], rel=1e-6)
    assert contexts(make_graph("rank"), 0) == []


def test_view_keeps_the_heaviest_edges_and_leaves_no_node_alone():
    graph = make_graph(positions=400)
    view = graph_view(graph, max_nodes=8, max_edges=12)
    dense = graph.dense()
    off = dense - np.diag(np.diag(dense))
    assert set(view.nodes) == set(np.argsort(-off.sum(1))[:8])
    assert view.weight == pytest.approx(off[view.nodes[view.i], view.nodes[view.j]], rel=1e-9)
    assert (np.diff(view.weight) <= 0).all()
    assert set(view.i) | set(view.j) == set(range(8))
    part = off[np.ix_(view.nodes, view.nodes)]
    assert view.total_edges == np.count_nonzero(np.triu(part, 1))
    cosine = part / np.sqrt(np.outer(np.diag(dense)[view.nodes], np.diag(dense)[view.nodes]))
    drawn = {(min(a, b), max(a, b)) for a, b in zip(view.i.tolist(), view.j.tolist())}
    for node in range(8):
        for other in np.argsort(-cosine[node])[:3]:
            assert (min(node, other), max(node, other)) in drawn


def test_view_of_signed_graph_uses_magnitudes():
    logits = torch.tensor(np.random.default_rng(0).normal(size=(1, 50, 6)), dtype=torch.float32)
    graph = CoactivationGraph.from_signal(TopKLogits.from_logits(logits), nodes="rank", normalize="zscore")
    view = graph_view(graph)
    dense = np.abs(graph.dense())
    assert view.strength == pytest.approx((dense - np.diag(np.diag(dense))).sum(1)[view.nodes], rel=1e-9)
    assert (view.weight >= 0).all()


def test_canvas_message_is_json_and_holds_the_view():
    import json

    view = graph_view(make_graph(positions=300))
    pane = json.loads(json.dumps(canvas_pane(view)))
    assert unpacked(pane["x"], "<f4") == pytest.approx(view.positions[:, 0], rel=1e-6)
    assert unpacked(pane["weight"], "<f4") == pytest.approx(view.weight, rel=1e-6)
    assert unpacked(pane["source"], "<u4").tolist() == view.i.tolist()
    assert len(pane["labels"]) == view.n == sum(group["count"] for group in pane["groups"])
    assert "\u202e" not in "".join(pane["labels"])
    assert "<script>x</script>" in pane["labels"]
    sizes = [size for _, size in community_names(view)]
    assert sizes == sorted(sizes, reverse=True)


def test_canvas_links_hold_the_coupling_among_drawn_nodes():
    a, b = make_graph(positions=300), make_graph(seed=1, positions=300)
    result = gromov_wasserstein(a, b, budget="fast")
    left, right = graph_view(a, max_nodes=5), graph_view(b)
    links = canvas_links(result.coupling, left, right)
    dense = result.coupling.toarray()
    for i, j, mass in zip(
        unpacked(links["source"], "<u4"), unpacked(links["target"], "<u4"), unpacked(links["mass"], "<f4")
    ):
        assert mass == pytest.approx(dense[left.nodes[i], right.nodes[j]], rel=1e-6)
    assert unpacked(links["mass"], "<f4").sum() == pytest.approx(dense[left.nodes].sum(), rel=5e-3)


def test_ladder_draws_every_rung_and_shades_the_interval():
    result = gromov_wasserstein(make_graph("rank"), make_graph("rank", seed=1), budget="standard")
    figure = ladder_figure(result)
    drawn = sorted(value for trace in figure.data for value in trace.x)
    assert drawn == sorted(rung.value for rung in result.rungs if rung.value is not None)
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (result.lower, result.upper)
    table = rung_table(result.rungs)
    assert table["value"].dropna().tolist() == [rung.value for rung in result.rungs if rung.value is not None]
    lower, _, upper = interval_figure(result, "dark").data
    assert lower.y[-1] == pytest.approx(result.lower, rel=1e-9)
    assert upper.y[-1] == pytest.approx(result.upper, rel=1e-9)
    assert (np.diff(np.array(lower.y, float)) >= 0).all()


def test_curves_hold_raw_and_smoothed_and_ranges():
    steps, values = np.arange(5), np.array([1.0, np.nan, 3.0, 3.0, 3.0])
    raw, smooth = curve_figure({"loss": Line(steps, values)}, smoothing=0.5).data
    assert np.asarray(raw.y) == pytest.approx(values, nan_ok=True)
    # By hand: m = .5, (.25+1.5)/.75, (.875+1.5)/.875, ... with the weights' sums 1/2, 3/4, 7/8, 15/16.
    expected = [1.0, np.nan, 1.75 / 0.75, 2.375 / 0.875, 2.6875 / 0.9375]
    assert np.asarray(smooth.y) == pytest.approx(expected, nan_ok=True)
    assert smoothed(values, 0.0) == pytest.approx(values, nan_ok=True)
    band, line = curve_figure({"loss": Line(steps, values, values - 1, values + 1)}, smoothing=0).data
    assert band.y.tolist() == [2.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 0.0]
    assert all(trace.type == "scatter" for trace in (raw, smooth, band, line))


def test_distance_band_names_teachers_as_text():
    steps = np.array([0, 10])
    figure = distance_figure({"<b>t": (steps, np.array([1.0, 0.5]), np.array([2.0, 0.75]))})
    band, upper, lower = figure.data
    assert band.y.tolist() == [2.0, 0.75, 0.5, 1.0]
    assert upper.y.tolist() == [2.0, 0.75]
    assert lower.y.tolist() == [1.0, 0.5]
    assert upper.name == "&lt;b&gt;t"


def test_heat_map_is_the_matrix():
    graph = make_graph("rank")
    figure = heat_figure(graph, log=False)
    assert np.asarray(figure.data[0].z) == pytest.approx(graph.dense(), rel=1e-6)
    assert np.asarray(heat_figure(graph).data[0].z) == pytest.approx(np.log10(graph.dense()), rel=1e-6)
    with pytest.raises(GfvizError, match="256"):
        heat_figure(graph, limit=257)


def test_profile_tail_and_shares():
    graph = make_graph("rank")
    line = profile_figure({"a": graph}).data[0]
    assert np.asarray(line.y)[1:] == pytest.approx(np.sort(graph.row_means())[::-1], rel=1e-6)
    assert np.asarray(line.x)[-1] == pytest.approx(1.0)
    tail = np.array([0.0, 0.1, 0.1, 0.9, np.nan])
    assert sum(tail_figure(tail).data[0].y) == 4
    bars = share_figure(["a", "<i>", "c"], np.array([0.2, 0.7, 0.1]), limit=2)
    assert bars.data[0].x.tolist() == [0.7, 0.2]
    assert list(bars.layout.yaxis.ticktext) == ["&lt;i&gt;", "a"]


def test_config_difference_names_dotted_keys():
    left, right = {"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"b": 2, "c": [1]}, "d": 3}
    table = config_difference({"x": left, "y": right})
    assert table.to_numpy().tolist() == [["a.b", "1", "2"], ["a.c.1", "2", "–"]]
    three = config_difference({"x": left, "y": right, "z": {**left, "d": 4}})
    assert three.columns.tolist() == ["key", "x", "y", "z"]
    assert three.to_numpy().tolist()[-1] == ["d", "3", "3", "4"]


def test_lines_of_buckets_show_ranges_only_where_rows_were_merged():
    from gfviz.runs import Buckets, Series

    one = np.array([1])
    single = Buckets(one, one, one * 0.5, one * 0.6, one * 0.7, np.array([1]))
    merged = single._replace(rows=np.array([3]))
    lines = lines_of({"s": single, "m": merged, "none": Series(np.empty(0), np.empty(0), np.empty(0))})
    assert set(lines) == {"s", "m"}
    assert lines["s"].low is None
    assert lines["m"].low.tolist() == [0.5]


@pytest.mark.parametrize("label", HOSTILE)
def test_visible_tokens_hold_nothing_invisible(label):
    import unicodedata

    shown = visible_token(label)
    assert shown
    assert not [mark for mark in shown if unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize("mark", "\u034f\u115f\u1160\u180b\u2800\u3164\ufe0e\ufe0f\uffa0\U000e0101")
def test_a_token_that_is_drawn_as_nothing_is_shown_as_its_code_point(mark):
    assert visible_token(mark) == f"⟨U+{ord(mark):04X}⟩"
    assert visible_token(f"a{mark}é字ᄀ") == f"a⟨U+{ord(mark):04X}⟩é字ᄀ"


def test_colours_run_out_into_grey():
    assert len({series_color(k) for k in range(6)}) == 6
    assert series_color(6) == series_color(40)
    with pytest.raises(GfvizError, match="theme"):
        series_color(0, "sepia")


def test_study_figure_averages_families_and_keeps_sides_apart():
    import pandas as pd

    from gfviz.figures.study import ratio_figure

    table = pd.DataFrame(
        [
            ("a", 8, "rows", 0.5, np.nan),
            ("b", 8, "rows", 0.7, np.nan),
            ("a", 64, "rows", 0.9, np.nan),
            ("a", 8, "standard", 0.9, 1.1),
        ],
        columns=["family", "size", "method", "lower_ratio", "upper_ratio"],
    )
    rows, low, high = ratio_figure(table, ["rows", "standard"]).data
    assert rows.x.tolist() == [8, 64]
    assert rows.y.tolist() == pytest.approx([0.6, 0.9])
    assert (low.y.tolist(), high.y.tolist()) == ([0.9], [1.1])
    assert [trace.showlegend for trace in (rows, low, high)] == [True, True, False]
    with pytest.raises(GfvizError, match="no method"):
        ratio_figure(table, ["unheard"])


def test_partners_and_edge_differences_follow_the_coupling():
    from scipy import sparse

    from gfviz.figures.compare import (
        beside,
        best_partner,
        coverage,
        edge_differences,
        partners,
        same_label,
        shared_groups,
        unmatched,
    )
    from gfviz.figures.view import evened

    a, b = make_graph(positions=200), make_graph(seed=3, positions=200)
    swap = np.arange(b.n)[::-1]
    coupling = sparse.csr_array((np.full(a.n, 1 / a.n), (np.arange(a.n), swap[: a.n])), shape=(a.n, b.n))
    assert best_partner(coupling).tolist() == swap[: a.n].tolist()
    assert partners(coupling, 0, b)["goes to"].tolist() == [visible_token(b.labels[swap[0]])]
    table = edge_differences(a, b, coupling)
    dense_a, dense_b = a.dense(), b.dense()[np.ix_(swap, swap)]
    gaps = np.abs(dense_a - dense_b)[np.triu_indices(a.n, 1)]
    assert table["A − B"].abs().max() == pytest.approx(gaps[dense_a[np.triu_indices(a.n, 1)] > 0].max(), rel=1e-9)
    shared = coverage(a, b)
    assert shared.shared == len(set(a.labels) & set(b.labels)) == same_label(a, b).nnz
    assert unmatched(a, b)["share"].sum() == pytest.approx(1 - shared.left_activity, abs=1e-12)
    left, right = graph_view(a), graph_view(b)
    placed = beside(left, right, coupling)
    wanted = 0.8 * left.positions[::-1] + 0.2 * right.positions
    assert placed.positions == pytest.approx(evened(wanted), abs=1e-12)
    assert np.argsort(placed.positions[:, 0]).tolist() == np.argsort(wanted[:, 0]).tolist()
    # Every node has one partner here, so it takes over that partner's community, and one legend serves both.
    assert placed.community.tolist() == left.community[::-1].tolist()
    from gfviz.figures.palette import theme_of

    names = shared_groups(left, placed)
    one, two = (canvas_pane(view, names=names) for view in (left, placed))
    assert [group["name"] for group in one["groups"]] == [group["name"] for group in two["groups"]] == names
    assert unpacked(two["group"], "<u4").tolist() == unpacked(one["group"], "<u4").tolist()[::-1]
    alone = beside(left, right, sparse.csr_array((a.n, b.n)))
    apart = canvas_pane(alone, names=shared_groups(left, alone))
    assert set(unpacked(apart["group"], "<u4").tolist()) == {len(apart["groups"]) - 1}
    assert apart["groups"][-1]["light"] == apart["groups"][-1]["dark"] == "#999999"
    for theme in ("light", "dark"):
        assert [group[theme] for group in one["groups"]] == list(theme_of(theme).groups[: len(names)])


def test_spread_fills_the_square_and_keeps_the_order_along_the_axes():
    from gfviz.figures.view import spread

    random = np.random.default_rng(0)
    points = random.standard_t(2, (200, 2)) * [10, 1]
    placed = spread(points)
    assert placed.min(axis=0) == pytest.approx([-1, -1])
    assert placed.max(axis=0) == pytest.approx([1, 1])
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert spread(points @ turn) == pytest.approx(placed, abs=1e-9), "a turned layout is the same layout"
    centred = points - points.mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    order = np.argsort(centred @ axis)
    assert placed[order, 0].tolist() in (sorted(placed[:, 0]), sorted(placed[:, 0], reverse=True))
    assert spread(np.zeros((4, 2))).shape == (4, 2)


def test_lines_of_controls_lie_beside_and_many_entries_go_below():
    from gfviz.figures import Line

    line = Line(np.arange(4), np.array([4.0, 3.0, 2.0, 1.0]))
    figure = curve_figure({"a": line}, smoothing=0.0, title="<b>t</b>", beside={"control <i>": line})
    control, mine = figure.data
    assert (control.name, control.line.dash, control.y.tolist()) == ("control &lt;i&gt;", "dash", [4, 3, 2, 1])
    assert mine.line.color != control.line.color
    assert figure.layout.title.text == "&lt;b&gt;t&lt;/b&gt;"
    assert figure.layout.showlegend
    plain, many = (curve_figure({f"n{k}": line for k in range(count)}, smoothing=0.0) for count in (3, 7))
    assert plain.layout.legend.y is None
    assert many.layout.legend.y < 0
    assert many.layout.height > plain.layout.height


def test_the_message_of_curves_holds_the_numbers_of_the_figure_once_each():
    import base64
    import json

    from gfviz.figures import Line, board, curve_drawing, distance_drawing

    steps, values = np.arange(4), np.array([4.0, np.nan, 2.0, 1.0])
    line = Line(steps, values)
    curve = curve_drawing(
        {"<b>": line, "\u202eevil": line}, smoothing=0.5, title="t", total_steps=100, beside={"c": line}
    )
    band = distance_drawing({"teacher": (steps, values, values + 1)})
    sent = json.loads(json.dumps(board([curve, band])))
    assert len(sent["arrays"]) == len(set(sent["arrays"]))
    for drawing, chart in zip((curve, band), sent["charts"]):
        figure = drawing.figure()
        assert len(chart["traces"]) == len(figure.data)
        for shown, trace in zip(figure.data, chart["traces"]):
            x = np.frombuffer(base64.b64decode(sent["arrays"][trace["x"]]), "<f8")
            y = np.frombuffer(base64.b64decode(sent["arrays"][trace["y"]]), "<f4")
            np.testing.assert_array_equal(x, np.asarray(shown.x, float))
            np.testing.assert_array_equal(y, np.asarray(shown.y, np.float32))
            assert trace["hover"] == (shown.hoverinfo != "skip")
            assert trace["fill"] == shown.fillcolor
    first, second = sent["charts"]
    assert (first["range"], first["tozero"], first["legend"]) == ([0, 102.0], False, True)
    assert (second["range"], second["tozero"], second["log"]) == (None, True, False)
    # Text goes into the page as text: nothing is escaped, and nothing turns the reading direction.
    assert [trace["name"] for trace in first["traces"]] == ["c", "<b>", "<b>", "⟨RLO⟩evil", "⟨RLO⟩evil"]
    assert [trace["name"] for trace in second["traces"][1:]] == ["teacher, at most", "teacher, at least"]
    assert {trace["group"] for trace in second["traces"]} == {"teacher"}
    assert curve_drawing({}, title="t").message()["note"] == "Nothing logged yet"


def test_report_is_one_file_with_all_text_escaped():
    from gfviz.figures.report import html_report

    page = html_report("<i>t</i>", [("a", "<script>x</script>")], {"one": tail_figure(np.array([0.1]))}, {"y": "<b>"})
    assert "<script>x</script>" not in page
    assert "&lt;script&gt;x" in page
    assert "https://cdn" not in page.split("<script", 1)[0]
    assert page.count("Plotly.newPlot(") >= 1
    assert 'src="http' not in page
