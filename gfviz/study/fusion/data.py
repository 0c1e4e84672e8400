"""The examples of one regime and seed: the same for every method, so that methods are compared pair by pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gfviz.files import atomic_write_text
from gfviz.fusion.data import Example, as_examples, read_examples, write_examples
from gfviz.fusion.rows import SignalDtype
from gfviz.study.fusion.models import load, pivot_folder, tasks_of
from gfviz.study.fusion.plan import Method, Regime, StudySize
from gfviz.study.tasks import label_noise

if TYPE_CHECKING:
    from gfviz.capture.models import LoadedModel

SIGNAL_DTYPE: SignalDtype = "float16"


@dataclass(frozen=True)
class GroupData:
    """Examples of one regime and seed.

    labelled: with their labels, wrong ones among them; distilled: the texts on which teachers are read (the labelled
    ones, or in a regime of few labels the pivot's own answers to all prompts); answered: the same prompts with the
    teacher's greedy answers, where a method asked for them. models: folder of each teacher; caches: of their signals
    over `distilled`, by `cache_name`.
    """

    labelled: list[Example]
    distilled: list[Example]
    answered: list[Example]
    models: dict[str, Path]
    caches: dict[str, Path]


def cache_name(method: Method) -> str:
    """Which teacher's signals a method reads, and at which temperature.

    >>> cache_name(Method("x")), cache_name(Method("y", twin=True, temperature=2.0))
    ('teacher', 'twin-t2')
    """
    side = "twin" if method.twin else "teacher"
    return side if method.temperature == 1 else f"{side}-t{method.temperature:g}"


def group_folder(out: Path, stage: str, regime: str, seed: int) -> Path:
    """Where the data of a regime and seed lie."""
    return out / "data" / f"{stage}-{regime}-{seed:03d}"


def ensure_group(
    out: Path, size: StudySize, regime: Regime, stage: str, seed: int, device: str, methods: Iterable[Method]
) -> GroupData:
    """Examples and teachers' signals of a group, as far as `methods` need them, made where they are not there yet.

    `size` is that of the regime (`StudySize.within`). Texts that a method renews have no signals beforehand.

    Cost: for `answers` a greedy answer of the teacher to each prompt; one forward pass of a teacher over each text.
    """
    folder = group_folder(out, stage, regime.name, seed)
    asked = list(methods)
    files = {name: folder / f"{name}.jsonl" for name in ("labelled", "distilled", "answered")}
    models = {name: out / "models" / name for name in ("teacher", "twin")}
    if not files["distilled"].is_file():
        labelled, prompts = _examples(size, regime, seed)
        pivot = pivot_folder(out, regime, stage)
        write_examples(files["labelled"], labelled)
        write_examples(files["distilled"], answers_of(load(pivot, device), prompts, size) if regime.few else labelled)
    labelled, distilled = (read_examples([files[name]]) for name in ("labelled", "distilled"))
    answered: list[Example] = []
    if any(method.kind == "answers" for method in asked):
        if not files["answered"].is_file():
            prompts = _examples(size, regime, seed)[1]
            write_examples(files["answered"], answers_of(load(models["teacher"], device), prompts, size))
        answered = read_examples([files["answered"]])
    caches: dict[str, Path] = {}
    for method in asked:
        name = cache_name(method)
        if method.kind == "distil" and not method.renew and name not in caches:
            caches[name] = folder / name
            _ensure_cache(models["twin" if method.twin else "teacher"], distilled, caches[name], size, method, device)
    return GroupData(labelled, distilled, answered, models, caches)


def _ensure_cache(
    model: Path, texts: list[Example], folder: Path, size: StudySize, method: Method, device: str
) -> None:
    from gfviz.fusion.cache import build_cache

    if not (folder / "complete").is_file():
        # One shard: a cache that is cut short is made again as a whole.
        build_cache(
            load(model, device), texts, folder, k=size.k, dtype=SIGNAL_DTYPE, temperature=method.temperature,
            shard_examples=1 << 20,
        )  # fmt: skip
        atomic_write_text(folder / "complete", "1\n")


def _examples(size: StudySize, regime: Regime, seed: int) -> tuple[list[Example], list[Example]]:
    """The labelled examples, and all prompts that the teacher may be asked (labels there are never read)."""
    count = size.few if regime.few else size.labelled
    tasks = tasks_of(size, "train", count + (size.unlabelled if regime.few else 0), 100 + seed, regime.hedged)
    each = len(tasks) // len(size.families)
    with_labels = [task for place, task in enumerate(tasks) if place % each < count]
    noisy = label_noise(with_labels, regime.noise, seed) if regime.noise else with_labels
    return as_examples(noisy), as_examples(tasks)


def answers_of(model: LoadedModel, prompts: Sequence[Example], size: StudySize) -> list[Example]:
    """The prompts with a model's own greedy answers; an empty one becomes a mark: an example must have an answer.

    The model is left in evaluation mode.
    """
    from gfviz.fusion.evaluation import generate
    from gfviz.fusion.tokenise import ExampleEncoder

    model.model.eval()
    written = generate(
        model.model, ExampleEncoder(model.tokenizer), [prompt.prompt for prompt in prompts], 200, 4 * size.longest
    )
    return [
        replace(prompt, answer=f" {answer.strip()}" if answer.strip() else " ?")
        for prompt, answer in zip(prompts, written)
    ]
