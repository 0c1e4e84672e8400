"""Boolean expressions of True, False, and, or, not and brackets."""

import random

from gfviz.study.tasks.base import Example, Family, Instance, Solution

_LEAVES = 4
# How tightly the outermost operator of a text binds, loosest first.
_OR, _AND, _NOT, _ATOM = range(4)


def _bracket(text: str, binding: int, least: int) -> str:
    return text if binding >= least else f"({text})"


def _expression(rng: random.Random, leaves: int) -> tuple[str, int, bool]:
    """Draw an expression: its text, how tightly it binds, its value."""
    if leaves == 1:
        value = rng.randrange(2) == 1
        text, binding = str(value), _ATOM
    else:
        left = 1 + rng.randrange(leaves - 1)
        text_a, binding_a, a = _expression(rng, left)
        text_b, binding_b, b = _expression(rng, leaves - left)
        if rng.randrange(2):
            text = f"{_bracket(text_a, binding_a, _AND)} and {_bracket(text_b, binding_b, _NOT)}"
            binding, value = _AND, a and b
        else:
            text = f"{_bracket(text_a, binding_a, _OR)} or {_bracket(text_b, binding_b, _AND)}"
            binding, value = _OR, a or b
    if binding != _NOT and rng.randrange(3) == 0:
        return f"not {_bracket(text, binding, _NOT)}", _NOT, not value
    return text, binding, value


class Boolean(Family):
    """Four truth values under and, or, not; True and False equally often.

    >>> example = Boolean().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Find not True or False and not (False and True):', ' False')
    """

    name = "boolean"
    title = "boolean expressions"
    leads = ("Compute ", "Reckon ", "Find ", "Evaluate ", "Solve ")
    tails = (".", "?", ":", ";", "!")
    chance = 0.5
    majority = 0.5

    def candidates(self, example: Example) -> tuple[str, ...]:
        return ("False", "True")

    def draw(self, rng: random.Random, aim: float) -> Instance:
        wanted = aim < 0.5
        while True:
            text, _, value = _expression(rng, _LEAVES)
            if value == wanted and len(text) <= 56:
                right, wrong = (Solution(f" {truth}", str(truth)) for truth in (value, not value))
                return Instance(text, "", right, (wrong,))
