"""The logic of every page, through Streamlit's own test runner."""

import json
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from gfviz.app_options import OPTIONS, app_command
from gfviz.errors import GfvizError
from gfviz.figures import visible_token
from gfviz.paths import app_dir
from gfviz.runs import RunDirectory, list_runs
from tests.app.conftest import make_graph, make_run


def metrics(page: AppTest) -> dict[str, str]:
    return {item.label: item.value for item in page.metric}


@pytest.mark.parametrize("name", ["home", "explore", "compare", "distance", "train", "runs"])
def test_every_page_stands_on_an_empty_folder(opened, tmp_path, name):
    page = opened(name, tmp_path)
    said = " ".join(item.value for item in [*page.markdown, *page.caption, *page.code])
    assert "gfviz " in said
    if name != "train":
        # Of this app's folder: the default one is another.
        assert f"gfviz demo --runs {tmp_path}" in said


def test_home_lists_graphs_and_runs(opened, home):
    page = opened("home")
    graphs, runs = (item.value for item in page.dataframe[:2])
    assert {"one-token", "two-rank"} <= set(graphs["graph"])
    assert set(runs["run"]) == {run.id for run in list_runs(home)}


def test_explore_shows_the_graph_named_by_the_url(opened):
    page = opened("explore", graph="two-token")
    graph = make_graph(1)
    assert metrics(page)["Nodes"] == f"{graph.n:,}"
    assert metrics(page)["Positions"] == f"{graph.positions:,}"
    names = page.selectbox(key="graph").options
    page.selectbox(key="graph").select("one-rank").run()
    assert "one-rank" in names
    assert metrics(page)["Nodes"] == "12"


def test_explore_opens_on_the_node_of_the_url(opened):
    page = opened("explore", graph="one-token", node="7")
    graph = make_graph(0)
    assert graph.labels[7].strip() in page.text[0].value
    neighbours = page.dataframe[0].value
    dense = graph.dense()
    dense[7, 7] = 0
    assert neighbours["weight"].iloc[0] == pytest.approx(dense[7].max(), rel=1e-9)
    assert metrics(page)["Strength"] != "–"


def test_explore_ignores_a_node_that_is_not_there(opened):
    page = opened("explore", graph="one-token", node="99999", min_weight="x")
    assert not page.text


@pytest.mark.parametrize("weight", ["nan", "inf", "-1", "x"])
def test_explore_ignores_a_threshold_that_is_none(opened, weight):
    page = opened("explore", graph="one-token", node="7", min_weight=weight)
    assert page.query_params == {"graph": "one-token", "node": "7"}


def test_the_address_names_the_graphs_also_where_they_are_the_default(opened):
    page = opened("explore")
    from gfvizui import places

    first = next(file.name for file in places.find_graphs() if "token" in file.name)
    assert page.query_params["graph"] == first
    pair = opened("compare", match="token").query_params
    assert pair == {"match": "token", "a": first, "b": "two-token"}


def test_distance_certifies_what_the_library_says(opened):
    from gfviz.gromov import gromov_wasserstein

    page = opened("distance", a="one-rank", b="two-rank", budget="fast")
    result = gromov_wasserstein(make_graph(0, "rank"), make_graph(1, "rank"), budget="fast")
    shown = metrics(page)
    assert shown["GW_2 is at least"] == f"{result.lower:.4g}"
    assert shown["and at most"] == f"{result.upper:.4g}"
    page.button_group(key="p").set_value(1).run()
    assert "GW_1 is at least" in metrics(page)


def test_distance_takes_a_budget_in_seconds_and_says_what_it_will_cost(opened):
    page = opened("distance", a="one-rank", b="two-rank", budget="seconds", seconds="0.5")
    said = [item.value for item in page.caption]
    priced = next(text for text in said if text.startswith("**0.5 s**"))
    assert "about" in priced
    shown = metrics(page)
    if "GW_2 is at least" not in shown:  # half a second is asked for without a click only where it is cheap
        pytest.fail(f"nothing was computed: {said}")
    assert float(shown["GW_2 is at least"]) <= float(shown["and at most"])


def test_compare_counts_shared_labels(opened):
    page = opened("compare", a="one-token", b="two-token", match="token")
    one, two = make_graph(0), make_graph(1)
    assert "GW_2 between" not in metrics(page), "no distance was asked for"
    assert metrics(page)["Shared labels"] == f"{len(set(one.labels) & set(two.labels)):,}"
    table = page.dataframe[-1].value
    first, second = table.iloc[0]["weight A"], table.iloc[0]["weight B"]
    assert table["A − B"].abs().is_monotonic_decreasing
    # A node of either graph, from the URL: it goes to its namesake, and the column of numbers has room for them.
    page = opened("compare", a="one-token", b="two-token", match="token", node="b9", min_weight="0.001")
    assert page.text[0].value == f"{visible_token(two.labels[9])}   in B"
    assert page.dataframe[0].value[["goes to", "share"]].to_numpy().tolist() == [[visible_token(two.labels[9]), 1.0]]
    assert json.loads(page.dataframe[0].proto.columns)["share"]["width"] >= 120
    assert page.query_params["node"] == "b9"
    assert page.query_params["min_weight"] == "0.001"
    assert table.iloc[0]["A − B"] == pytest.approx(first - second)


def test_runs_shows_the_newest_numbers_and_compares(opened, home):
    run = next(run for run in list_runs(home) if run.record().name == "one")
    page = opened("runs", run=run.id)
    shown = metrics(page)
    assert shown["Loss"] == "1.025"
    assert shown["Exact match"] == "0.75"
    assert shown["Tokens / s"] == "1,234"
    assert run.id in " ".join(item.value.replace("\\", "") for item in page.markdown)


def test_runs_filter(opened):
    page = opened("runs")
    assert len(page.dataframe[0].value) == 2
    page.text_input(key="filter").set_value("two").run()
    assert page.dataframe[0].value["name"].tolist() == ["two"]


def test_a_killed_run_is_called_killed(opened, tmp_path, monkeypatch):
    run = make_run(tmp_path, "gone", state="running")
    record = run.path / "run.json"
    facts = json.loads(record.read_text())
    # The same process number, another time of birth: the writer is gone and its number was given to another process.
    facts["process"]["ticks"] = 1
    facts["process"]["created"] = 1.0
    record.write_text(json.dumps(facts))
    assert RunDirectory.open(run.path).status().state == "killed"
    page = opened("runs", tmp_path, run=run.id)
    assert "killed" in page.dataframe[0].value["state"].iloc[0]


def test_tags_and_delete(opened, tmp_path):
    run = make_run(tmp_path, "short", steps=3)
    page = opened("runs", tmp_path, run=run.id)
    page.text_input(key=f"tags_{run.id}").set_value("a, b")
    page.button(key="save_tags").click().run()
    assert run.tags == ("a", "b")
    page.button(key=f"delete_{run.id}").click().run()
    assert list_runs(tmp_path) == []


def test_train_names_the_key_that_is_wrong_and_builds_the_configuration(opened, home):
    run = next(run for run in list_runs(home) if run.record().name == "one")
    page = opened("train", start=run.id)
    assert "lambda: 0.25" in page.code[0].value
    assert "data\\.train" in page.error[0].value, "this run was made without files"
    page.number_input(key=f"{run.id}.training.steps").set_value(0).run()
    assert "training" in page.error[0].value.replace("\\", "")
    assert page.button(key="launch").disabled
    assert any("greater than or equal to 1" in item.value for item in page.caption), "said beside the field too"
    page.number_input(key=f"{run.id}.training.steps").set_value(7).run()
    assert "steps: 7" in page.code[0].value


def test_train_opens_on_a_fusion_that_can_be_launched_and_plans_it(opened, tmp_path):
    from gfviz.fusion.config import parse_config
    from gfviz.fusion.plan import plan

    page = opened("train", tmp_path)
    assert not page.error
    assert not page.button(key="launch").disabled
    written = yaml.safe_load(page.code[0].value)
    assert parse_config(written).training.steps == 300
    assert metrics(page)["Examples"] == "400"
    page.button(key="plan").click().run()
    assert not page.exception
    table = dict(page.dataframe[0].value.to_numpy().tolist())
    found = plan(parse_config(written), measure=False)
    assert table["most at one time"] == pytest.approx(found.peak_bytes / 1e6)
    assert table["pivot weights"] == pytest.approx(found.memory["pivot weights"] / 1e6)
    page.number_input(key="the shipped task models.training.batch_size").set_value(32).run()
    assert not page.dataframe, "a plan of another configuration is not shown"


def test_no_click_in_the_app_lets_a_strangers_run_bring_code(opened, tmp_path):
    models = {"pivot": {"model": "someone/model", "trust_remote_code": True}}
    run = RunDirectory.create(tmp_path, {"name": "x", **models, "training": {"steps": 1}})
    page = opened("train", tmp_path, start=run.id)
    assert "pivot.trust_remote_code: a file cannot" in page.error[0].value.replace("\\", "")
    assert page.button(key="launch").disabled
    assert page.code[1].value == "gfviz fuse fusion.yaml --detach --trust-remote-code"


def test_import_refuses_what_is_no_graph(monkeypatch, tmp_path):
    monkeypatch.setenv("GFVIZ_RUNS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import places

    with pytest.raises(GfvizError):
        places.import_graph("../../evil.safetensors", b"not a graph")
    assert list((tmp_path / "graphs").iterdir()) == []
    make_graph(0).save(tmp_path / "x.safetensors")
    kept = places.import_graph("../../évil <b>.safetensors", (tmp_path / "x.safetensors").read_bytes())
    assert kept.parent == tmp_path / "graphs"
    assert places.find_graphs()[0].path == kept
    again = places.import_graph("../../évil <b>.safetensors", (tmp_path / "x.safetensors").read_bytes())
    assert again != kept


def test_options_of_the_file_and_of_the_flags_agree(tmp_path):
    file = Path(__file__).parents[2] / ".streamlit" / "config.toml"
    flat = {}

    def walk(tree: dict, prefix: str = "") -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(tomllib.loads(file.read_text()))
    assert flat == OPTIONS
    assert OPTIONS["server.address"] == "127.0.0.1"
    command = app_command(tmp_path, tmp_path / "g", port=1234)
    assert command[command.index("--") :] == ["--", "--runs", str(tmp_path), "--graphs", str(tmp_path / "g")]
    assert "--server.port=1234" in command
    with pytest.raises(GfvizError, match="port"):
        app_command(tmp_path, port=70000)


def test_plain_text_does_not_act_as_markdown(monkeypatch):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import parts

    assert parts.plain("**a** [x](y) <b> :red[z] $m$") == ("\\*\\*a\\*\\* \\[x\\]\\(y\\) \\<b\\> \\:red\\[z\\] \\$m\\$")


def test_import_of_foreign_runs(monkeypatch, tmp_path, opened):
    from tests.runs.test_runs_imports import EVENTS, event_file

    page = opened("home", tmp_path / "runs")
    page.text_input(key="import_path").set_value(str(tmp_path / "nothing")).run()
    page.button[0].click().run()
    assert "no file or folder" in page.error[0].value
    assert list_runs(tmp_path / "runs") == []
    event_file(tmp_path / "logs" / "first")
    page.text_input(key="import_path").set_value(str(tmp_path / "logs")).run()
    page.button[0].click().run()
    assert page.dataframe[0].value["run"].tolist() == [run.id for run in list_runs(tmp_path / "runs")]
    from gfvizui import places

    (run,) = places.import_upload("../events.out.tfevents.1.host", EVENTS)
    assert run.path.parent == tmp_path / "runs"
    with pytest.raises(GfvizError, match="is no TensorBoard"):
        places.import_upload("events.out.tfevents.1.host", b"?" * 100)
    shown = opened("runs", tmp_path / "runs", run=run.id)
    assert "tensorboard" in shown.dataframe[0].value["kind"].tolist()


def test_an_app_that_others_can_reach_says_so(monkeypatch, opened, home):
    from streamlit import config

    monkeypatch.setenv("GFVIZ_RUNS", str(home))
    monkeypatch.setattr(sys, "argv", ["main.py"])
    before = config.get_option("server.address")
    try:
        for address, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
            config.set_option("server.address", address)
            page = AppTest.from_file(str(app_dir() / "main.py"), default_timeout=60).run()
            assert not page.exception
            assert ["whoever reaches this machine" in item.value for item in page.warning] == ([True] if warned else [])
    finally:
        config.set_option("server.address", before)
