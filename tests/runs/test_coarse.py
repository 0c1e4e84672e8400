"""A series in ranges that double: against the rows themselves, however they came."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.runs import CoarseSeries, RunDirectory

COUNT = 8


def check(coarse: CoarseSeries, rows: dict[int, float], generation: int = 0) -> None:
    """`coarse` against a dictionary of all rows."""
    found = coarse.buckets(generation)
    assert len(found.rows) <= COUNT
    assert found.rows.sum() == len(rows)
    assert (found.first[1:] > found.last[:-1]).all()
    for first, last, low, mean, high, number in zip(*found):
        part = np.array([rows[step] for step in sorted(rows) if first <= step <= last])
        assert len(part) == number
        assert {first, last} <= rows.keys()
        some = part[~np.isnan(part)]
        wanted = [some.min(), some.mean(), some.max()] if len(some) else [np.nan] * 3
        np.testing.assert_allclose([low, mean, high], wanted, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.one_of(st.floats(-9, 9), st.just(float("nan")))), max_size=30),
        min_size=1,
        max_size=6,
    )
)
def test_ranges_hold_all_rows_after_every_look(tmp_path_factory: pytest.TempPathFactory, looks: list) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("coarse"), {})
    rows: dict[int, float] = {}
    step = 0
    with run.writer() as writer, run.reader() as reader:
        coarse = CoarseSeries(reader, "x", COUNT)
        for look in looks:
            for gap, value in look:
                # A gap of 0 replaces the newest row.
                step += gap
                rows[step] = value
                writer.log(step, {"x": value})
            writer.flush()
            check(coarse, rows)


def test_rows_taken_back_by_a_resume_are_gone(tmp_path) -> None:
    run = RunDirectory.create(tmp_path, {})
    with run.writer() as writer, run.reader() as reader:
        coarse = CoarseSeries(reader, "x", COUNT)
        for step in range(100):
            writer.log(step, {"x": 1.0})
        writer.flush()
        check(coarse, dict.fromkeys(range(100), 1.0))
        writer.truncate_after(39)
        for step in range(40, 120):
            writer.log(step, {"x": 2.0})
        writer.flush()
        rows = {step: 1.0 if step < 40 else 2.0 for step in range(120)}
        check(coarse, rows, reader.status().generation)
        assert CoarseSeries(reader, "never logged", COUNT).buckets().rows.sum() == 0
        with pytest.raises(GfvizError, match="at least two"):
            CoarseSeries(reader, "x", 1)


def test_a_later_look_reads_only_the_end(tmp_path, monkeypatch) -> None:
    run = RunDirectory.create(tmp_path, {})
    with run.writer() as writer, run.reader() as reader:
        coarse = CoarseSeries(reader, "x", COUNT)
        for step in range(1000):
            writer.log(step, {"x": step})
        writer.flush()
        coarse.buckets()
        asked: list[list[int]] = []
        ranges = reader.ranges
        monkeypatch.setattr(reader, "ranges", lambda name, borders: asked.append(borders) or ranges(name, borders))
        for step in range(1000, 1010):
            writer.log(step, {"x": step})
        writer.flush()
        check(coarse, {step: float(step) for step in range(1010)})
        assert asked == [[896, 1024]]
