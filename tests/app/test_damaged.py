"""A run whose files are damaged, or whose times no calendar shows, beside others that are whole."""

import json
import os
import time
from pathlib import Path

import pytest

from gfviz.runs import RunDirectory
from tests.app.conftest import make_run


def spoil(run: RunDirectory) -> None:
    for suffix in ("-wal", "-shm"):
        run.metrics_path.with_name(f"metrics.db{suffix}").unlink(missing_ok=True)
    run.metrics_path.write_bytes(b"?" * 5000)


def said(elements) -> str:
    return " ".join(item.value.replace("\\", "") for item in elements)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[RunDirectory, RunDirectory]:
    """One that is whole and, made later, one whose store is not."""
    good, bad = make_run(tmp_path, "good", steps=3), make_run(tmp_path, "bad", steps=3)
    spoil(bad)
    record = json.loads((bad.path / "run.json").read_text())
    (bad.path / "run.json").write_text(json.dumps({**record, "created": record["created"] + 60}))
    return good, bad


def test_home_lists_both_and_says_why_one_is_damaged(opened, tmp_path, runs):
    good, bad = runs
    page = opened("home", tmp_path)
    states = next(item.value for item in page.dataframe if "run" in item.value).set_index("run")["state"].to_dict()
    assert states == {good.id: "finished", bad.id: "damaged"}
    assert bad.id in said(page.warning)
    assert "metrics store" in said(page.warning)
    assert good.id not in said(page.warning)


def test_runs_keeps_its_table_beside_a_damaged_run(opened, tmp_path, runs):
    good, bad = runs
    for query, broken in (({}, True), ({"run": bad.id}, True), ({"run": good.id}, False)):
        page = opened("runs", tmp_path, **query)
        table = page.dataframe[0].value.set_index("run")
        assert "damaged" in table.loc[bad.id, "state"]
        assert "metrics store" in table.loc[bad.id, "why"]
        assert "finished" in table.loc[good.id, "state"]
        assert table.loc[good.id, "why"] == ""
        assert ("metrics store" in said(page.error)) is broken
    page = opened("runs", tmp_path, compare=f"{good.id},{bad.id}")
    assert set(page.dataframe[0].value["run"]) == {good.id, bad.id}


def test_a_table_of_whole_runs_has_no_room_for_faults(opened, tmp_path):
    make_run(tmp_path, "good", steps=3)
    assert "why" not in opened("runs", tmp_path).dataframe[0].value


@pytest.mark.parametrize("name", ["home", "runs"])
def test_times_of_no_calendar_are_a_dash(opened, tmp_path, name):
    run = make_run(tmp_path, "late", steps=3)
    record = json.loads((run.path / "run.json").read_text())
    # The end of the year 9999 in Greenwich is in the year 10000 east of it.
    (run.path / "run.json").write_text(json.dumps({**record, "created": 253402300798.0}))
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    try:
        page = opened(name, tmp_path)
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()
    table = next(item.value for item in page.dataframe if "run" in item.value)
    assert table["started"].tolist() == ["–"]
