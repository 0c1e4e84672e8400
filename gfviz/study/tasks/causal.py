"""Causal judgement: would it have happened without this person?"""

import random

from gfviz.study.tasks.base import Example, Family, Instance, Solution
from gfviz.study.tasks.names import PEOPLE, pick

_EVENTS = ("bell rings", "lamp glows", "door opens", "horn blows", "gate lifts", "fan spins")
_NEEDED = {"any press": 1, "two press": 2, "all press": 3}


def _happens(needed: int, veto: int | None, pressing: frozenset[int]) -> bool:
    return veto not in pressing and len(pressing) >= needed


def _described(people: list[str], pressing: frozenset[int]) -> str:
    does = ", ".join(name for index, name in enumerate(people) if index in pressing)
    waits = ", ".join(name for index, name in enumerate(people) if index not in pressing)
    said = ([f"{does} {'press' if len(pressing) > 1 else 'presses'}"] if does else []) + (
        [f"{waits} {'wait' if len(people) - len(pressing) > 1 else 'waits'}"] if waits else []
    )
    return "; ".join(said)


class Causal(Family):
    """Three people may press; a rule says how many it takes, or whose press stops it. Did one of them cause it?

    Yes means: it happened, and had that person not acted it would not have happened (the but-for test of actual
    causation). Yes and No come equally often.

    >>> example = Causal().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('See: fan spins if two press. Dee, Gus press; Fay waits. Thanks to Dee?', ' Yes')
    """

    name = "causal"
    title = "causal judgement"
    leads = ("Say: ", "Now: ", "See: ", "Set: ", "Law: ")
    tails = (" Due to {query}?", " Thanks to {query}?", " Down to {query}?", " Owing to {query}?", " Thus by {query}?")
    chance = 0.5
    majority = 0.5

    def candidates(self, example: Example) -> tuple[str, ...]:
        return ("No", "Yes")

    def draw(self, rng: random.Random, aim: float) -> Instance:
        wanted = aim < 0.5
        while True:
            people = pick(rng, PEOPLE, 3)
            rules = list(_NEEDED)
            rule = rules[rng.randrange(len(rules))]
            needed = _NEEDED[rule]
            veto = rng.randrange(3) if needed < 3 and rng.randrange(2) else None
            pressing = frozenset(index for index in range(3) if rng.randrange(2))
            asked = rng.randrange(3)
            happened = _happens(needed, veto, pressing)
            caused = happened and asked in pressing and not _happens(needed, veto, pressing - {asked})
            if caused == wanted:
                break
        event = _EVENTS[rng.randrange(len(_EVENTS))]
        unless = f", not {people[veto]}" if veto is not None else ""
        right, wrong = ("Yes", "No") if caused else ("No", "Yes")
        body = f"{event} if {rule}{unless}. {_described(people, pressing)}."
        return Instance(body, people[asked], Solution(f" {right}", right), (Solution(f" {wrong}", wrong),))
