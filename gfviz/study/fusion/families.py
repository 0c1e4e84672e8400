"""Short task families: a dozen tokens each, so that a run of some seconds teaches a model of 0.3M parameters something.

They are families in the sense of `gfviz.study.tasks` (splits that cannot overlap, wordings of their own, wrong answers
in the right form, hedged prompts with a known distribution of answers), only shorter than those.

>>> sorted(SHORT)
['brackets', 'count', 'middle', 'sum']
"""

import math
import random

from gfviz.study.tasks import Example, Family, Instance, Solution
from gfviz.study.tasks.names import PEOPLE, THINGS, pick

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_LETTERS = ("a", "b", "c")
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_WORDS = tuple(sorted((*(name.lower() for name in PEOPLE), *THINGS)))


def _solution(text: str) -> Solution:
    return Solution(f" {text}", text)


class Sum(Family):
    """Two numbers whose sum has two digits.

    >>> example = Sum().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Sum 42 10;', ' 52')
    """

    name = "sum"
    title = "sums below a hundred"
    leads = ("Add ", "Sum ", "Plus ", "Total ", "Tally ")
    tails = (".", "?", ":", ";", "!")
    chance = 1 / 100

    @property
    def majority(self) -> float:
        return 100 / 5050

    def candidates(self, example: Example) -> tuple[str, ...]:
        return tuple(f"{value:02d}" for value in range(100))

    def draw(self, rng: random.Random, aim: float) -> Instance:
        # Every pair equally often, so that drawing without repeats tilts nothing; `aim` has nothing to fix.
        first, second = sorted(rng.sample(range(101), 2))
        total, first = second - 1, first
        slips = [total + 1 if total < 99 else 97, total - 1 if total else 2, total + 10 if total < 90 else total - 10]
        mistakes = tuple(_solution(f"{slip:02d}") for slip in slips)
        return Instance(f"{first:02d} {total - first:02d}", "", _solution(f"{total:02d}"), mistakes)


class Count(Family):
    """How often a letter stands among six.

    >>> example = Count().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('See: a c a b c c. Much a?', ' two')
    """

    name = "count"
    title = "counting letters"
    leads = ("Say: ", "Now: ", "See: ", "Set: ", "Let: ")
    tails = (". Many {query}?", ". Much {query}?", ". Number {query}?", ". Amount {query}?", ". Times {query}?")
    chance = 1 / len(_NUMBERS)

    @property
    def majority(self) -> float:
        return math.comb(6, 2) * 2**4 / 3**6

    def candidates(self, example: Example) -> tuple[str, ...]:
        return _NUMBERS

    def draw(self, rng: random.Random, aim: float) -> Instance:
        letters = [_LETTERS[rng.randrange(3)] for _ in range(6)]
        asked = _LETTERS[rng.randrange(3)]
        count = letters.count(asked)
        slips = [count + 1, count - 1] if 0 < count < 6 else [1, 2] if count == 0 else [5, 4]
        return Instance(
            " ".join(letters), asked, _solution(_NUMBERS[count]), tuple(_solution(_NUMBERS[slip]) for slip in slips)
        )


class Middle(Family):
    """Which of three words stands between the others in the dictionary.

    >>> example = Middle().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('From hat toy pen the middle:', ' pen')
    """

    name = "middle"
    title = "the middle one of three words"
    leads = ("Of ", "From ", "Among ", "Within ", "Out of ")
    tails = (" the middle.", " the middle?", " the middle:", " the middle;", " the middle!")
    chance = 1 / 3

    @property
    def majority(self) -> float:
        rank = len(_WORDS) // 2
        return rank * (len(_WORDS) - 1 - rank) / math.comb(len(_WORDS), 3)

    def candidates(self, example: Example) -> tuple[str, ...]:
        return tuple(word for word in example.prompt.split() if word in _WORDS)

    def draw(self, rng: random.Random, aim: float) -> Instance:
        words = pick(rng, _WORDS, 3)
        low, middle, high = sorted(words)
        mistakes = (low, high) if rng.randrange(2) else (high, low)
        return Instance(" ".join(words), "", _solution(middle), tuple(map(_solution, mistakes)))


class Brackets(Family):
    """Close what is open: up to ten brackets, one to three of them open at the end (a sixth, a third, a half).

    >>> example = Brackets().examples("train", 1)[0]
    >>> example.prompt, example.answer
    ('Complete [ { } ( ) [ ] { } :', ' ]')
    """

    name = "brackets"
    title = "closing brackets"
    leads = ("Close ", "Complete ", "Finish ", "Balance ", "End ")
    tails = (" .", " ?", " :", " ;", " !")
    chance = 1 / (3 + 9 + 27)
    majority = 1 / 18

    def candidates(self, example: Example) -> tuple[str, ...]:
        found = [""]
        shorter = [""]
        for _ in range(3):
            shorter = [f"{one} {closer}".strip() for one in shorter for closer in _CLOSER.values()]
            found += shorter
        return tuple(found[1:])

    def draw(self, rng: random.Random, aim: float) -> Instance:
        stack = [list(_CLOSER)[rng.randrange(3)] for _ in range(1 + (aim > 1 / 6) + (aim > 1 / 2))]
        marks = []
        room = (10 - len(stack)) // 2
        for opener in stack:
            marks.append(opener)
            for _ in range(rng.randrange(room + 1)):
                inner = list(_CLOSER)[rng.randrange(3)]
                marks += [inner, _CLOSER[inner]]
                room -= 1
        closers = [_CLOSER[opener] for opener in reversed(stack)]
        kinds = list(_CLOSER.values())
        place = kinds.index(closers[-1])
        slips = [[*closers[:-1], kinds[(place + step) % 3]] for step in (1, 2)]
        return Instance(
            " ".join(marks), "", _solution(" ".join(closers)), tuple(_solution(" ".join(slip)) for slip in slips)
        )


SHORT: dict[str, Family] = {family.name: family for family in (Sum(), Count(), Middle(), Brackets())}
