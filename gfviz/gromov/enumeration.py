"""Every permutation of a small assignable pair, pruned by partial sums: the exact distance."""

from __future__ import annotations

import numpy as np

from gfviz.gromov.problem import Problem

LIMIT = 9
"""Largest n that is enumerated (9! = 362 880 permutations before pruning)."""


def enumerate_matches(problem: Problem, upper: float) -> np.ndarray | None:
    """The best permutation of an assignable pair, or None where none beats `upper` (on GW_2²) by more than rounding.

    Permutations are built node by node, all prefixes at once. A prefix whose own terms (all non-negative) already
    exceed the best known value is dropped with its continuations: nothing else is.
    """
    c, d = problem.a.dense, problem.b.dense
    n = len(c)
    order = np.argsort(-np.abs(c).sum(axis=1), kind="stable")
    c = c[np.ix_(order, order)]
    limit = (upper + problem.margin) * n * n
    prefixes, totals = np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    for depth in range(n):
        free = np.ones((len(prefixes), n), dtype=bool)
        np.put_along_axis(free, prefixes, False, axis=1)
        parent, image = np.nonzero(free)
        chosen = prefixes[parent]
        gap = c[depth, :depth] - d[image[:, None], chosen]
        total = totals[parent] + 2 * np.einsum("sk,sk->s", gap, gap) + (c[depth, depth] - d[image, image]) ** 2
        keep = total <= limit
        prefixes, totals = np.hstack([chosen[keep], image[keep][:, None]]), total[keep]
    if not len(totals):
        return None
    match = np.empty(n, dtype=np.int64)
    match[order] = prefixes[int(totals.argmin())]
    return match
