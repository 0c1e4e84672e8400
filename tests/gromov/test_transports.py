"""The network simplex against linear programming, POT and itself from other bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gfviz.gromov import dual, native, transport

SEEDS = st.integers(0, 10**6)
KINDS = ("any", "ties", "monge", "zero", "tiny", "huge")
compiled = pytest.mark.skipif(native.library() is None, reason="no C compiler here")


def _weights(size: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    raw = {"uniform": np.ones(size), "any": rng.dirichlet(np.ones(size)) + 1e-4, "steep": 10.0 ** -np.arange(size)}[
        kind
    ]
    return raw / raw.sum()


def _costs(n: int, m: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    cost = rng.standard_normal((n, m))
    if kind == "ties":
        return np.round(cost)
    if kind == "monge":
        return (rng.standard_normal((n, 1)) - rng.standard_normal(m)) ** 2
    return cost * {"any": 1.0, "zero": 0.0, "tiny": 1e-30, "huge": 1e30}[kind]


def _least(cost: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    n, m = cost.shape
    rows, cols = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    scale = np.abs(cost).max() or 1.0
    # one constraint is the sum of the others, and rounding may make them contradict each other
    solved = linprog(cost.ravel() / scale, A_eq=np.vstack([rows, cols[:-1]]), b_eq=np.concatenate([p, q[:-1]]))
    return float(solved.fun) * scale


def _check(cost: np.ndarray, p: np.ndarray, q: np.ndarray, basis: transport.Basis | None) -> float:
    plan, u, v = transport.transport_duals(cost, p, q, basis)
    scale = np.abs(cost).max()
    dense = plan.matrix(*cost.shape).toarray()
    assert (plan.mass > 0).all()
    assert len(plan.mass) < len(p) + len(q)
    np.testing.assert_allclose(dense.sum(1), p, atol=1e-15)
    np.testing.assert_allclose(dense.sum(0), q, atol=1e-15)
    assert (cost - u[:, None] - v[None, :]).min() >= -1e-15 * scale
    # no plan costs less than feasible potentials are worth: where the two meet, both are optimal
    value = float((dense * cost).sum())
    assert float(p @ u + q @ v) == pytest.approx(value, rel=1e-12, abs=1e-13 * scale)
    return value


@settings(max_examples=30, deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(2, 12),
    m=st.integers(2, 12),
    kind=st.sampled_from(KINDS),
    weights=st.sampled_from(["uniform", "any", "steep"]),
)
def test_a_transport_is_a_cheapest_one_from_nothing_and_from_any_basis(
    seed: int, n: int, m: int, kind: str, weights: str
) -> None:
    rng = np.random.default_rng(seed)
    p, q = _weights(n, weights, rng), _weights(m, weights, rng)
    basis = transport.Basis()
    cost = _costs(n, m, kind, rng)
    value = _check(cost, p, q, None)
    if weights != "steep":  # linprog lets constraints fail by as much as the smallest of those
        assert value == pytest.approx(_least(cost, p, q), rel=1e-8, abs=1e-8 * float(np.abs(cost).max()))
    for other in (kind, "any", "ties"):  # the basis of one problem is where another starts, however far off
        _check(_costs(n, m, other, rng), p, q, basis)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_a_single_row_or_column_leaves_no_choice(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    cost, p, q = rng.random(shape), _weights(shape[0], "any", rng), _weights(shape[1], "any", rng)
    plan, u, v = transport.transport_duals(cost, p, q)
    assert np.array_equal(plan.matrix(*shape).toarray(), np.multiply.outer(p, q))
    assert float(p @ u + q @ v) == pytest.approx(float(p @ cost @ q))


@compiled
def test_large_transports_equal_those_of_pot() -> None:
    rng = np.random.default_rng(1)
    p, q = _weights(150, "any", rng), _weights(90, "uniform", rng)
    basis = transport.Basis()
    for kind in ("any", "monge", "ties"):
        cost = _costs(150, 90, kind, rng)
        plan, u, v = transport.transport_duals(cost, p, q, basis)
        theirs, _ = transport._asked_of_pot(cost, p, q)
        value = float(plan.mass @ cost[plan.rows, plan.cols])
        assert value == pytest.approx(float(theirs.mass @ cost[theirs.rows, theirs.cols]), rel=1e-12)
        assert float(p @ u + q @ v) == pytest.approx(value, rel=1e-12)


@compiled
def test_compiled_sweeps_of_transports_equal_their_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    c, d = (x @ x.T for x in (rng.standard_normal((7, 7)), rng.standard_normal((9, 9))))
    p, q = _weights(7, "any", rng), _weights(9, "any", rng)
    ours = dual.QuadraticDual.weighted(c, p, d, q)
    ours.sweep()
    monkeypatch.setattr(native, "library", lambda: None)
    twin = dual.QuadraticDual.weighted(c, p, d, q)
    twin.sweep()
    # the first subproblems are the same ones, so their values are; their potentials need not be
    assert ours.bound == pytest.approx(twin.bound, rel=1e-12)
    assert float(np.abs(ours.quadratic.min())) <= 1e-12 * float(np.abs(c).max() * np.abs(d).max())
