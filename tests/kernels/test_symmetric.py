"""Row means of symmetric matrices against a float64 product; a matrix that is not its transpose is always seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.compiled import FORBID
from gfviz.kernels import symmetric


@pytest.fixture(params=["compiled", "numpy"])
def form(request, monkeypatch):
    """Both forms, at every size."""
    if request.param == "numpy":
        monkeypatch.setattr(symmetric, "library", lambda: None)
    elif symmetric.library() is None:
        pytest.skip("no C compiler, or GFVIZ_NO_COMPILE is set")
    monkeypatch.setattr(symmetric, "_MIN_SIZE", 1)
    return request.param


def example(n, seed=0):
    random = np.random.default_rng(seed)
    half = random.standard_normal((n, n))
    return half + half.T, random.random(n)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 63, 64, 65, 71, 72, 130, 256])
def test_means_are_the_product(form, n):
    matrix, weights = example(n, n)
    for held in (matrix, np.asfortranarray(matrix), np.repeat(np.repeat(matrix, 2, 0), 2, 1)[::2, ::2]):
        found = symmetric.symmetric_means(held, weights)
        np.testing.assert_allclose(found, np.einsum("ij,j->i", matrix, weights), rtol=0, atol=1e-14 * n)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 140), data=st.data())
def test_one_entry_off_by_the_last_bit_is_seen(n, data):
    i = data.draw(st.integers(0, n - 1))
    j = data.draw(st.integers(0, n - 1).filter(lambda j: j != i))
    matrix, weights = example(n)
    matrix[i, j] = np.nextafter(matrix[i, j], np.inf)
    for least in (1, 10**6):  # the compiled form, and numpy's
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(symmetric, "_MIN_SIZE", least)
            assert symmetric.symmetric_means(matrix, weights) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 70), (71, 71), (64, 5)])
def test_what_is_not_finite_reaches_the_means(form, value, place):
    matrix, _ = example(72)
    matrix[place] = matrix[place[::-1]] = value
    found = symmetric.symmetric_means(matrix, np.full(72, 1 / 72))
    assert set(np.flatnonzero(~np.isfinite(found))) == set(place)


def test_nothing_is_compiled_where_that_is_forbidden(monkeypatch):
    monkeypatch.setenv(FORBID, "1")
    symmetric.library.cache_clear()
    try:
        assert symmetric.library() is None
        matrix, weights = example(120)
        np.testing.assert_allclose(symmetric.symmetric_means(matrix, weights), matrix @ weights)
    finally:
        symmetric.library.cache_clear()
