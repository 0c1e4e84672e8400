"""Multi-step arithmetic over one-digit numbers, with the steps written out."""

import functools
import operator
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product

from gfviz.study.tasks.base import ARROW, Example, Family, Instance, Solution

# A node is a position among the four digits, or (operator, left, right).
Node = int | tuple[str, "Node", "Node"]

_OPERATORS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_SHAPES: tuple[tuple[str, Node], ...] = (
    ("({}+{})*{}-{}", ("-", ("*", ("+", 0, 1), 2), 3)),
    ("({}-{})*{}+{}", ("+", ("*", ("-", 0, 1), 2), 3)),
    ("{}*({}+{})-{}", ("-", ("*", 0, ("+", 1, 2)), 3)),
    ("{}*({}-{})+{}", ("+", ("*", 0, ("-", 1, 2)), 3)),
    ("{}*{}+{}-{}", ("-", ("+", ("*", 0, 1), 2), 3)),
    ("{}+{}*{}-{}", ("-", ("+", 0, ("*", 1, 2)), 3)),
    ("{}*{}-{}*{}", ("-", ("*", 0, 1), ("*", 2, 3))),
    ("{}*{}+{}*{}", ("+", ("*", 0, 1), ("*", 2, 3))),
    ("({}+{})*{}+{}", ("+", ("*", ("+", 0, 1), 2), 3)),
    ("{}-{}+{}*{}", ("+", ("-", 0, 1), ("*", 2, 3))),
    ("{}+{}-({}-{})", ("-", ("+", 0, 1), ("-", 2, 3))),
    ("({}+{})*({}-{})", ("*", ("+", 0, 1), ("-", 2, 3))),
)
_LARGEST = 99


def _evaluate(node: Node, digits: tuple[int, ...], steps: list[tuple[str, int]]) -> int | None:
    # None where a step leaves 0..99: two digits are what a small model can write.
    if isinstance(node, int):
        return digits[node]
    sign, left, right = node
    a = _evaluate(left, digits, steps)
    b = _evaluate(right, digits, steps)
    if a is None or b is None:
        return None
    value = _OPERATORS[sign](a, b)
    steps.append((f"{a}{sign}{b}", value))
    return value if 0 <= value <= _LARGEST else None


def _written(steps: list[tuple[str, int]], result: int) -> Solution:
    parts = [f"{left}={value}" for left, value in steps[:-1]] + [f"{steps[-1][0]}={result}"]
    return Solution(f" {', '.join(parts)} {ARROW} {result}", str(result))


class Arithmetic(Family):
    """Three operations on four digits, every intermediate result from 0 to 99.

    >>> example = Arithmetic().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Solve 6-1+8*4!', ' 6-1=5, 8*4=32, 5+32=37 -> 37')
    """

    name = "arithmetic"
    title = "multi-step arithmetic with written steps"
    leads = ("Compute ", "Reckon ", "Find ", "Evaluate ", "Solve ")
    tails = (".", "?", ":", ";", "!")

    @property
    def chance(self) -> float:  # type: ignore[override]
        return 1 / len(self.candidates(Example("", "", "", self.name)))

    @property
    def majority(self) -> float:
        counts = _result_counts()
        return max(counts.values()) / counts.total()

    def candidates(self, example: Example) -> tuple[str, ...]:
        return tuple(str(value) for value in sorted(_result_counts()))

    def draw(self, rng: random.Random, aim: float) -> Instance:
        while True:
            form, node = _SHAPES[rng.randrange(len(_SHAPES))]
            digits = tuple(rng.randrange(1, 10) for _ in range(4))
            steps: list[tuple[str, int]] = []
            result = _evaluate(node, digits, steps)
            if result is None:
                continue
            # Mistakes are slips in the last step, as a careless reckoner makes them.
            slips = [result + 1, result - 1 if result else 2, result + 10 if result < 90 else result - 10]
            return Instance(form.format(*digits), "", _written(steps, result), tuple(_written(steps, s) for s in slips))


def _all_results() -> Iterator[int]:
    for _, node in _SHAPES:
        for digits in product(range(1, 10), repeat=4):
            result = _evaluate(node, digits, [])
            if result is not None:
                yield result


@functools.cache
def _result_counts() -> Counter[int]:
    return Counter(_all_results())
