"""From a configuration to everything that training needs: models loaded, examples encoded, losses chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gfviz.capture.models import LoadedModel, load_model
from gfviz.errors import GfvizError
from gfviz.fusion.align import align, pair_in_order
from gfviz.fusion.batch import Collator, TeacherPart, TrainingExample
from gfviz.fusion.config import FusionConfig, ModelConfig, TeacherConfig
from gfviz.fusion.data import Example
from gfviz.fusion.objective import Objective, TeacherTerm, chosen_losses, make_structure_loss, make_token_loss
from gfviz.fusion.teachers import OnlineTeacher, check_width
from gfviz.fusion.tokenise import Encoded, ExampleEncoder
from gfviz.fusion.vocabularies import require_same, require_shared, shared_tokens


@dataclass
class Coverage:
    """How well a teacher's positions meet the pivot's: aligned pairs over the pivot's answer positions."""

    examples: int
    positions: int
    pairs: int

    @property
    def share(self) -> float:
        """pairs / positions."""
        return self.pairs / max(self.positions, 1)


@dataclass
class Prepared:
    """What a session trains on; `dropped` examples were longer than allowed."""

    config: FusionConfig
    pivot: LoadedModel
    encoder: ExampleEncoder
    objective: Objective
    collator: Collator
    train: list[TrainingExample]
    probe: list[TrainingExample]
    evaluation: list[Example]
    k: int
    dropped: int
    coverage: dict[str, Coverage] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def online(self) -> list[OnlineTeacher]:
        """The teachers that are models in memory."""
        return [term.source for term in self.objective.terms if isinstance(term.source, OnlineTeacher)]


def prepare(config: FusionConfig, train: Sequence[Example], evaluation: Sequence[Example]) -> Prepared:
    """Load, encode and align. Raises `GfvizError` naming the key for whatever does not fit together.

    Cost: the models' memory, and one tokenization of the data per tokenizer.
    """
    if not train:
        raise GfvizError("data.train: no training examples: name JSONL files with prompt and answer")
    pivot = _load(config.pivot, "pivot", None if config.training.device == "auto" else "cpu")
    encoder = ExampleEncoder(pivot.tokenizer, config.data.chat_template)
    if config.training.gradient_checkpointing:
        pivot.model.gradient_checkpointing_enable({"use_reentrant": False})
    teachers = {teacher.name: _load(teacher, f"teachers.{teacher.name}", teacher.device) for teacher in config.teachers}
    sizes = {"the pivot": logit_width(pivot)} | {f"teacher {n}": logit_width(t) for n, t in teachers.items()}
    k = check_width(config.loss.k, sizes)
    encoders = {
        name: ExampleEncoder(teacher.tokenizer, config.data.chat_template) for name, teacher in teachers.items()
    }
    limit = _limit(config, [pivot, *teachers.values()])
    encoded, dropped = _encode(config, train, encoder, encoders, limit)
    probe_from = evaluation if evaluation else train
    probe, _ = _encode(config, probe_from[: config.graph.examples], encoder, encoders, limit, probe=True)
    terms = [_term(config, teacher, teachers[teacher.name], pivot, encoders, encoder, k) for teacher in config.teachers]
    objective = Objective(config.loss.lam, terms)
    collator = Collator(
        pad_id(pivot), {name: pad_id(teacher) for name, teacher in teachers.items()},
        config.training.padding_side, config.training.pad_multiple,
    )  # fmt: skip
    coverage = {teacher.name: _coverage(encoded, teacher) for teacher in config.teachers}
    facts = {
        "vocabularies": {"pivot": encoder.vocabulary.identity} | {n: e.vocabulary.identity for n, e in encoders.items()}
    }
    return Prepared(
        config, pivot, encoder, objective, collator, encoded, probe, list(evaluation), k, dropped, coverage, facts
    )


def _load(config: ModelConfig, key: str, device: str | None) -> LoadedModel:
    dtype = None if config.dtype == "auto" else config.dtype
    try:
        # On the CPU first: the trainer decides where models go, and sharding must not find them on a device.
        return load_model(config.model, device or "cpu", dtype, config.trust_remote_code)
    except GfvizError as error:
        raise GfvizError(f"{key}.model: {error}") from error


def move_model(model: Any, device: Any) -> None:
    """Move a model in place."""
    model.to(device)


def logit_width(loaded: LoadedModel) -> int:
    """Width of a model's logits, which may exceed its tokenizer."""
    return int(loaded.model.get_output_embeddings().weight.shape[0])


def pad_id(loaded: LoadedModel) -> int:
    """An id to pad with; attention never sees it."""
    return int(loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else 0)


def _limit(config: FusionConfig, models: list[LoadedModel]) -> int:
    contexts = [loaded.context for loaded in models if loaded.context is not None]
    context = min(contexts) if contexts else 2**31
    if config.data.max_length is not None and config.data.max_length > context:
        raise GfvizError(
            f"data.max_length: {config.data.max_length} exceeds the shortest context of the models ({context})"
        )
    return config.data.max_length or context


def _encode(
    config: FusionConfig,
    examples: Sequence[Example],
    encoder: ExampleEncoder,
    encoders: dict[str, ExampleEncoder],
    limit: int,
    probe: bool = False,
) -> tuple[list[TrainingExample], int]:
    """Encode for every model; drop what is too long for any of them. Returns the examples and how many were dropped."""
    kept: list[tuple[Example, Encoded, dict[str, Encoded]]] = []
    for example in examples:
        ours = encoder.encode(example)
        routed = [t.name for t in config.teachers if t.domains is None or example.family in t.domains]
        theirs = {name: encoders[name].encode(example) for name in routed}
        if max(len(item.ids) for item in (ours, *theirs.values())) <= limit:
            kept.append((example, ours, theirs))
    dropped = len(examples) - len(kept)
    if not probe and (not kept or (dropped and config.data.too_long == "refuse")):
        raise GfvizError(
            f"data.max_length: {dropped} of {len(examples)} examples are longer than {limit} tokens: raise it as far "
            "as the models' contexts allow, or set data.too_long to 'drop'"
        )
    parts: list[dict[str, TeacherPart]] = [{} for _ in kept]
    for number, teacher in enumerate(config.teachers):
        holders = [row for row, (_, _, theirs) in enumerate(kept) if teacher.name in theirs]
        if not holders and not probe:
            raise GfvizError(f"teachers.{number}.domains: no example of {teacher.domains} in the training data")
        shuffled = teacher.control == "shuffled" and not probe
        sources = _others(holders, config.seed, teacher.name) if shuffled else holders
        for row, source in zip(holders, sources):
            signal_of = kept[source][2][teacher.name]
            pairs = pair_in_order(kept[row][1], signal_of) if shuffled else align(kept[row][1], signal_of)
            parts[row][teacher.name] = TeacherPart(signal_of, pairs, source)
    return [TrainingExample(ours, part) for (_, ours, _), part in zip(kept, parts)], dropped


def _others(holders: list[int], seed: int, name: str) -> list[int]:
    """For each example another one, each used once: neighbours on a random circle."""
    if len(holders) < 2:
        raise GfvizError(f"teachers.{name}.control: 'shuffled' needs at least two examples")
    circle = np.random.default_rng(seed).permutation(holders)
    following = dict(zip(circle.tolist(), np.roll(circle, 1).tolist()))
    return [following[row] for row in holders]


def _coverage(examples: list[TrainingExample], teacher: TeacherConfig) -> Coverage:
    inside = [example for example in examples if teacher.name in example.teachers]
    pairs = sum(len(example.teachers[teacher.name].alignment.student) for example in inside)
    found = Coverage(len(inside), sum(example.encoded.positions for example in inside), pairs)
    if pairs == 0:
        raise GfvizError(
            f"teachers.{teacher.name}: not one position aligns with the pivot's: are these the same texts?"
        )
    return found


def _term(
    config: FusionConfig,
    teacher: TeacherConfig,
    loaded: LoadedModel,
    pivot: LoadedModel,
    encoders: dict[str, ExampleEncoder],
    encoder: ExampleEncoder,
    k: int,
) -> TeacherTerm:
    token, structure, beta = chosen_losses(config, teacher)
    other = encoders[teacher.name]
    maps = None
    if structure == "anchored":
        sizes = (logit_width(pivot), logit_width(loaded))
        ends = (encoder.tokenizer.eos_token_id, other.tokenizer.eos_token_id)
        first, second, count = shared_tokens(encoder.vocabulary, other.vocabulary, sizes, ends)
        require_shared(count, teacher.name)
        maps = (first, second)
    if token == "kl":
        require_same(encoder.vocabulary, other.vocabulary, teacher.name)
    return TeacherTerm(
        OnlineTeacher(teacher.name, loaded.model, k, config.loss.temperature),
        config.teacher_weights()[teacher.name],
        make_token_loss(token, config),
        make_structure_loss(structure, config.loss.normalize, maps),
        beta,
        teacher.control,
    )
