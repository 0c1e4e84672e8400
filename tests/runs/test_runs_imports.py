"""Runs of TensorBoard and Trackio: read as they were logged, refused in one line where they are damaged or hostile."""

import base64
import json
import math
import os
import sqlite3
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.runs import list_runs
from gfviz.runs.imports import import_note, import_runs
from gfviz.runs.tfevents import read_scalars
from tests.faults.mutations import frame

# Written by torch 2.13's SummaryWriter over tensorboard 2.21: train/loss 2/(k+1) at steps 0, 10, 20; eval/acc 0 and
# 0.25 at 0, 10 as tensors (new_style); double 1e-3 and nan at 20; times 1.7e9 + 0, 1, 2 and + 9.
EVENTS = base64.b64decode(
    """
    SAAAAAAAAAD+kkidCfUK0j/nwNpBGg1icmFpbi5FdmVudDoyUi4KLHRlbnNvcmJvYXJkLnN1bW1hcnkud3JpdGVyLmV2ZW50X2ZpbGVfd3JpdGVy
    9LKQ8B4AAAAAAAAA2dwSMgkAAABA/FTZQSoTChEKCnRyYWluL2xvc3MVAAAAQObZNBIgAAAAAAAAACntqVAJAABAQPxU2UEQCioTChEKCnRyYWlu
    L2xvc3MVAACAPyD3y/0gAAAAAAAAACntqVAJAACAQPxU2UEQFCoTChEKCnRyYWluL2xvc3MVq6oqP6hcK5QuAAAAAAAAAMXLV/oJAAAAQPxU2UEq
    IwohCghldmFsL2FjY0IICAEqBAAAAABKCwoJCgdzY2FsYXJzBqHgrDAAAAAAAAAAlfXQXwkAAEBA/FTZQRAKKiMKIQoIZXZhbC9hY2NCCAgBKgQA
    AIA+SgsKCQoHc2NhbGFyc22QjUgcAAAAAAAAAMjBlR0JAABAQvxU2UEQFCoPCg0KBmRvdWJsZRVvEoM6ISB8XhkAAAAAAAAAi/EIKAkAAEBC/FTZ
    QRAUKgwKCgoDbmFuFQAAwH9TFtx/
    """
)


def event_file(folder, data: bytes = EVENTS, name: str = "events.out.tfevents.1700000000.host"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def trackio(path, rows, with_ids: bool = True, configs=(), metrics: str = "TABLE") -> None:
    """A database as Trackio 0.43 makes it (or, without ids, as its first versions did)."""
    with sqlite3.connect(path) as database:
        key = "run_id TEXT NOT NULL," if with_ids else "project_name TEXT,"
        database.execute(
            f"CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, {key} timestamp TEXT NOT NULL,"
            " run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)"
        )
        first = "run_id, " if with_ids else ""
        for run, name, moment, step, text in rows:
            values = ([run] if with_ids else []) + [moment, name, step, text]
            marks = ", ".join("?" * len(values))
            database.execute(
                f"INSERT INTO metrics ({first}timestamp, run_name, step, metrics) VALUES ({marks})", values
            )
        if with_ids:
            database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, config TEXT)")
            for run, text in configs:
                database.execute("INSERT INTO configs (run_id, run_name, config) VALUES (?, 'x', ?)", (run, text))
    database.close()


def test_an_event_file_of_tensorboard_is_read_as_it_was_logged(tmp_path):
    (run,) = import_runs(event_file(tmp_path / "my logs" / "first").parent, tmp_path / "runs")
    reader = run.reader()
    assert reader.names() == ["double", "eval/acc", "nan", "train/loss"]
    loss = reader.series("train/loss")
    assert loss.steps.tolist() == [0, 10, 20]
    assert loss.values.tolist() == [2.0, 1.0, float(np.float32(2 / 3))]
    assert loss.times.tolist() == [1.7e9, 1.7e9 + 1, 1.7e9 + 2]
    assert reader.series("eval/acc").values.tolist() == [0.0, 0.25]
    assert reader.series("double").values.tolist() == [float(np.float32(1e-3))]
    assert math.isnan(reader.series("nan").values[0])
    status, record = run.status(), run.record()
    assert (status.state, status.step, status.total_steps) == ("finished", 20, 20)
    assert (record.kind, record.name, record.created, record.ended) == ("tensorboard", "first", 1.7e9, 1.7e9 + 9)
    assert run.config["imported"]["from"] == "tensorboard"


def test_each_folder_with_event_files_is_a_run_and_links_are_not_followed(tmp_path):
    logs = tmp_path / "logs"
    event_file(logs / "a")
    event_file(logs / "b" / "c")
    event_file(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere" / "events.out.tfevents.1700000000.host", logs / "events.out.tfevents.9.link")
    runs = import_runs(logs, tmp_path / "runs")
    assert [run.record().name for run in runs] == ["a", "b/c"]
    assert {run.id for run in list_runs(tmp_path / "runs")} == {run.id for run in runs}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(EVENTS) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused(tmp_path_factory, place, change):
    data = bytearray(EVENTS)
    data[place] ^= change
    path = event_file(tmp_path_factory.mktemp("one"), bytes(data))
    with pytest.raises(GfvizError) as refused:
        # A length that grew past the end looks like a record still being written, unless its checksum is asked.
        list(read_scalars(path))
    assert "\n" not in str(refused.value)


def test_a_file_cut_anywhere_gives_the_records_before_the_cut_or_is_refused(tmp_path):
    whole = list(read_scalars(event_file(tmp_path)))
    seen = set()
    for cut in range(1, len(EVENTS)):
        path = event_file(tmp_path, EVENTS[:cut])
        if cut < 16 + EVENTS[0]:  # not even the first record
            with pytest.raises(GfvizError):
                list(read_scalars(path))
            continue
        part = list(read_scalars(path))
        assert [str(row) for row in part] == [str(row) for row in whole[: len(part)]]
        seen.add(len(part))
    assert seen == set(range(len(whole)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 200,
        bytes(4096),
        frame(b"\x2a\xff\xff\xff\xff\x0f"),
        frame(b"\x2a\x04\x0a\x7f\x0a\x01"),
        frame(b"\x08" + b"\xff" * 12),
        frame(b"\x2f"),
        frame(b"\x0b" * 40),
    ],
)
def test_what_is_no_event_file_is_refused_in_one_line(tmp_path, data):
    path = event_file(tmp_path / "logs", data)
    with pytest.raises(GfvizError) as refused:
        import_runs(path, tmp_path / "runs")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_frames_of_our_own_are_read_and_hostile_numbers_refused(tmp_path):
    def event(step: int, tag: bytes) -> bytes:
        value = b"\x0a" + bytes([len(tag)]) + tag + b"\x15" + struct.pack("<f", 1.5)
        summary = b"\x0a" + bytes([len(value)]) + value
        number = b""
        while step > 0x7F:
            number, step = number + bytes([step & 0x7F | 0x80]), step >> 7
        return b"\x10" + number + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary

    plain = event_file(tmp_path / "plain", frame(event(300, b"x")))
    assert [(row.tag, row.step, row.value) for row in read_scalars(plain)] == [("x", 300, 1.5)]
    minus = event_file(tmp_path / "minus", frame(event((1 << 64) - 1, b"x")))
    assert next(iter(read_scalars(minus))).step == -1
    for folder in (minus.parent, event_file(tmp_path / "nameless", frame(event(1, b""))).parent):
        with pytest.raises(GfvizError):
            import_runs(folder, tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_trackio_database_of_either_age(tmp_path, with_ids):
    rows = [
        (
            "1",
            "one",
            f"2026-01-02T03:04:0{step}+00:00",
            step,
            json.dumps({"loss": 1 / (step + 1), "x": "NaN", "s": "a"}),
        )
        for step in range(4)
    ]
    rows.append(("2", "two", "2026-01-02T04:00:00+00:00", 7, json.dumps({"deep": {"y": 1}, "flag": True, "n": 3})))
    config = json.dumps({"lr": 0.1, "_Username": "someone"})
    trackio(tmp_path / "project.db", rows, with_ids, [("1", config)])
    one, two = import_runs(tmp_path / "project.db", tmp_path / "runs")
    assert one.reader().names() == ["loss", "x"]
    assert one.reader().series("loss").values.tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert np.isnan(one.reader().series("x").values).all()
    assert one.reader().series("loss").times[-1] - one.reader().series("loss").times[0] == 3
    assert two.reader().names() == ["n"]
    assert (two.status().step, two.record().kind) == (7, "trackio")
    assert one.config.get("lr") == (0.1 if with_ids else None)
    assert "_Username" not in one.config


@pytest.mark.parametrize(
    "row",
    [
        ("1", "one", "2026-01-02T03:04:05", "many", "{}"),
        ("1", "one", "2026-01-02T03:04:05", -1, '{"a": 1}'),
        ("1", "one", "yesterday", 1, '{"a": 1}'),
        ("1", "one", "2026-01-02T03:04:05", 1, "[" * 100_000),
        ("1", "one", "2026-01-02T03:04:05", 1, "[1]"),
        ("1", "one", "2026-01-02T03:04:05", 1, json.dumps({"x" * 1000: 1})),
        ("1", "one", "2026-01-02T03:04:05", 1, json.dumps({str(k): k for k in range(3000)})),
        ("1", "one", "2026-01-02T03:04:05", 1, b"\xff\x00"),
        ("1", "one", "2026-01-02T03:04:05", 1, '{"\\ud800": 1}'),
    ],
)
def test_a_hostile_trackio_row_is_refused_and_leaves_nothing(tmp_path, row):
    good = ("0", "good", "2026-01-02T03:04:05", 1, '{"a": 1}')
    trackio(tmp_path / "project.db", [good, row])
    with pytest.raises(GfvizError) as refused:
        import_runs(tmp_path / "project.db", tmp_path / "runs")
    assert "\n" not in str(refused.value)
    assert list_runs(tmp_path / "runs") == [], "all runs or none"


def test_a_view_or_another_database_is_no_trackio(tmp_path):
    with sqlite3.connect(tmp_path / "view.db") as database:
        database.execute("CREATE TABLE t (run_name, step, timestamp, metrics)")
        database.execute("CREATE VIEW metrics AS SELECT * FROM t")
    database.close()
    with pytest.raises(GfvizError, match="no table of metrics"):
        import_runs(tmp_path / "view.db", tmp_path / "runs")
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + b"?" * 5000)
    with pytest.raises(GfvizError, match=r"broken\.db"):
        import_runs(tmp_path / "broken.db", tmp_path / "runs")
    with pytest.raises(GfvizError, match="no file or folder"):
        import_runs(tmp_path / "absent", tmp_path / "runs")


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("config, reason", [
    (nested(400), "deep"),
    (nested(32), "deep"),
    (json.dumps({"a": "x" * 300_000}), "256 KB"),
    ('{"a": "\\ud800"}', "half a character"),
    ('{"\\udfff": 1}', "half a character"),
])  # fmt: skip
def test_a_configuration_that_could_not_be_read_again_is_left_out_and_said(tmp_path, config, reason):
    trackio(tmp_path / "p.db", [("1", "one", "2026-01-02T03:04:05", 1, '{"a": 1}')], configs=[("1", config)])
    (run,) = import_runs(tmp_path / "p.db", tmp_path / "runs")
    assert run.reader().series("a").values.tolist() == [1.0]
    assert list(run.config) == ["imported"]
    assert reason in import_note(run)
    assert [event.text for event in run.reader().events()] == [import_note(run)]


def test_a_configuration_that_is_kept_is_not_noted_and_does_not_name_its_own_origin(tmp_path):
    config = json.dumps({"lr": 0.5, "imported": "elsewhere"})
    trackio(tmp_path / "p.db", [("1", "one", "2026-01-02T03:04:05", 1, '{"a": 1}')], configs=[("1", config)])
    (run,) = import_runs(tmp_path / "p.db", tmp_path / "runs")
    assert run.config["lr"] == 0.5
    assert run.config["imported"] == {"from": "trackio", "path": str(tmp_path / "p.db")}
    assert import_note(run) == ""
