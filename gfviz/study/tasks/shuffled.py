"""Tracking shuffled objects: three people, three things, two or three swaps."""

import random
from fractions import Fraction

from gfviz.study.tasks.base import ARROW, Example, Family, Instance, Solution
from gfviz.study.tasks.names import PEOPLE, THINGS, pick

_PAIRS = ((0, 1), (0, 2), (1, 2))


def _written(trace: list[str]) -> Solution:
    return Solution(f" {', '.join(trace)} {ARROW} {trace[-1]}", trace[-1])


class Shuffled(Family):
    """Who holds the thing in the end? The written steps name its holder at the start and after each swap.

    >>> example = Shuffled().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Say: hat Dee, toy Ann, cup Fay; swap Dee Ann, Ann Fay, Ann Fay. Who keeps hat?', ' Dee, Ann, Fay, Ann -> Ann')
    """

    name = "shuffled"
    title = "tracking shuffled objects"
    leads = ("Say: ", "Now: ", "See: ", "Set: ", "Let: ")
    tails = (
        " Who has {query}?",
        " Who gets {query}?",
        " Who holds {query}?",
        " Who keeps {query}?",
        " Who owns {query}?",
    )
    chance = float(Fraction(1, 3))
    # Every name is as likely as any other to be among the three and to be the holder.
    majority = float(Fraction(1, len(PEOPLE)))

    def candidates(self, example: Example) -> tuple[str, ...]:
        return tuple(name for name in PEOPLE if name in example.prompt)

    def draw(self, rng: random.Random, aim: float) -> Instance:
        people = pick(rng, PEOPLE, 3)
        things = pick(rng, THINGS, 3)
        swaps = [_PAIRS[rng.randrange(3)] for _ in range(2 + rng.randrange(2))]
        start = rng.randrange(3)
        holder, trace = start, [people[start]]
        for a, b in swaps:
            holder = b if holder == a else a if holder == b else holder
            trace.append(people[holder])
        # Things are written in the order of their holders, so the last swap is what a slip gets wrong.
        given = ", ".join(f"{thing} {person}" for person, thing in zip(people, things))
        moves = ", ".join(f"{people[a]} {people[b]}" for a, b in swaps)
        others = [name for name in people if name != trace[-1]]
        if rng.randrange(2):
            others.reverse()
        mistakes = tuple(_written([*trace[:-1], name]) for name in others)
        return Instance(f"{given}; swap {moves}.", things[start], _written(trace), mistakes)
