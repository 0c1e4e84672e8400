"""Task families in the style of BIG-Bench Hard, small enough for models of a million parameters.

A family makes examples of three splits that cannot overlap: the hash of an instance decides its split, and each split
has wordings of its own. Chance rate and majority baseline are known, so a score means something.

>>> sorted(FAMILIES)
['arithmetic', 'boolean', 'causal', 'dyck', 'shuffled']
"""

import random
from collections.abc import Sequence

from gfviz.errors import GfvizError
from gfviz.study.tasks.arithmetic import Arithmetic
from gfviz.study.tasks.base import (
    HEDGES,
    SPLITS,
    AmbiguousExample,
    Example,
    Family,
    Instance,
    Solution,
    Template,
    extract,
    label_noise,
    read_jsonl,
    split_of,
    to_json,
    write_jsonl,
)
from gfviz.study.tasks.boolean import Boolean
from gfviz.study.tasks.causal import Causal
from gfviz.study.tasks.dyck import Dyck
from gfviz.study.tasks.shuffled import Shuffled

FAMILIES: dict[str, Family] = {
    family.name: family for family in (Arithmetic(), Boolean(), Causal(), Dyck(), Shuffled())
}

__all__ = [
    "FAMILIES",
    "HEDGES",
    "SPLITS",
    "AmbiguousExample",
    "Example",
    "Family",
    "Instance",
    "Solution",
    "Template",
    "extract",
    "label_noise",
    "make_split",
    "read_jsonl",
    "split_of",
    "to_json",
    "write_jsonl",
]


def make_split(families: Sequence[str], split: str, count: int, seed: int = 0) -> list[Example]:
    """Return `count` examples of one split, the families in equal parts (the first ones take the remainder), mixed.

    Raises `GfvizError` for a family that does not exist, and whatever `Family.examples` raises.

    >>> [example.family for example in make_split(["boolean", "dyck"], "test", 3)].count("boolean")
    2
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        named = f"unknown task family '{unknown[0]}'" if unknown else "no task family named"
        raise GfvizError(f"{named}: use some of {', '.join(FAMILIES)}")
    each, left = divmod(count, len(families))
    mixed: list[Example] = []
    for index, name in enumerate(families):
        mixed += FAMILIES[name].examples(split, each + (index < left), seed)
    random.Random(f"mix/{split}/{seed}").shuffle(mixed)
    return mixed
