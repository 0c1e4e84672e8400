"""What a user has chosen or typed stays, whatever comes and goes beside it; what cannot work is refused in place."""

import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from gfviz.paths import app_dir, sample_data_dir
from gfviz.runs import list_runs
from tests.app.conftest import make_graph, make_run

EXAMPLE = "the shipped task models"


def choose_rows(page: AppTest, *rows: int) -> None:
    page.session_state["runs_table"] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    page.run()


def chosen_rows(page: AppTest) -> list[int]:
    return list(page.session_state["runs_table"]["selection"]["rows"])


@pytest.fixture
def three(tmp_path):
    """A folder with three short runs, and their ids as the table lists them."""
    for name in ("one", "two", "three"):
        make_run(tmp_path, name, steps=2)
    return tmp_path, [run.id for run in list_runs(tmp_path)]


def test_a_chosen_run_stays_the_chosen_one(opened, three):
    root, ids = three
    page = opened("runs", root)
    choose_rows(page, 1)
    assert page.query_params["run"] == ids[1]
    later = make_run(root, "later", steps=2, state="running")
    listed = [run.id for run in list_runs(root)]
    page.run()
    assert page.query_params["run"] == ids[1]
    assert chosen_rows(page) == [listed.index(ids[1])]
    assert f"delete_{ids[1]}" in [button.key for button in page.button]
    page.text_input(key="filter").set_value("later").run()
    assert page.dataframe[0].value["run"].tolist() == [later.id]
    assert page.query_params["run"] == ids[1], "a filter chooses nothing"
    assert chosen_rows(page) == []
    assert any("1 of the chosen runs is not among" in item.value for item in page.caption)
    choose_rows(page, 0)
    assert set(page.query_params["compare"].split(",")) == {ids[1], later.id}
    page.text_input(key="filter").set_value("").run()
    assert chosen_rows(page) == sorted(listed.index(name) for name in (ids[1], later.id))


def test_deleting_the_chosen_run_asks_about_no_other(opened, three):
    root, ids = three
    page = opened("runs", root)
    choose_rows(page, 1)
    page.button(key=f"delete_{ids[1]}").click().run()
    assert [run.id for run in list_runs(root)] == [ids[0], ids[2]]
    assert chosen_rows(page) == []
    assert not page.warning
    assert page.query_params["run"] == ids[0]


def test_the_address_holds_filters_metrics_and_what_is_open(opened, three):
    root, ids = three
    make_run(root, "cut", steps=2, state="running")
    page = opened("runs", root, state="finished", tab="Events", run=ids[2])
    assert set(page.dataframe[0].value["run"]) == set(ids)
    assert page.dataframe[1].value["what"].tolist()[-1] == "something happened"
    page.button_group(key="state").set_value([]).run()
    assert "state" not in page.query_params
    page = opened("runs", root, compare=",".join(ids[:2]), metrics=["tokens_per_s", "nothing"])
    assert page.multiselect(key="metrics").value == ["tokens_per_s"]
    assert len(chosen_rows(page)) == 2
    page.multiselect(key="metrics").set_value(["loss/total"]).run()
    assert page.query_params["metrics"] == "loss/total"


def test_the_scrubber_follows_a_live_run_and_leaves_alone_who_looks_back(opened, tmp_path):
    run = make_run(tmp_path, "live", steps=3, state="running")
    page = opened("runs", tmp_path, run=run.id)
    assert page.select_slider(key="step").value == 2
    make_graph(7, "rank").save(run.path / "graphs" / "step-000007-student.safetensors")
    page.run()
    assert page.select_slider(key="step").value == 7
    page.select_slider(key="step").set_value(2).run()
    assert page.query_params["step"] == "2"
    make_graph(9, "rank").save(run.path / "graphs" / "step-000009-student.safetensors")
    page.run()
    assert page.select_slider(key="step").value == 2
    assert "9" in page.select_slider(key="step").options
    again = opened("runs", tmp_path, run=run.id, step="7")
    assert again.select_slider(key="step").value == 7


@pytest.mark.parametrize("nodes", ["rank", "token"])
def test_new_graphs_do_not_move_the_layout(monkeypatch, tmp_path, nodes):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import places, scrubber

    run = make_run(tmp_path, "live", steps=2)
    for path in (run.path / "graphs").iterdir():
        path.unlink()
    make_graph(9, nodes, n=60).save(run.path / "graphs" / "arith.safetensors")

    def placed(step: int) -> dict[str, np.ndarray]:
        steps = places.step_graphs(run)
        frame = scrubber.fixed_layout(steps)
        view = scrubber.on_layout(str(steps[step]["student"].path), frame.view, "student")
        low, high = np.array(frame.box).reshape(2, 2).T
        assert ((view.positions >= low) & (view.positions <= high)).all()
        return dict(zip(view.labels, view.positions))

    make_graph(1, nodes, n=80).save(run.path / "graphs" / "step-000001-student.safetensors")
    before = placed(1)
    make_graph(2, nodes, n=90).save(run.path / "graphs" / "step-000002-student.safetensors")
    after, later = placed(1), placed(2)
    assert before.keys() == after.keys()
    shared = before.keys() & later.keys()
    assert len(shared) >= 12
    for label in shared:
        assert np.array_equal(before[label], after[label])
        assert np.array_equal(before[label], later[label]), label


def test_scores_and_distances_of_runs_side_by_side_are_not_smoothed(monkeypatch):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui.runcurves import weight_of

    weights = {
        name: weight_of(name, 0.6) for name in ("eval/exact_match", "eval/add/loss", "graph/t/upper", "loss/sft")
    }
    assert list(weights.values()) == [0.0, 0.0, 0.0, 0.6]


def test_a_distance_that_is_known_is_not_asked_for_again(opened, monkeypatch):
    page = opened("distance", a="one-rank", b="two-rank", p="1")
    from gfvizui import measuring

    monkeypatch.setattr(measuring, "AUTOMATIC_SECONDS", -1.0)
    page = opened("distance", a="one-rank", b="two-rank", p="1", budget="standard")
    assert not page.metric
    page.button[0].click().run()
    shown = [item.value for item in page.metric]
    again = opened("distance", a="one-rank", b="two-rank", p="1", budget="standard")
    assert [item.value for item in again.metric] == shown
    assert len(shown) == 5


def test_the_plots_of_the_study_and_their_filters(opened):
    names = ["Tightness by family", "Error by size", "Gap by size", "Time by size"]
    page = opened("distance", a="one-rank", b="two-rank", plot=names[0], families=["blocks", "nothing"], sizes="64")
    assert page.multiselect(key="families").value == ["blocks"]
    assert page.multiselect(key="sizes").value == [64]
    for name in names:
        page.button_group(key="plot").set_value(name).run()
        assert not page.exception
        assert page.query_params["plot"] == name
        assert page.query_params["families"] == "blocks"
        assert page.caption[-1].value.startswith("Median over")
    assert "10 s" in page.multiselect(key="methods").options
    page.multiselect(key="methods").set_value(["POT"]).run()
    page.button_group(key="plot").set_value("Gap by size").run()
    assert page.multiselect(key="methods").value == [], "POT gives no interval"


@pytest.fixture
def app(monkeypatch, tmp_path):
    """The whole app on the Train page, without runs."""
    monkeypatch.setenv("GFVIZ_RUNS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["main.py"])
    page = AppTest.from_file(str(app_dir() / "main.py"), default_timeout=60)
    page.switch_page("views/train.py").run()
    assert not page.exception
    return page


def test_what_was_typed_is_there_when_the_page_is_again(app):
    key = f"{EXAMPLE}.training.steps"
    app.number_input(key=key).set_value(77).run()
    app.number_input(key=f"{EXAMPLE}.teachers.count").set_value(0).run()
    app.switch_page("views/home.py").run()
    app.switch_page("views/train.py").run()
    assert app.number_input(key=key).value == 77
    assert "steps: 77" in app.code[0].value
    assert "teachers" not in app.code[0].value
    app.button(key="start_over").click().run()
    assert "steps: 300" in app.code[0].value


def said_in_red(page: AppTest) -> list[str]:
    return [item.value.replace("\\", "") for item in page.caption if item.value.startswith(":red")]


def test_a_launch_that_would_fail_at_once_is_not_offered(app, tmp_path):
    assert not app.button(key="launch").disabled
    model = f"{EXAMPLE}.pivot.model"
    for where, reason in (("/nonexistent/model", "no such folder"), (str(tmp_path), "no config.json")):
        app.text_input(key=model).set_value(where).run()
        assert app.button(key="launch").disabled
        assert len(said_in_red(app)) == 1
        assert reason in said_in_red(app)[0]
        assert app.error[0].value.replace("\\", "").startswith("pivot.model: ")
        assert not app.metric, "what cannot run has no cost"
    app.text_input(key=model).set_value("someone/on-the-hub").run()
    assert not app.button(key="launch").disabled
    app.text_input(key=model).set_value(str(sample_data_dir() / "models" / "task-pivot")).run()
    (tmp_path / "broken.jsonl").write_text("{")
    for path, reason in (("/nope/x.jsonl", "cannot read"), (str(tmp_path / "broken.jsonl"), "broken.jsonl:1")):
        app.text_area(key=f"{EXAMPLE}.data.train").set_value(path).run()
        assert app.button(key="launch").disabled
        assert reason in said_in_red(app)[0]
        assert app.error[0].value.replace("\\", "").startswith("data.train: ")


def test_an_empty_form_names_its_fields(app):
    app.selectbox(key="start").select("an empty form").run()
    assert [line.split("error: ")[1] for line in said_in_red(app)] == [
        "this is needed]",
        "this is needed]",
        "give this, or epochs under Everything else]",
    ]
    said = app.error[0].value.replace("\\", "")
    assert "pivot.model: is missing" in said
    assert "training: give exactly one of steps and epochs" in said
