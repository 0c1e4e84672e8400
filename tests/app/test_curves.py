"""How far the axis of a run's curves goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfviz.paths import app_dir


@pytest.fixture(scope="module")
def shown_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(app_dir()))
        from gfvizui.runcurves import shown_steps
    return shown_steps


def test_a_young_run_is_not_a_line_at_the_edge(shown_steps):
    steps = (-1, 0, 14, 15, 1294, 7499, 7500, 999_999)
    assert [shown_steps(step, 10**6) for step in steps] == [15, 15, 15, 20, 1500, 7500, 10_000, 10**6]
    assert shown_steps(40, 60) == 50
    assert shown_steps(50, 60) == 60
    assert shown_steps(70, 60) == 70
    assert shown_steps(5, None) is None


@given(step=st.integers(-1, 10**7), total=st.integers(1, 10**7))
def test_all_that_was_logged_is_shown_on_half_of_the_axis_or_more(shown_steps, step, total):
    end = shown_steps(min(step, total), total)
    assert step <= end <= total or end == min(step, total)
    assert end == total or end <= max(15, 2 * step)
