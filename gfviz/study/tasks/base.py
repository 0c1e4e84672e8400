"""What every task family shares: examples, splits that cannot overlap, wrong answers, unsure answers, files."""

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text, read_small_text

SPLITS = ("train", "validation", "test")
ARROW = "->"
# Hundredths of the instance space up to which the hash of an instance falls into each split.
_SHARES = {"train": 70, "validation": 85, "test": 100}
# Draws in a row without a new instance of the split after which a family counts as exhausted.
_PATIENCE = 5000
# A word before the prompt tells how sure its answer is: the probability of the right one.
HEDGES = {"Surely": 0.9, "Likely": 0.7, "Maybe": 0.5}


@dataclass(frozen=True)
class Solution:
    """A written answer (`text`, beginning with one space) and the final answer in it (`target`)."""

    text: str
    target: str


@dataclass(frozen=True)
class Example:
    """One task: a model reads `prompt` and writes `answer`; exact match compares `extract` of that with `target`.

    `prompt + answer` is the whole text: the answer brings its own leading space. `mistakes` are wrong answers in the
    right form, the likeliest first.
    """

    prompt: str
    answer: str
    target: str
    family: str
    mistakes: tuple[Solution, ...] = ()


@dataclass(frozen=True)
class AmbiguousExample(Example):
    """An example whose answer was drawn: `answers[i]` had probability `probabilities[i]`, the right answer first."""

    answers: tuple[Solution, ...] = ()
    probabilities: tuple[float, ...] = ()

    @property
    def distribution(self) -> dict[str, float]:
        """Final answer → probability; sums to 1."""
        return {answer.target: share for answer, share in zip(self.answers, self.probabilities)}


@dataclass(frozen=True)
class Template:
    """The words around an instance: `lead + body + tail`, with the query written into the tail."""

    lead: str
    tail: str

    def render(self, body: str, query: str) -> str:
        """Write the prompt.

        >>> Template("Now ", " Who has {query}?").render("Ann cup.", "cup")
        'Now Ann cup. Who has cup?'
        """
        return self.lead + body + self.tail.format(query=query)


@dataclass(frozen=True)
class Instance:
    """What a prompt is about, without its wording. `body` and `query` together identify it."""

    body: str
    query: str
    solution: Solution
    mistakes: tuple[Solution, ...]

    @property
    def key(self) -> str:
        return f"{self.body}|{self.query}"


def extract(text: str) -> str:
    """Return the final answer in a written one: what follows the last arrow of the first line, or that whole line.

    >>> extract(" 3+5=8, 8*2=16 -> 16"), extract(" True"), extract(" 1+1=2 ->")
    ('16', 'True', '')
    """
    lines = text.strip().splitlines()
    return lines[0].rpartition(ARROW)[2].strip() if lines else ""


def split_of(family: str, key: str) -> str:
    """Return the one split to which an instance belongs: its hash decides, so no instance is in two of them.

    >>> split_of("boolean", "True or False|") == split_of("boolean", "True or False|")
    True
    """
    digest = hashlib.sha256(f"{family}\0{key}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") % 100
    return next(split for split, end in _SHARES.items() if share < end)


class Family(ABC):
    """A task family: draws instances, words them, and knows what a guess would score.

    `chance` is the expected exact match of a guess drawn uniformly from `candidates(example)`; `majority` is that of
    the best constant answer. Both are exact for the distribution that `examples` draws from, up to the hash that
    picks a split.
    """

    name: str
    title: str
    leads: tuple[str, ...]
    tails: tuple[str, ...]
    chance: float

    @property
    @abstractmethod
    def majority(self) -> float:
        """Expected exact match of the best constant answer."""

    @abstractmethod
    def draw(self, rng: random.Random, aim: float) -> Instance:
        """Draw one instance, whatever its split.

        `aim`, uniform on [0, 1), fixes what repeated draws for one example must not change: the value or depth
        that the family balances, which rejection of known or foreign instances would tilt otherwise.
        """

    @abstractmethod
    def candidates(self, example: Example) -> tuple[str, ...]:
        """Return every final answer that someone could give who knows the family and the names in the prompt."""

    def templates(self, split: str) -> tuple[Template, ...]:
        """Return the wordings of one split: pairs of lead and tail, no pair in two splits, every word in all of them.

        Of the square of leads × tails, one diagonal is for validation, one for test and the rest for training.
        """
        _check_split(split)
        diagonal = {0: "validation", 1: "test"}
        return tuple(
            Template(lead, tail)
            for i, lead in enumerate(self.leads)
            for j, tail in enumerate(self.tails)
            if diagonal.get((i + j) % len(self.tails), "train") == split
        )

    def examples(self, split: str, count: int, seed: int = 0) -> list[Example]:
        """Return `count` different examples of one split; the same arguments give the same list on any machine.

        Raises `GfvizError` for an unknown split, a negative count, or a count beyond what the family holds.
        """
        return self._draw_many(split, count, f"{self.name}/{split}/{seed}")

    def ambiguous(self, split: str, count: int, seed: int = 0) -> list[AmbiguousExample]:
        """Return examples whose answer is uncertain, with the distribution that it was drawn from.

        The prompt begins with a word of `HEDGES`, which gives the probability of the right answer; the first mistake
        gets two thirds of the rest and the second one third (all of it where there is but one). A model trained on
        enough of them becomes a teacher that is unsure to a known degree.
        """
        rng = random.Random(f"{self.name}/hedge/{split}/{seed}")
        return [_hedged(example, rng) for example in self._draw_many(split, count, f"{self.name}/sure/{split}/{seed}")]

    def _draw_many(self, split: str, count: int, stream: str) -> list[Example]:
        _check_split(split)
        if count < 0:
            raise GfvizError(f"cannot make {count} examples of '{self.name}': ask for 0 or more")
        templates = self.templates(split)
        rng = random.Random(stream)
        found: dict[str, Example] = {}
        aim, fruitless = rng.random(), 0
        while len(found) < count:
            instance = self.draw(rng, aim)
            if instance.key not in found and split_of(self.name, instance.key) == split:
                found[instance.key] = self._word(instance, templates[rng.randrange(len(templates))])
                aim, fruitless = rng.random(), 0
                continue
            fruitless += 1
            if fruitless == _PATIENCE:
                raise GfvizError(f"'{self.name}' does not hold {count} different {split} examples: ask for fewer")
        return list(found.values())

    def _word(self, instance: Instance, template: Template) -> Example:
        prompt = template.render(instance.body, instance.query)
        return Example(prompt, instance.solution.text, instance.solution.target, self.name, instance.mistakes)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise GfvizError(f"unknown split '{split}': use one of {', '.join(SPLITS)}")


def _hedged(example: Example, rng: random.Random) -> AmbiguousExample:
    words = list(HEDGES)
    hedge = words[rng.randrange(len(words))]
    sure = HEDGES[hedge]
    answers = (Solution(example.answer, example.target), *example.mistakes[:2])
    rest = (2 / 3, 1 / 3) if len(answers) == 3 else (1.0,)
    probabilities = (sure, *((1 - sure) * share for share in rest))
    point = rng.random()
    drawn = answers[-1]
    for answer, share in zip(answers, probabilities):
        if point < share:
            drawn = answer
            break
        point -= share
    return AmbiguousExample(
        f"{hedge}: {example.prompt}", drawn.text, drawn.target, example.family, example.mistakes, answers, probabilities
    )


def label_noise(examples: Sequence[Example], fraction: float, seed: int = 0) -> list[Example]:
    """Return the examples with wrong answers on exactly round(`fraction` · count) of them, the rest untouched.

    A wrong answer is one of the example's own `mistakes`: in the right form, with the wrong result. Raises
    `GfvizError` for a fraction outside [0, 1] and for examples that carry no mistakes.

    >>> right = Example("1+1", " 2", "2", "toy", (Solution(" 3", "3"),))
    >>> [e.target for e in label_noise([right] * 4, 0.5, seed=1)].count("3")
    2
    """
    if not 0.0 <= fraction <= 1.0:
        raise GfvizError(f"label noise of {fraction} is no fraction: use a number from 0 to 1")
    rng = random.Random(f"noise/{seed}")
    wrong = set(rng.sample(range(len(examples)), round(fraction * len(examples))))
    noisy = []
    for index, example in enumerate(examples):
        if index not in wrong:
            noisy.append(example)
            continue
        if not example.mistakes:
            raise GfvizError(f"example {index} ('{example.prompt}') has no wrong answers to take: add 'mistakes' to it")
        mistake = example.mistakes[rng.randrange(len(example.mistakes))]
        noisy.append(replace(example, answer=mistake.text, target=mistake.target))
    return noisy


def write_jsonl(path: str | Path, examples: Iterable[Example]) -> None:
    """Write examples one JSON object a line (family, prompt, answer, target, mistakes), whole or not at all."""
    atomic_write_text(path, "".join(to_json(example) + "\n" for example in examples))


def to_json(example: Example) -> str:
    """Return an example as one line of JSON.

    >>> to_json(Example("1+1", " 2", "2", "toy"))
    '{"family": "toy", "prompt": "1+1", "answer": " 2", "target": "2", "mistakes": []}'
    """
    fields = {
        "family": example.family,
        "prompt": example.prompt,
        "answer": example.answer,
        "target": example.target,
        "mistakes": [[mistake.text, mistake.target] for mistake in example.mistakes],
    }
    return json.dumps(fields, ensure_ascii=False)


def read_jsonl(path: str | Path) -> list[Example]:
    """Read what `write_jsonl` wrote. Raises `GfvizError` naming the line that is not such an object."""
    path = Path(path)
    try:
        # str.splitlines would also break at U+2028, inside a JSON string too.
        lines = read_small_text(path, 1 << 30).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GfvizError(f"cannot read the examples in {path}: {error}") from error
    return [_from_json(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _from_json(line: str, where: str) -> Example:
    try:
        fields = json.loads(line)
        prompt, answer, target, family = (fields[name] for name in ("prompt", "answer", "target", "family"))
        mistakes = [Solution(text, target) for text, target in fields.get("mistakes", [])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GfvizError(f"{where}: not an example with prompt, answer, target and family ({error})") from error
    strings = [prompt, answer, target, family, *(m.text for m in mistakes), *(m.target for m in mistakes)]
    if not all(isinstance(value, str) for value in strings):
        raise GfvizError(f"{where}: prompt, answer, target, family and mistakes must be strings")
    return Example(prompt, answer, target, family, tuple(mistakes))
