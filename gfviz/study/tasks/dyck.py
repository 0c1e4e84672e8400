"""Dyck languages: close what is still open, in the right order."""

import random
from fractions import Fraction
from itertools import product

from gfviz.study.tasks.base import Example, Family, Instance, Solution

_CLOSER = {"(": ")", "[": "]", "{": "}"}
_OPENERS = tuple(_CLOSER)
_DEEPEST = 4
_LONGEST = 16


def _written(closers: list[str]) -> Solution:
    text = " ".join(closers)
    return Solution(f" {text}", text)


def _closed(rng: random.Random, pairs: int) -> list[str]:
    """Draw a balanced sequence of `pairs` pairs."""
    if pairs == 0:
        return []
    inside = rng.randrange(pairs)
    opener = _OPENERS[rng.randrange(len(_OPENERS))]
    return [opener, *_closed(rng, inside), _CLOSER[opener], *_closed(rng, pairs - 1 - inside)]


class Dyck(Family):
    """Up to 16 brackets of three kinds, one to four of them open at the end (each depth equally often).

    >>> example = Dyck().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Finish { ( ( ) ) { ( ) { } :', ' } }')
    """

    name = "dyck"
    title = "Dyck languages"
    leads = ("Close ", "Complete ", "Finish ", "Balance ", "End ")
    tails = (" .", " ?", " :", " ;", " !")
    chance = float(Fraction(1, sum(len(_OPENERS) ** depth for depth in range(1, _DEEPEST + 1))))
    # The best constant is any single closer: one depth in four, then one kind in three.
    majority = float(Fraction(1, _DEEPEST * len(_OPENERS)))

    def candidates(self, example: Example) -> tuple[str, ...]:
        depths = range(1, _DEEPEST + 1)
        return tuple(" ".join(closers) for depth in depths for closers in product(_CLOSER.values(), repeat=depth))

    def draw(self, rng: random.Random, aim: float) -> Instance:
        stack = [_OPENERS[rng.randrange(len(_OPENERS))] for _ in range(1 + int(aim * _DEEPEST))]
        gaps = [0] * (len(stack) + 1)
        for _ in range(1 + rng.randrange((_LONGEST - len(stack)) // 2)):
            gaps[rng.randrange(len(gaps))] += 1
        marks = _closed(rng, gaps[0])
        for opener, pairs in zip(stack, gaps[1:]):
            marks += [opener, *_closed(rng, pairs)]
        closers = [_CLOSER[opener] for opener in reversed(stack)]
        return Instance(" ".join(marks), "", _written(closers), _mistakes(closers))


def _mistakes(closers: list[str]) -> tuple[Solution, ...]:
    """Slips that look like answers: the last closer of another kind, the order reversed, one closer missing."""
    kinds = list(_CLOSER.values())
    other = kinds[(kinds.index(closers[-1]) + 1) % len(kinds)]
    slips = [[*closers[:-1], other], closers[::-1], closers[:-1], [*closers[:-1], kinds[kinds.index(other) - 2]]]
    different: list[list[str]] = []
    for slip in slips:
        if slip and slip != closers and slip not in different:
            different.append(slip)
    return tuple(_written(slip) for slip in different[:3])
