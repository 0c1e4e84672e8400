"""What a study of each size holds: which families, how many pairs of which n, and how much effort a pair is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gfviz.errors import GfvizError
from gfviz.study.validate.families import SYNTHETIC, Family
from gfviz.study.validate.methods import Effort
from gfviz.study.validate.models import Trace, largest_size

MODEL_FAMILIES = ("model-rank", "model-token", "model-token-whole", "checkpoints")
TEN_SECONDS_AT = 12
"""The n at which a budget of ten seconds is asked to prove the distance."""


@dataclass(frozen=True)
class StudySize:
    """A size of the study: `pairs` maps n to pairs a family, `power_one` the same for p = 1 (a few families).

    `thorough_up_to`, `rungs_up_to`: largest n for the budget "thorough" and for rungs alone at `rung_limit` seconds
    (above it, a tenth); `texts` read by each model; `ks` and `positions` of the choice of k.
    """

    name: str
    pairs: Mapping[int, int]
    power_one: Mapping[int, int]
    thorough_up_to: int
    rung_limit: float
    rungs_up_to: int
    texts: int
    ks: Sequence[int]
    positions: Sequence[int]


SIZES = {
    size.name: size
    for size in (
        StudySize("smoke", {6: 2, 9: 1, 24: 1}, {6: 1}, 9, 0.2, 24, 16, (4, 16, 64), (32, 128)),
        StudySize(
            "cpu",
            {6: 3, 8: 12, 9: 3, 12: 3, 16: 2, 32: 2, 64: 2, 128: 1, 256: 1},
            {8: 1, 16: 1},
            64,
            0.5,
            64,
            96,
            (4, 8, 16, 32, 64, 128),
            (16, 64, 256, 1024),
        ),
        StudySize(
            "full",
            {6: 24, 7: 24, 8: 60, 9: 24, 12: 24, 16: 12, 24: 12, 32: 24, 64: 16, 128: 8, 256: 4, 512: 2},
            {8: 12, 16: 6, 32: 3},
            256,
            10.0,
            256,
            200,
            (4, 8, 16, 32, 64, 128),
            (16, 64, 256, 1024, 4096),
        ),
    )
}


@dataclass(frozen=True, order=True)
class Cell:
    """The smallest unit that is computed and kept: one pair at one p."""

    n: int
    p: float
    index: int
    family: str

    @property
    def key(self) -> str:
        return f"{self.family}-p{self.p:g}-n{self.n:04d}-{self.index:03d}"


def study_size(name: str) -> StudySize:
    """The size of this name. Raises `GfvizError` for another."""
    if name not in SIZES:
        raise GfvizError(f"size = {name!r} is unknown: choose one of {', '.join(SIZES)}")
    return SIZES[name]


def check_families(asked: Sequence[str] | None, models: int, checkpoints: int) -> None:
    """Refuse an unknown family, or one for which there are too few models, before any model is run."""
    for name in asked or ():
        if name not in SYNTHETIC and name not in MODEL_FAMILIES:
            known = ", ".join([*SYNTHETIC, *MODEL_FAMILIES])
            raise GfvizError(f"the family {name!r} is unknown: choose among {known}")
        if name == "checkpoints" and checkpoints < 2:
            raise GfvizError("the family 'checkpoints' needs the folder of a model's checkpoints: pass checkpoints=DIR")
        if name in MODEL_FAMILIES and name != "checkpoints" and models < 2:
            raise GfvizError(f"the family {name!r} needs at least two models: pass the folder that holds them")


def cells(size: StudySize, families: Mapping[str, Family], traces: Mapping[str, Sequence[Trace]]) -> list[Cell]:
    """All cells of a study, smallest n first, so that an interrupted study holds something of everything."""
    found = []
    for name, family in families.items():
        room = largest_size(name, traces[name]) if family.kind == "model" else None
        for p, counts in ((2.0, size.pairs), (1.0, size.power_one)):
            found += [
                Cell(n, p, index, name)
                for n, count in counts.items()
                if room is None or n <= room
                for index in range(count)
            ]
    return sorted(found)


def effort(size: StudySize, cell: Cell) -> Effort:
    """How much is spent on a cell: every budget the size allows; more is looked at on the first pair."""
    budgets: list[str | float] = ["fast", "standard"]
    if cell.n <= size.thorough_up_to:
        budgets.append("thorough")
    if cell.n == TEN_SECONDS_AT and cell.p == 2:
        budgets.append(10.0)
    limit = size.rung_limit if cell.n <= size.rungs_up_to else size.rung_limit / 10
    return Effort(tuple(budgets), limit, first=cell.index == 0)
