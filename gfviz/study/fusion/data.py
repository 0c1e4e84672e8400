"""The examples of one regime and seed: the same for every method, so that methods are compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gfviz.fusion.data import Example, as_examples, read_examples, write_examples
from gfviz.fusion.rows import SignalDtype
from gfviz.study.fusion.models import load, tasks_of
from gfviz.study.fusion.plan import Regime, StudySize
from gfviz.study.tasks import label_noise

SIGNAL_DTYPE: SignalDtype = "float16"


@dataclass(frozen=True)
class GroupData:
    """Examples of one regime and seed.

    labelled: with their labels, wrong ones among them; distilled: the texts on which teachers are read (the labelled
    ones, or in a regime of few labels the pivot's own answers to all prompts); answered: the same prompts with the
    teacher's greedy answers. models, caches: folder of each teacher, and of its signals over `distilled`.
    """

    labelled: list[Example]
    distilled: list[Example]
    answered: list[Example]
    models: dict[str, Path]
    caches: dict[str, Path]


def group_folder(out: Path, stage: str, regime: str, seed: int) -> Path:
    """Where the data of a regime and seed lie."""
    return out / "data" / f"{stage}-{regime}-{seed:03d}"


def ensure_group(out: Path, size: StudySize, regime: Regime, stage: str, seed: int, device: str) -> GroupData:
    """Examples and teachers' signals of a group, made where they are not there yet.

    Cost: a greedy answer of the teacher to each prompt, and one forward pass of each teacher over each text.
    """
    folder = group_folder(out, stage, regime.name, seed)
    names = ("labelled", "distilled", "answered")
    files = {name: folder / f"{name}.jsonl" for name in names}
    caches = {name: folder / name for name in ("teacher", "twin")}
    if not (folder / "complete").is_file():
        _make(out, size, regime, stage, seed, device, files, caches)
        (folder / "complete").write_text("1\n")
    labelled, distilled, answered = (read_examples([files[name]]) for name in names)
    models = {name: out / "models" / name for name in caches}
    return GroupData(labelled, distilled, answered, models, caches)


def _make(
    out: Path,
    size: StudySize,
    regime: Regime,
    stage: str,
    seed: int,
    device: str,
    files: dict[str, Path],
    caches: dict[str, Path],
) -> None:
    from gfviz.fusion.cache import build_cache

    labelled, prompts = _examples(size, regime, seed)
    teacher = load(out / "models" / "teacher", device)
    distilled = labelled
    if regime.few:
        distilled = _answers(load(out / "models" / f"pivot-{stage}", device), prompts, size)
    write_examples(files["labelled"], labelled)
    write_examples(files["distilled"], distilled)
    write_examples(files["answered"], _answers(teacher, prompts, size))
    for name, folder in caches.items():
        loaded = teacher if name == "teacher" else load(out / "models" / name, device)
        build_cache(loaded, distilled, folder, k=size.k, dtype=SIGNAL_DTYPE, shard_examples=4096)


def _examples(size: StudySize, regime: Regime, seed: int) -> tuple[list[Example], list[Example]]:
    """The labelled examples, and all prompts that the teacher may be asked (labels there are never read)."""
    count = size.few if regime.few else size.labelled
    tasks = tasks_of(size, "train", count + (size.unlabelled if regime.few else 0), 100 + seed, regime.hedged)
    each = len(tasks) // len(size.families)
    with_labels = [task for place, task in enumerate(tasks) if place % each < count]
    noisy = label_noise(with_labels, regime.noise, seed) if regime.noise else with_labels
    return as_examples(noisy), as_examples(tasks)


def _answers(model: object, prompts: Sequence[Example], size: StudySize) -> list[Example]:
    """The prompts with a model's own greedy answers; an empty one becomes a mark: an example must have an answer."""
    from gfviz.capture.models import LoadedModel
    from gfviz.fusion.evaluation import generate
    from gfviz.fusion.tokenise import ExampleEncoder

    assert isinstance(model, LoadedModel)
    model.model.eval()
    written = generate(
        model.model, ExampleEncoder(model.tokenizer), [prompt.prompt for prompt in prompts], 200, 4 * size.longest
    )
    return [
        replace(prompt, answer=f" {answer.strip()}" if answer.strip() else " ?")
        for prompt, answer in zip(prompts, written)
    ]
