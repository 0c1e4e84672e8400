"""From a configuration to everything that training needs: models loaded, examples encoded, losses chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from gfviz.capture.models import LoadedModel
from gfviz.errors import GfvizError
from gfviz.fusion.align import align, pair_in_order
from gfviz.fusion.batch import Collator, TeacherPart, TrainingExample
from gfviz.fusion.cached import CachedTeacher, open_cache
from gfviz.fusion.config import PIVOT, FusionConfig, TeacherConfig
from gfviz.fusion.data import Example, in_own_words, spread
from gfviz.fusion.lengths import require_room, require_room_to_answer
from gfviz.fusion.loading import adapt, home_device, load_pivot, load_teacher, logit_width, move_model, pad_id
from gfviz.fusion.objective import Objective, TeacherTerm, chosen_losses, make_structure_loss, make_token_loss
from gfviz.fusion.saving import config_hash, model_hash, tokenizer_hash
from gfviz.fusion.teachers import OnlineTeacher, SignalSource, check_width
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
    """What a session trains on; `trained` is the pivot, or the pivot with adapters; `dropped` examples
    were longer than allowed. `texts` are what `train` was encoded from; `encode` makes training examples of other
    texts in the same way, None of one that is too long.
    """

    config: FusionConfig
    pivot: LoadedModel
    trained: Any
    encoder: ExampleEncoder
    objective: Objective
    collator: Collator
    train: list[TrainingExample]
    probe: list[TrainingExample]
    evaluation: list[Example]
    k: int
    dropped: int
    texts: list[Example]
    encode: Callable[[Sequence[Example]], list[TrainingExample | None]]
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
    pivot = load_pivot(config)
    encoder = ExampleEncoder(pivot.tokenizer, config.data.chat_template)
    trained = _trained(config, pivot)
    if config.training.gradient_checkpointing:
        pivot.model.gradient_checkpointing_enable({"use_reentrant": False})
    sides = {teacher.name: _open_teacher(config, teacher, train) for teacher in config.teachers}
    widths = {"the pivot": logit_width(pivot)} | {f"teacher {name}": side.k_limit for name, side in sides.items()}
    k = check_width(config.loss.k, widths)
    encoders = {name: ExampleEncoder(side.tokenizer, config.data.chat_template) for name, side in sides.items()}
    limit = _limit(config, [pivot.context, *(side.context for side in sides.values())])
    encoded, kept = _encode(config, train, encoder, encoders, limit)
    _require_room(config, pivot, encoder, [train[place] for place in kept], evaluation)
    # A cache knows the training data alone; graphs are then measured over that.
    cached = any(side.loaded is None for side in sides.values())
    probe_from = evaluation if evaluation and not cached else train
    probe, _ = _encode(config, probe_from[: config.graph.examples], encoder, encoders, limit, False, probe=True)
    terms = [_term(config, teacher, sides[teacher.name], pivot, encoders, encoder, k) for teacher in config.teachers]
    objective = Objective(config.loss.lam, terms, config.loss.balance == "gradient")
    collator = Collator(
        pad_id(pivot.tokenizer), {name: pad_id(side.tokenizer) for name, side in sides.items()},
        config.training.padding_side, config.training.pad_multiple,
    )  # fmt: skip
    coverage = {teacher.name: _coverage(encoded, teacher) for teacher in config.teachers}
    tokenizers = {"pivot": pivot.tokenizer} | {name: side.tokenizer for name, side in sides.items()}
    configs = {"pivot": pivot.model} | {name: side.loaded.model for name, side in sides.items() if side.loaded}
    facts = {
        "vocabularies": {"pivot": encoder.vocabulary.identity}
        | {n: e.vocabulary.identity for n, e in encoders.items()},
        "tokenizers": {name: tokenizer_hash(tokenizer) for name, tokenizer in tokenizers.items()},
        "architectures": {name: config_hash(model.config) for name, model in configs.items()},
    }

    def encode(examples: Sequence[Example]) -> list[TrainingExample | None]:
        found, places = _encode(config, examples, encoder, encoders, limit, whole=False)
        made = dict(zip(places, found))
        return [made.get(place) for place in range(len(examples))]

    return Prepared(
        config, pivot, trained, encoder, objective, collator, encoded, probe, list(evaluation), k,
        len(train) - len(kept), [train[place] for place in kept], encode, coverage, facts,
    )  # fmt: skip


def _trained(config: FusionConfig, pivot: LoadedModel) -> Any:
    if config.pivot.lora is None:
        return pivot.model
    # Adapters begin at random, and the trainer's seed comes after them. What is drawn later must not move.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return adapt(pivot.model, config.pivot.lora)


@dataclass(frozen=True)
class TeacherSide:
    """A teacher before k is known: a model in memory, or a cache."""

    tokenizer: Any
    width: int
    k_limit: int
    context: int | None
    loaded: LoadedModel | None
    cache: CachedTeacher | None


def _open_teacher(config: FusionConfig, teacher: TeacherConfig, train: Sequence[Example]) -> TeacherSide:
    if teacher.cache is None:
        loaded = load_teacher(teacher, home_device(config))
        width = logit_width(loaded)
        return TeacherSide(loaded.tokenizer, width, width, loaded.context, loaded, None)
    try:
        cache, tokenizer = open_cache(
            teacher.name, teacher.cache, train, dtype=config.loss.signal_dtype,
            temperature=config.loss.temperature, chat_template=config.data.chat_template,
            model=model_hash(teacher.model, teacher.revision),
        )  # fmt: skip
    except GfvizError as error:
        raise GfvizError(f"teachers.{teacher.name}.cache: {error}") from error
    return TeacherSide(tokenizer, cache.meta.width, cache.meta.k, cache.meta.context, None, cache)


def _require_room(
    config: FusionConfig,
    pivot: LoadedModel,
    encoder: ExampleEncoder,
    train: Sequence[Example],
    evaluation: Sequence[Example],
) -> None:
    settings = config.evaluation
    if settings.at_start or settings.at_end or settings.every:
        chosen = spread(evaluation, settings.limit)
        require_room(chosen, encoder, pivot.context, "data.evaluation")
        require_room_to_answer(chosen, encoder, pivot.context, settings.max_new_tokens, "evaluation.max_new_tokens")
    if config.data.on_policy:
        require_room_to_answer(train, encoder, pivot.context, config.data.max_answer_tokens, "data.max_answer_tokens")


def own_answers(config: FusionConfig, train: Sequence[Example], device: str | None = None) -> tuple[list[Example], int]:
    """The training prompts with the greedy answers of the teacher (sequence-level distillation, arXiv 1606.07947) or
    the pivot that `data.answers_from` names.

    Empty answers are left out; the second value is how many. Raises `GfvizError` where none is left, or a prompt leaves
    the model no room for an answer.
    """
    from gfviz.fusion.evaluation import generate

    if config.data.answers_from == PIVOT:
        loaded, placed = load_pivot(config), False
    else:
        teacher = next(teacher for teacher in config.teachers if teacher.name == config.data.answers_from)
        loaded, placed = load_teacher(teacher, device or "cpu"), teacher.device is not None
    if device is not None and not placed:
        move_model(loaded.model, device)
    loaded.model.eval()
    encoder = ExampleEncoder(loaded.tokenizer, config.data.chat_template)
    require_room_to_answer(train, encoder, loaded.context, config.data.max_answer_tokens, "data.max_answer_tokens")
    written = generate(
        loaded.model, encoder, [example.prompt for example in train], config.evaluation.batch_size,
        config.data.max_answer_tokens,
    )  # fmt: skip
    kept = [in_own_words(example, answer) for example, answer in zip(train, written) if answer.strip()]
    if not kept:
        raise GfvizError(f"data.answers_from: {config.data.answers_from} answered nothing to any prompt")
    return kept, len(train) - len(kept)


def _limit(config: FusionConfig, contexts: list[int | None]) -> int:
    known = [context for context in contexts if context is not None]
    context = min(known) if known else 2**31
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
    whole: bool = True,
    probe: bool = False,
) -> tuple[list[TrainingExample], list[int]]:
    """Encode for every model; drop what is too long for any of them. Returns the examples and their places.

    `whole`: these are all the data, of which something must be there for every teacher, and of which nothing may be
    dropped unless the configuration says so. `probe`: no control takes the teacher out of them.
    """
    kept: list[tuple[int, Encoded, dict[str, Encoded]]] = []
    for place, example in enumerate(examples):
        ours = encoder.encode(example)
        routed = [t.name for t in config.teachers if t.domains is None or example.family in t.domains]
        theirs = {name: encoders[name].encode(example) for name in routed}
        if max(len(item.ids) for item in (ours, *theirs.values())) <= limit:
            kept.append((place, ours, theirs))
    dropped = len(examples) - len(kept)
    if whole and (not kept or (dropped and config.data.too_long == "refuse")):
        raise GfvizError(
            f"data.max_length: {dropped} of {len(examples)} examples are longer than {limit} tokens: raise it as far "
            "as the models' contexts allow, or set data.too_long to 'drop'"
        )
    parts: list[dict[str, TeacherPart]] = [{} for _ in kept]
    alone: set[int] = set()
    for number, teacher in enumerate(config.teachers):
        holders = [row for row, (_, _, theirs) in enumerate(kept) if teacher.name in theirs]
        if not holders and whole:
            raise GfvizError(f"teachers.{number}.domains: no example of {teacher.domains} in the training data")
        shuffled = teacher.control == "shuffled" and not probe and bool(holders)
        if shuffled and not whole and len(holders) == 1:
            # Its own signal is no control, and there is no other.
            alone.add(holders[0])
            continue
        sources = _others(holders, config.seed, teacher.name) if shuffled else holders
        for row, source in zip(holders, sources):
            signal_of = kept[source][2][teacher.name]
            pairs = pair_in_order(kept[row][1], signal_of) if shuffled else align(kept[row][1], signal_of)
            parts[row][teacher.name] = TeacherPart(signal_of, pairs, kept[source][0])
    rows = [row for row in range(len(kept)) if row not in alone]
    return [TrainingExample(kept[row][1], parts[row]) for row in rows], [kept[row][0] for row in rows]


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
    side: TeacherSide,
    pivot: LoadedModel,
    encoders: dict[str, ExampleEncoder],
    encoder: ExampleEncoder,
    k: int,
) -> TeacherTerm:
    token, structure, beta = chosen_losses(config, teacher)
    other = encoders[teacher.name]
    maps = None
    if structure == "anchored":
        sizes = (logit_width(pivot), side.width)
        ends = (encoder.tokenizer.eos_token_id, other.tokenizer.eos_token_id)
        first, second, count = shared_tokens(encoder.vocabulary, other.vocabulary, sizes, ends)
        require_shared(count, teacher.name)
        maps = (first, second)
    if token == "kl":
        require_same(encoder.vocabulary, other.vocabulary, teacher.name)
    source: SignalSource
    if side.loaded is not None:
        source = OnlineTeacher(teacher.name, side.loaded.model, k, config.loss.temperature, config.loss.signal_dtype)
    else:
        source = cast(SignalSource, side.cache)
    return TeacherTerm(
        source,
        config.teacher_weights()[teacher.name],
        make_token_loss(token, config),
        make_structure_loss(structure, config.loss.normalize, maps),
        beta,
        teacher.control,
    )
