"""Files of other programs, and databases whose pages lead back to themselves: refused in one line, in a moment."""

import sqlite3
import struct
import time
from pathlib import Path

import pytest

from gfviz.errors import GfvizError
from gfviz.runs import RunDirectory, list_runs
from gfviz.runs.imports import import_runs
from tests.faults import foreign
from tests.faults.mutations import frame

# What a question may take that an honest file of some kilobytes answers in a millisecond.
SECONDS = 20.0


def refused_soon(attempt, match: str) -> None:
    began = time.process_time()
    with pytest.raises(GfvizError, match=match) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("text", ["{}", '{"loss": 1.5}'])
def test_a_trackio_table_without_end(tmp_path: Path, text: str) -> None:
    """6 KB that hold 60^8 rows: what has no numbers counts as work too."""
    content = foreign.endless(foreign.database([["1", "one", foreign.MOMENT, 0, text]], []), "metrics")
    assert len(content) < 10_000
    (tmp_path / "a.db").write_bytes(content)
    opened = sqlite3.connect(tmp_path / "a.db")
    assert len(opened.execute("SELECT id FROM metrics LIMIT 100000").fetchall()) == 100_000
    opened.close()
    refused_soon(lambda: import_runs(tmp_path / "a.db", tmp_path / "runs"), "more than the file|no end")
    assert list_runs(tmp_path / "runs") == []


@pytest.mark.parametrize("table", ["state", "scalars"])
def test_a_metrics_store_without_end(tmp_path: Path, table: str) -> None:
    run = RunDirectory.create(tmp_path / "runs", {})
    with run.writer() as writer:
        writer.log(3, {"loss/total": 1.0})
    database = sqlite3.connect(run.metrics_path)
    database.executescript("PRAGMA journal_mode = DELETE;")
    database.close()
    run.metrics_path.write_bytes(foreign.endless(run.metrics_path.read_bytes(), table))
    question = run.reader().status if table == "state" else lambda: run.reader().series("loss/total")
    refused_soon(question, "no end")


def test_what_sqlite_says_of_a_hostile_name_is_one_line(tmp_path: Path) -> None:
    """It quotes the file's own text: line breaks, and bytes that are no text."""
    for number, wrong in enumerate((b"i\nj", b"i\xffj")):
        content = foreign.database(foreign.ROWS, [], after="CREATE INDEX abc ON metrics (abs(id)); DROP TABLE configs;")
        path = tmp_path / f"{number}.db"
        path.write_bytes(content.replace(b"INDEX abc ON metrics (", b"INDEX " + wrong + b" ON metrics ;"))
        refused_soon(lambda path=path: import_runs(path, tmp_path / "runs"), "readable SQLite|Trackio")


def test_an_event_file_that_claims_ten_gigabytes(tmp_path: Path) -> None:
    good = foreign.event_seeds()[0]
    for length in (10 * 2**30, 2**63, 2**64 - 1):
        path = tmp_path / "events.out.tfevents.1.a"
        path.write_bytes(frame(b"", length) + bytes(64))
        refused_soon(lambda path=path: import_runs(path, tmp_path / "runs"), "no whole record|no TensorBoard|damaged")
        # After good records it is what a writer that was killed leaves: those before it count.
        path.write_bytes(good + frame(b"", length) + bytes(64))
        (run,) = import_runs(path, tmp_path / "runs")
        assert run.reader().series("loss").steps.tolist() == [0, 1, 2]
        run.remove()


def test_frames_made_here_are_the_importers(tmp_path: Path) -> None:
    """Checksums of the mutations are worked out bit by bit: a file with theirs is read, one with others is not."""
    path = tmp_path / "events.out.tfevents.1.a"
    path.write_bytes(foreign.event_seeds()[1])
    (run,) = import_runs(path, tmp_path / "runs")
    assert run.reader().series("t").values.tolist() == [7.0]  # 0.5, 2.5 and 7 at one step: the last stands
    path.write_bytes(struct.pack("<Q", 3) + b"abcd" + b"xyz" + b"abcd")
    refused_soon(lambda: import_runs(path, tmp_path / "runs"), "no TensorBoard event file")
