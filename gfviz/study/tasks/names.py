"""Names and things that the stories are about: three letters each, so that every prompt stays short."""

import random
from collections.abc import Sequence

PEOPLE = ("Ann", "Bob", "Cal", "Dee", "Eve", "Fay", "Gus", "Hal")
THINGS = ("cup", "hat", "pen", "map", "key", "bag", "fan", "toy")


def pick(rng: random.Random, pool: Sequence[str], count: int) -> list[str]:
    """Draw `count` different entries of `pool`, in random order.

    >>> sorted(pick(random.Random(0), ("a", "b"), 2))
    ['a', 'b']
    """
    return rng.sample(pool, count)
