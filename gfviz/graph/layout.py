"""Where to draw the nodes: a spectral start, then attraction along edges against sampled repulsion."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, eigsh

from gfviz.compiled import pointers
from gfviz.errors import GfvizError
from gfviz.graph import native

ROUNDS = 120
NEGATIVES = 4
RADIUS = 10.0


def layout(n: int, i: np.ndarray, j: np.ndarray, weight: np.ndarray, seed: int = 0, rounds: int = ROUNDS) -> np.ndarray:
    """Positions float64 [n, 2] of `n` nodes with edges (i, j, weight), centred, roughly in a disc of radius 1.

    The start is the two leading non-trivial eigenvectors of the normalised adjacency (Koren 2005, "Drawing graphs by
    eigenvectors"); then `rounds` steps of the force of UMAP, a = b = 1 (McInnes, Healy, Melville 2018, section 3.2):
    every edge pulls, and each node is pushed by a few random ones, which costs O(edges + nodes) a round instead of
    O(nodes²). Nodes without edges are set on a ring outside. The same input and seed give the same positions on one
    machine (a graph in pieces: with scipy 1.17 or later). Raises `GfvizError` for edges outside 0..n-1 or weights that
    are not finite. Cost: `rounds` · O(edges + nodes), compiled from `gfviz.graph.native.MIN_EDGES` edges on.

    >>> import numpy as np
    >>> at = layout(4, np.array([0, 2]), np.array([1, 3]), np.array([1.0, 1.0]))
    >>> at.shape, bool(np.linalg.norm(at[0] - at[1]) < np.linalg.norm(at[0] - at[2]))
    ((4, 2), True)
    """
    i, j, weight = _checked(n, i, j, weight)
    if n == 0:
        return np.zeros((0, 2))
    random = np.random.default_rng(seed)
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    linked = np.flatnonzero(degree)
    positions = np.zeros((n, 2))
    if len(linked):
        place = np.full(n, -1)
        place[linked] = np.arange(len(linked))
        positions[linked] = _linked_layout(len(linked), place[i], place[j], weight, random, rounds)
    lonely = np.flatnonzero(degree == 0)
    if len(lonely):
        # A golden-angle spiral band: even, and without a seam.
        turns = np.arange(len(lonely)) * (np.pi * (3 - np.sqrt(5)))
        away = 1.12 + 0.2 * np.sqrt(np.arange(len(lonely)) / len(lonely))
        positions[lonely] = np.stack([away * np.cos(turns), away * np.sin(turns)], 1)
    return positions


def _checked(n: int, i, j, weight) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i, j = np.asarray(i, np.int64), np.asarray(j, np.int64)
    weight = np.abs(np.asarray(weight, np.float64))
    if not (len(i) == len(j) == len(weight)):
        raise GfvizError(f"edges come as three arrays of one length, not {len(i)}, {len(j)} and {len(weight)}")
    if len(i) and (min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= n):
        raise GfvizError(f"an edge names a node outside 0..{n - 1}")
    if not np.isfinite(weight).all():
        raise GfvizError("edge weights must be finite numbers")
    keep = (weight > 0) & (i != j)
    return i[keep], j[keep], weight[keep]


def _linked_layout(n: int, i, j, weight, random: np.random.Generator, rounds: int) -> np.ndarray:
    strength = np.bincount(i, weight, n) + np.bincount(j, weight, n)
    # Weights span decades; relative to what both ends carry, a weak node's only edge still holds it.
    pull = np.sqrt(weight / np.sqrt(strength[i] * strength[j]))
    pull /= pull.max()
    at = _spectral_start(n, i, j, weight / np.sqrt(strength[i] * strength[j]), random)
    at = _forces(at, i, j, pull, random, rounds)
    at -= np.median(at, 0)
    reach = np.quantile(np.hypot(at[:, 0], at[:, 1]), 0.98)
    at /= reach if reach > 0 else 1.0
    away = np.hypot(at[:, 0], at[:, 1])
    # A few far outliers would shrink everything else on the screen: compress what lies beyond the disc.
    beyond = away > 1
    at[beyond] *= ((1 + 0.08 * np.log1p(away[beyond] - 1)) / away[beyond])[:, None]
    return at


def _spectral_start(n: int, i, j, normalised, random: np.random.Generator) -> np.ndarray:
    noise = random.normal(scale=0.05, size=(n, 2))
    if n <= 3:
        return RADIUS * np.stack([np.cos(np.arange(n) * 2.1), np.sin(np.arange(n) * 2.1)], 1)
    adjacency = sparse.coo_array((normalised, (i, j)), shape=(n, n)).tocsr()
    adjacency = adjacency + adjacency.T
    try:
        start = np.full(n, 1 / np.sqrt(n))
        _, vectors = eigsh(adjacency, k=3, which="LA", v0=start, tol=1e-3, maxiter=300, **_seeded(random))
        plane = vectors[:, [1, 0]]
    except ArpackError:
        # Nearly equal eigenvalues (many separate pieces): the forces sort out a random start as well.
        return random.normal(scale=RADIUS / 2, size=(n, 2))
    # Ranks instead of raw coordinates: eigenvectors of a graph with hubs put most nodes into one point.
    ranks = np.argsort(np.argsort(plane + 1e-9 * noise, axis=0, kind="stable"), axis=0, kind="stable") / (n - 1) - 0.5
    return RADIUS * (0.7 * ranks + 0.3 * plane / np.abs(plane).max(0)) + noise


def _seeded(random: np.random.Generator) -> dict[str, Any]:
    """What ARPACK goes on with where its start leads nowhere (a graph in pieces); older scipy draws it unasked."""
    return {"rng": random} if "rng" in signature(eigsh).parameters else {}


def _forces(at: np.ndarray, i, j, pull, random: np.random.Generator, rounds: int) -> np.ndarray:
    n = len(at)
    load = np.bincount(i, pull, n) + np.bincount(j, pull, n)
    # Repulsion in proportion to what a node's edges pull, as when every pull draws its own negative samples.
    push = 1.5 * load / NEGATIVES + 0.25
    # By how many places the nodes are turned against themselves to meet those that push them.
    shifts = random.integers(1, n, size=(rounds, NEGATIVES)) if n > 1 else np.zeros((rounds, NEGATIVES), np.int64)
    at = np.ascontiguousarray(at.T)
    code = native.library(len(i))
    if code is None:
        _forces_in_numpy(at, i, j, pull, push, shifts)
    else:
        # Names of their own: a copy has to be there until the call is over.
        i, j, pull = (np.ascontiguousarray(each) for each in (i, j, pull))
        if code.gfviz_forces(n, len(i), *pointers(i, j, pull, push), rounds, NEGATIVES, *pointers(shifts, *at)):
            raise MemoryError(f"no memory for the layout of {n} nodes")
    return at.T.copy()


def _forces_in_numpy(at: np.ndarray, i, j, pull, push, shifts: np.ndarray) -> None:
    """The twin of `gfviz_forces` in forces.c, which moves `at` [2, n] in place: the same sums in the same order."""
    everyone = np.arange(at.shape[1])
    for step, turns in enumerate(shifts):
        rate = 1.0 - step / len(shifts)
        move = np.empty_like(at)
        apart = at[:, i] - at[:, j]
        drawn = -2.0 * pull / (1.0 + (apart**2).sum(0))
        for axis in range(2):
            force = np.clip(drawn * apart[axis], -4, 4)
            move[axis] = np.bincount(i, force, len(everyone)) - np.bincount(j, force, len(everyone))
        for turn in turns:
            away = at - at[:, (everyone + turn) % len(everyone)]
            square = (away**2).sum(0)
            move += np.clip(push * 2.0 / ((0.05 + square) * (1.0 + square)) * away, -4, 4)
        move -= 0.004 * at
        length = np.sqrt((move**2).sum(0))
        # Hubs add up hundreds of pulls: bound the step, not the force.
        at += rate * move * np.minimum(1.0, 2.0 / np.maximum(length, 1e-12))
