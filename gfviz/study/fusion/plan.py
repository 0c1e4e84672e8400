"""What a study of each size holds: models, regimes, methods, and the list of cells, written before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gfviz.errors import GfvizError
from gfviz.study.fusion.families import SHORT
from gfviz.study.sample_tokenizers import TokenizerKind
from gfviz.study.tasks import FAMILIES, Family

Kind = Literal["pivot", "sft", "answers", "distil"]
CONTROLS = ("one-hot", "shuffled")
ALL_FAMILIES: dict[str, Family] = {**FAMILIES, **SHORT}


@dataclass(frozen=True)
class Regime:
    """What the labels and the teacher are like.

    hedged: prompts say how sure their answer is, and the teacher has learned the distribution (unsure); else it is
    saturated. noise: share of wrong labels on top. few: few labelled prompts beside unlabelled ones, on which the
    distillation reads the pivot's own answers. young: with a pivot that was stopped early in its training, so that
    there is more to learn from the teacher, and with more of the unlabelled prompts (see `Young`).
    """

    name: str
    about: str
    labels: Literal["clean", "noisy"]
    hedged: bool = False
    noise: float = 0.0
    few: bool = False
    young: bool = False


REGIMES: dict[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime("sure-clean", "saturated teacher, right labels", "clean"),
        Regime("sure-noisy", "saturated teacher, 40% wrong labels", "noisy", noise=0.4),
        Regime("unsure-drawn", "unsure teacher, labels drawn from what it is unsure about", "clean", hedged=True),
        Regime("unsure-noisy", "unsure teacher, drawn labels, 40% wrong on top", "noisy", hedged=True, noise=0.4),
        Regime("few-clean", "few right labels and unlabelled prompts, saturated teacher", "clean", few=True),
        Regime("few-noisy", "few labels, 40% wrong, and unlabelled prompts", "noisy", noise=0.4, few=True),
        Regime(
            "young-clean",
            "a pivot that has more to learn, few right labels, many unlabelled prompts",
            "clean",
            few=True,
            young=True,
        ),
    )
}


@dataclass(frozen=True)
class Method:
    """One way to train. `ours`: a structure loss of gfviz; `without`: the same run without the structure loss.

    temperature: divides the logits of teacher and pivot before they are compared. renew: the pivot writes its own
    answers to the unlabelled prompts anew every so many steps (on-policy text); 0: once, before training.
    """

    name: str
    kind: Kind = "distil"
    token: str = "none"
    structure: str = "none"
    beta: float = 0.0
    lam: float = 0.8
    twin: bool = False
    temperature: float = 1.0
    renew: int = 0
    control: Literal["none", "one-hot", "shuffled"] = "none"
    base: str = ""

    @property
    def ours(self) -> bool:
        """Whether a structure loss takes part (and this is no control)."""
        return self.structure != "none" and self.control == "none"

    @property
    def without(self) -> str:
        """The same run without its structure loss."""
        return {"none": "sft", "kl": "kl-same"}.get(self.token, self.token)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of its controls."""
        distils = self.kind == "distil" and self.control == "none"
        return tuple(f"{self.name} {control}" for control in CONTROLS) if distils else ()

    def controlled(self, control: Literal["one-hot", "shuffled"]) -> Method:
        """The same loss with the teacher taken out of its signal."""
        return replace(self, name=f"{self.name} {control}", control=control, base=self.name)


def _methods() -> dict[str, Method]:
    plain = (
        Method("pivot", "pivot"),
        Method("sft", "sft"),
        Method("answers", "answers"),
        Method("kl-same", token="kl", twin=True),
        Method("uld", token="uld"),
        Method("alm", token="alm"),
        Method("gld-sorted", structure="sorted", beta=100.0),
        Method("gld-centred", structure="centred", beta=5.0),
        Method("gld-spectral", structure="spectral", beta=5.0),
        Method("gld-entries", structure="entries", beta=5.0),
        Method("gld-anchored", structure="anchored", beta=5.0),
        Method("uld+gld-sorted", token="uld", structure="sorted", beta=100.0),
        Method("uld+gld-spectral", token="uld", structure="spectral", beta=5.0),
        Method("alm+gld-anchored", token="alm", structure="anchored", beta=5.0),
        Method("gld-anchored-t2", structure="anchored", beta=5.0, temperature=2.0),
        Method("gld-anchored-renewed", structure="anchored", beta=5.0, renew=10),
    )
    found = {method.name: method for method in plain}
    for method in plain:
        if method.kind == "distil":
            found |= {f"{method.name} {c}": method.controlled(c) for c in ("one-hot", "shuffled")}
    return found


METHODS = _methods()


@dataclass(frozen=True)
class ModelPlan:
    """A model that the study trains: its tokenizer, its shape, how long and on how many examples of each family."""

    tokenizer: TokenizerKind
    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    steps: int
    copying: int
    batch: int
    rate: float
    examples: int


@dataclass(frozen=True)
class Young:
    """The regime of a young pivot: how far that is trained, unlabelled prompts a family, and the fusion's own rate."""

    pivot: ModelPlan
    unlabelled: int
    rate: float


@dataclass(frozen=True)
class StudySize:
    """A size of the study.

    labelled: examples a family with labels (`few`: of those regimes, which have `unlabelled` prompts beside them);
    tests: held-out examples a family; tiers: methods and regimes, the most informative first; seeds, fresh: those of
    the study and of the confirmation; finalists: cells of the first tier to confirm for each kind of labels, before the
    other tiers; again: seeds for the one cell that each kind of labels without a confirmed one may try once more, after
    the whole list. attempts: methods and regimes that are run after all that; after each tier of them, where a kind of
    labels is still without a confirmed cell, its best has the seeds `again` too. young: what the young regime has of
    its own.
    """

    name: str
    families: tuple[str, ...]
    context: int
    pivot: ModelPlan
    teacher: ModelPlan
    twin: ModelPlan
    labelled: int
    few: int
    unlabelled: int
    tests: int
    steps: int
    batch: int
    rate: float
    k: int
    longest: int
    seeds: tuple[int, ...]
    fresh: tuple[int, ...]
    tiers: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    finalists: int = 1
    again: tuple[int, ...] = ()
    attempts: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    young: Young | None = None

    @property
    def evidence(self) -> bool:
        """Whether the numbers mean anything: the smoke size only shows that everything runs."""
        return self.name != "smoke"

    def within(self, regime: Regime) -> StudySize:
        """The size as a run of a regime has it. Raises `GfvizError` for a young one where the size has none."""
        if not regime.young:
            return self
        if self.young is None:
            raise GfvizError(f"size {self.name} has no young pivot: the regime {regime.name!r} cannot be run")
        return replace(self, pivot=self.young.pivot, unlabelled=self.young.unlabelled, rate=self.young.rate)


@dataclass(frozen=True)
class Cell:
    """One run: a method in a regime at a seed; `stage` is "study" or "confirm"."""

    regime: str
    method: str
    seed: int
    stage: Literal["study", "confirm"] = "study"

    @property
    def key(self) -> str:
        """Name of the file that keeps it."""
        return f"{self.stage}-{self.regime}-{self.method}-{self.seed:03d}".replace(" ", "_").replace("+", "_and_")


def _with_controls(*names: str) -> tuple[str, ...]:
    return tuple(part for name in names for part in (name, *METHODS[name].controls))


_SHORT = tuple(sorted(SHORT))
_PIVOT = ModelPlan("metaspace-bpe", 512, 96, 2, 4, 256, 1000, 100, 32, 3e-3, 500)
_TEACHER = ModelPlan("byte-bpe", 355, 112, 4, 4, 288, 1500, 100, 32, 3e-3, 1000)
_TWIN = replace(_TEACHER, tokenizer="metaspace-bpe", vocabulary=512)
_FIRST = ("sft", *_with_controls("gld-anchored"), "answers", "kl-same")
_OTHERS = (
    *("uld", "alm", "gld-sorted", "gld-spectral", "alm+gld-anchored", "uld+gld-sorted", "gld-centred", "gld-entries"),
    *METHODS["gld-spectral"].controls,
    *METHODS["uld"].controls,
    *METHODS["gld-sorted"].controls,
)
_ATTEMPTS = _with_controls("gld-anchored-t2", "gld-anchored-renewed")
# The losses of `_OTHERS` that had run without controls.
_REST = ("kl-same", "alm", "alm+gld-anchored", "uld+gld-sorted", "gld-centred", "gld-entries")
_CONTROLS = tuple(part for name in _REST for part in METHODS[name].controls)

SIZES: dict[str, StudySize] = {
    "smoke": StudySize(
        name="smoke", families=_SHORT, context=64, pivot=replace(_PIVOT, steps=80, copying=40, batch=16),
        teacher=replace(_TEACHER, width=96, layers=2, heads=4, steps=200, batch=16, examples=300),
        twin=replace(_TWIN, width=96, layers=2, heads=4, steps=200, batch=16, examples=300),
        labelled=16, few=8, unlabelled=8, tests=25, steps=12, batch=16, rate=1e-3, k=32, longest=8,
        seeds=(0, 1, 2), fresh=(50, 51, 52),
        tiers=(((*_with_controls("gld-anchored", "gld-spectral"), "sft", "answers", "kl-same"), ("unsure-noisy",)),),
        finalists=0,
    ),
    "cpu": StudySize(
        name="cpu", families=_SHORT, context=64, pivot=_PIVOT, teacher=_TEACHER, twin=_TWIN,
        labelled=128, few=24, unlabelled=104, tests=250, steps=80, batch=24, rate=5e-4, k=32, longest=8,
        seeds=(0, 1, 2, 3, 4), fresh=(50, 51, 52, 53, 54), again=tuple(range(50, 60)),
        tiers=(
            (_FIRST, ("unsure-noisy", "unsure-drawn")),
            (_OTHERS, ("unsure-noisy", "unsure-drawn")),
            (_FIRST, ("sure-noisy", "few-clean", "sure-clean")),
        ),
        attempts=(
            (_FIRST, ("young-clean",)),
            (_ATTEMPTS, ("few-clean",)),
            (_CONTROLS, ("unsure-noisy", "unsure-drawn")),
        ),
        young=Young(replace(_PIVOT, steps=300), 400, 1e-3),
    ),
    "gpu": StudySize(
        name="gpu", families=tuple(FAMILIES), context=192,
        pivot=ModelPlan("metaspace-bpe", 2048, 320, 6, 5, 896, 800, 200, 64, 1e-3, 2000),
        teacher=ModelPlan("byte-bpe", 1024, 512, 8, 8, 1408, 1200, 300, 128, 6e-4, 12000),
        twin=ModelPlan("metaspace-bpe", 2048, 512, 8, 8, 1408, 1200, 300, 128, 6e-4, 12000),
        labelled=400, few=100, unlabelled=500, tests=200, steps=100, batch=64, rate=3e-4, k=64, longest=40,
        seeds=(0, 1, 2, 3, 4), fresh=(50, 51, 52, 53, 54),
        tiers=(((*_with_controls("gld-anchored"), "sft", "answers", "kl-same"), ("unsure-noisy", "few-clean")),),
    ),
}  # fmt: skip


def study_size(name: str) -> StudySize:
    """The size of this name. Raises `GfvizError` for another."""
    if name not in SIZES:
        raise GfvizError(f"size = {name!r} is unknown: choose one of {', '.join(SIZES)}")
    return SIZES[name]


def planned_cells(size: StudySize, tiers: int | None = None) -> list[Cell]:
    """The runs of the first `tiers` tiers, the attempts counted behind them (all if left out), in their order: tier by
    tier, then seed by seed.

    The unfused pivot stands first in every regime and seed.
    """
    found: dict[Cell, None] = {}
    for methods, regimes in (*size.tiers, *size.attempts)[:tiers]:
        for seed in size.seeds:
            for regime in regimes:
                found |= dict.fromkeys(Cell(regime, method, seed) for method in ("pivot", *methods))
    return list(found)


def confirmation_cells(seeds: Sequence[int], finalists: Sequence[tuple[str, str]]) -> list[Cell]:
    """Runs on fresh seeds, with a pivot of their own: each finalist beside all that it has to beat, then the rest of
    the table."""
    needed: dict[Cell, None] = {}
    beside: dict[Cell, None] = {}
    for seed in seeds:
        for regime, name in finalists:
            rivals = ("sft", name, *METHODS[name].controls, METHODS[name].without)
            needed |= dict.fromkeys(Cell(regime, rival, seed, "confirm") for rival in rivals)
            beside |= dict.fromkeys(Cell(regime, rival, seed, "confirm") for rival in ("pivot", "answers", "kl-same"))
    return list(needed | beside)


def plan_rows(size: StudySize) -> list[Mapping[str, object]]:
    """The list of cells as a table: one row per regime and method, with its seeds and settings, in order."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for cell in planned_cells(size):
        method = METHODS[cell.method]
        key = (cell.regime, cell.method)
        if key not in rows:
            rows[key] = {
                "regime": cell.regime, "labels": REGIMES[cell.regime].labels, "method": cell.method,
                "token": method.token, "structure": method.structure, "control": method.control,
                "beta": method.beta, "temperature": method.temperature, "renew": method.renew,
                "lambda": method.lam if method.kind in ("distil", "answers") else 0.0,
                "teacher": "twin" if method.twin else "teacher" if method.kind in ("distil", "answers") else "none",
                "runs": 0,
            }  # fmt: skip
        rows[key]["runs"] = int(str(rows[key]["runs"])) + 1
    return list(rows.values())
