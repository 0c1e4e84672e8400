"""The models of the study: a teacher with another tokenizer, a twin with the pivot's, pivots; trained once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text
from gfviz.fusion.data import Example, as_examples
from gfviz.study.fusion.plan import ALL_FAMILIES, ModelPlan, Regime, StudySize
from gfviz.study.sample_specs import ModelSpec
from gfviz.study.tasks import Example as Task

if TYPE_CHECKING:
    from gfviz.capture.models import LoadedModel

# Models learn from other draws than runs do; a pivot has a number of its own in the confirmation.
_TEACHER_DATA, _PIVOT_DATA = 9001, 9100
TEST_SEED = 0


_NAMES = ("teacher", "twin", "pivot-study", "pivot-confirm", "young-study", "young-confirm")


def model_names(size: StudySize) -> tuple[str, ...]:
    """Folders of the models: the teacher, its twin, and pivots of the study and of the confirmation."""
    return _NAMES if size.young is not None else _NAMES[:4]


def pivot_folder(out: Path, regime: Regime, stage: str) -> Path:
    """Where the pivot lies that a regime's runs of a stage start from."""
    return out / "models" / f"{'young' if regime.young else 'pivot'}-{stage}"


def tasks_of(size: StudySize, split: str, count: int, seed: int, hedged: bool) -> list[Task]:
    """`count` examples of each family, plain or hedged with a drawn answer."""
    found: list[Task] = []
    for name in size.families:
        family = ALL_FAMILIES[name]
        found += family.ambiguous(split, count, seed) if hedged else family.examples(split, count, seed)
    return found


@lru_cache(maxsize=4)
def test_examples(size: StudySize, hedged: bool) -> tuple[Example, ...]:
    """The held-out examples of all families; the target is always the right answer, however unsure the prompt."""
    from gfviz.study.tasks import AmbiguousExample

    found = []
    for task in tasks_of(size, "test", size.tests, TEST_SEED, hedged):
        if isinstance(task, AmbiguousExample):
            right = task.answers[0]
            task = replace(task, answer=right.text, target=right.target)
        found.append(task)
    return tuple(as_examples(found))


def ensure_model(name: str, size: StudySize, out: Path, device: str, report: Callable[[str], None]) -> Path:
    """The folder of a model, trained and scored first where it is missing. Raises `GfvizError` for an unknown name."""
    if name not in model_names(size):
        raise GfvizError(f"the study has no model {name!r}: {', '.join(model_names(size))}")
    folder = out / "models" / name
    if (folder / "scores.json").is_file():
        return folder
    young = size.pivot if size.young is None else size.young.pivot
    plans = {"teacher": size.teacher, "twin": size.twin, "young-study": young, "young-confirm": young}
    plan = plans.get(name, size.pivot)
    seed = 1 + _NAMES.index(name)
    tokenizer = _tokenizer(name, size, plan)
    from gfviz.study.sample_models import build_model, save_model
    from gfviz.study.sample_training import Schedule, copy_batches, task_batches, train

    examples = _training_data(name, size, plan)
    model = build_model(_spec(name, size, plan, seed), tokenizer)
    _move(model, device)
    total = plan.copying + plan.steps
    texts = [task.prompt + task.answer for task in examples]
    copies = copy_batches(texts[:: max(1, len(texts) // 1000)], tokenizer, plan.batch, seed)
    batches = chain(islice(copies, plan.copying), task_batches(examples, tokenizer, plan.batch, seed))

    def after_step(step: int, loss: float) -> None:
        if step % max(1, total // 10) == 0:
            report(f"{name}: step {step} of {total}, loss {loss:.3f}")

    train(model, batches, Schedule(total, plan.rate), after_step)
    scores: dict[str, object] = {"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}
    scores |= score(model, tokenizer, size, name)
    save_model(folder, model, tokenizer, f"# {name} of the fusion study, size {size.name}\n", scores)
    return folder


def score(model: Any, tokenizer: Any, size: StudySize, name: str) -> dict[str, Any]:
    """Exact match on the held-out plain and hedged prompts, and the mean probability of the likeliest answer token."""
    from gfviz.fusion.evaluation import evaluate_loaded

    found: dict[str, Any] = {}
    for kind, hedged in (("plain", False), ("hedged", True)):
        report = evaluate_loaded(
            model, tokenizer, test_examples(size, hedged), name, batch_size=200, max_new_tokens=4 * size.longest
        )
        found[kind] = {
            "exact_match": report.exact_match,
            "nll": report.nll,
            "ece": report.ece,
            "families": {family: value.exact_match for family, value in report.families.items()},
        }
    return found


def load(folder: Path, device: str) -> LoadedModel:
    """A model of the study on its device."""
    from gfviz.capture.models import load_model

    return load_model(folder, device)


def model_scores(out: Path) -> dict[str, Any]:
    """What the models of a study score, by name."""
    return {
        name: json.loads((out / "models" / name / "scores.json").read_text("utf-8"))
        for name in _NAMES
        if (out / "models" / name / "scores.json").is_file()
    }


def write_scores(out: Path) -> None:
    """Keep all models' scores in one file beside the tables."""
    atomic_write_text(out / "models.json", json.dumps(model_scores(out), indent=2) + "\n")


def _training_data(name: str, size: StudySize, plan: ModelPlan) -> list[Task]:
    seed = _TEACHER_DATA if name in ("teacher", "twin") else _PIVOT_DATA + _NAMES.index(name)
    return tasks_of(size, "train", plan.examples, seed, False) + tasks_of(size, "train", plan.examples, seed, True)


def _tokenizer(name: str, size: StudySize, plan: ModelPlan) -> Any:
    from gfviz.study.sample_tokenizers import train_tokenizer

    # One set of texts for all: the twin's tokenizer must be the pivots' own, to the last id.
    tasks: Sequence[Task] = tasks_of(size, "train", 400, _TEACHER_DATA, True)
    texts = [task.prompt + task.answer for task in tasks]
    return train_tokenizer(plan.tokenizer, texts, plan.vocabulary, size.context, symbols_apart=True)


def _spec(name: str, size: StudySize, plan: ModelPlan, seed: int) -> ModelSpec:
    return ModelSpec(
        name=name, purpose="", kind="task", architecture="qwen3" if name == "twin" else "llama",
        tokenizer=plan.tokenizer, vocabulary=plan.vocabulary, width=plan.width, layers=plan.layers, heads=plan.heads,
        inner=plan.inner, context=size.context, steps=plan.steps, batch=plan.batch, rate=plan.rate, seed=seed,
    )  # fmt: skip


def _move(model: Any, device: str) -> None:
    from gfviz.fusion.prepare import move_model

    move_model(model, device)
