"""`gfviz fuse --plan`: the memory a fusion takes per device, how fast it goes, how long it lasts, before it is run.

Memory is computed from shapes alone (`sizing`). Speed is measured on this machine, by some real steps, where the models
lie on its disk and fit; where they do not, the plan says so and names no speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, ModelConfig, TeacherConfig
from gfviz.fusion.data import Example

if TYPE_CHECKING:
    from gfviz.fusion.measured import MeasuredSteps
    from gfviz.fusion.sizing import BatchShape, ForwardMemory, StepMemory

Strategy = Literal["single", "ddp", "fsdp", "zero2", "zero3"]
_SAMPLED = 2000
_REMEMBERED = 512 * 1024 * 1024


@dataclass(frozen=True)
class ModelPlan:
    """One model: `source` says what its size was read from; `bytes` are its weights on one device."""

    name: str
    model: str
    parameters: int
    bytes: int
    source: str


@dataclass(frozen=True)
class Plan:
    """What a fusion takes.

    memory: bytes on one device by part (what is resident, then what a step holds beyond that); peak_bytes: the most
    of them at one time, above a process that has imported everything and loaded nothing. rows, length, window: the
    longest batch on one device; examples: in the training data, None where they could not be read; steps: optimizer
    steps; seconds_per_step, tokens_per_s (padded tokens of the pivot, all devices) and hours are None where no step
    could be measured. notes: what was assumed, and what could not be known.
    """

    device: str
    processes: int
    strategy: Strategy
    rows: int
    length: int
    window: int
    examples: int | None
    steps: int | None
    models: tuple[ModelPlan, ...]
    memory: dict[str, int]
    peak_bytes: int
    seconds_per_step: float | None
    tokens_per_s: float | None
    hours: float | None
    measured_peak_bytes: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan(
    config: FusionConfig,
    *,
    processes: int = 1,
    accelerate_config: str | Path | None = None,
    measure: bool = True,
    train: Sequence[Any] | None = None,
) -> Plan:
    """Plan a fusion on this machine, or on the devices that an Accelerate configuration describes.

    Models that are not here are sized from their configuration: a folder with a `config.json` is enough, and the models
    of the shipped recipes are known. `train` may hold examples in memory. Raises `GfvizError` for a model whose size
    cannot be known, naming the key. Cost: a few seconds a model, and some steps of training where `measure` is on and
    they can be run here.
    """
    from gfviz.fusion.architecture import find_architecture, longest_batch
    from gfviz.fusion.loading import home_device
    from gfviz.fusion.measured import measure_steps, reason_not_to
    from gfviz.fusion.sizing import forward_memory, training_memory

    notes: list[str] = []
    strategy, count = strategy_of(config, processes, accelerate_config)
    device = home_device(config)
    on_cpu = device == "cpu" and accelerate_config is None
    examples = _examples(config, train, notes)
    shape = longest_batch(config, examples[:_SAMPLED] if examples else None, notes)
    if examples and len(examples) > _SAMPLED:
        notes.append(f"lengths: of the first {_SAMPLED} of {len(examples)} examples")
    known = {"pivot": find_architecture(config.pivot, "pivot.model")}
    online = [teacher for teacher in config.teachers if teacher.cache is None]
    for teacher in online:
        known[teacher.name] = find_architecture(teacher, f"teachers.{teacher.name}.model")
    for name, found in known.items():
        if found.shipped:
            notes.append(f"{name}: {found.name} is not here; sized by the shape that ships with gfviz")
    training, sharded = config.training, strategy in ("fsdp", "zero3")
    cast = training.precision != "float32" and (sharded or strategy == "zero2")
    student = training_memory(
        known["pivot"].config, shape,
        # Sharding frameworks cast the weights themselves; autocast would keep a cast copy of each for the backward.
        dtype=training.precision if cast else _stored(config.pivot, "float32"),
        precision="float32" if cast else training.precision, checkpointing=training.gradient_checkpointing,
        lora=config.pivot.lora, temperature=config.loss.temperature, accumulation=training.accumulation,
        attention=config.pivot.attention,
    )  # fmt: skip
    teachers = {
        teacher.name: forward_memory(
            known[teacher.name].config, shape if not on_cpu else _alone(shape),
            dtype=_stored(teacher, "float32" if on_cpu else known[teacher.name].dtype),
            sharded=strategy == "fsdp" and count > 1,
        )
        for teacher in online
    }  # fmt: skip
    memory, peak = device_memory(student, teachers, _bits(online), strategy, count, training.precision != "float32")
    if on_cpu and online and examples:
        held = len(online) * min(_REMEMBERED, len(examples) * shape.window * (config.loss.k or 64) * 6)
        memory["teachers' remembered signals"] = held
        peak += held
    if online and count > 1 and strategy != "fsdp":
        notes.append("teachers stand whole on every device: an offline cache (gfviz cache) frees that memory")
    steps = _steps(config, len(examples) if examples else None, count)
    found_steps: MeasuredSteps | None = None
    if measure:
        reason = reason_not_to(config, examples, peak, count, accelerate_config is not None)
        if reason:
            notes.append(f"speed was not measured: {reason}")
        else:
            found_steps = measure_steps(config, examples or [])
    notes.append("time: without evaluation, checkpoints and loading")
    if on_cpu and training.gradient_checkpointing:
        notes.append("memory: the C library keeps some of what checkpointing frees (17% more, measured once)")
    models = [_model_plan("pivot", config.pivot, student.parameters, memory["pivot weights"], known)]
    models += [
        _model_plan(t.name, t, teachers[t.name].parameters, teachers[t.name].weights, known)
        if t.cache is None
        else ModelPlan(t.name, t.model, 0, 0, f"offline cache {t.cache}")
        for t in config.teachers
    ]
    seconds = None if found_steps is None else found_steps.seconds
    return Plan(
        device, count, strategy, shape.rows, shape.length, shape.window, len(examples) if examples else None, steps,
        tuple(models), memory, peak, seconds,
        None if found_steps is None else found_steps.tokens / found_steps.seconds,
        None if seconds is None or steps is None else steps * seconds / 3600,
        None if found_steps is None else found_steps.peak_bytes, tuple(notes),
    )  # fmt: skip


def device_memory(
    student: StepMemory,
    teachers: dict[str, ForwardMemory],
    bits: dict[str, int],
    strategy: Strategy,
    processes: int,
    mixed: bool,
) -> tuple[dict[str, int], int]:
    """Bytes on one device by part, and the most at one time.

    `single`: everything. `ddp`: gradients twice (its buckets are copies). `fsdp`: pivot, gradients, optimizer and
    teachers in `processes` shards, and two blocks of the pivot and of the largest teacher gathered. `zero2`, `zero3`:
    DeepSpeed's 16-bit weights beside a float32 copy in the optimizer's shard (ZeRO, arXiv 1910.02054, section 3).
    `bits` are those of quantised teachers. `student` is computed at the precision in which blocks are gathered.
    """
    n = processes
    weights, gradients, optimizer, blocks = 4 * student.parameters, 4 * student.trainable, 8 * student.trainable, 0
    if strategy in ("single", "ddp"):
        weights, gradients, optimizer = student.weights, student.gradients, student.optimizer
        gradients *= 2 if strategy == "ddp" else 1
    elif strategy == "fsdp":
        weights, gradients, optimizer = (math.ceil(part / n) for part in (weights, gradients, optimizer))
        blocks = 2 * student.largest_block
    else:
        if mixed:
            weights, gradients, optimizer = 2 * student.parameters, 2 * student.trainable, 12 * student.trainable
        gradients, optimizer = math.ceil(gradients / n), math.ceil(optimizer / n)
        if strategy == "zero3":
            weights, blocks = math.ceil(weights / n), 2 * student.largest_block
    sizes = {name: side.weights * bits.get(name, 16) // 16 for name, side in teachers.items()}
    resident = sum(sizes.values())
    reading = max((side.forward for side in teachers.values()), default=0)
    if strategy == "fsdp":
        resident = math.ceil(resident / n)
        reading += 2 * max((side.largest_block for side in teachers.values()), default=0)
    memory = {
        "pivot weights": weights, "gradients": gradients, "optimizer": optimizer, "gathered blocks": blocks,
        "activations and logits": student.activations, "teachers' weights": resident,
        "teachers' forward pass": reading,
    }  # fmt: skip
    held = weights + optimizer + blocks + resident
    if strategy == "single":
        # Known exactly: activations go as gradients come.
        step = student.peak - student.weights - student.optimizer
    else:
        step = gradients + student.activations
    return memory, held + max(step, gradients + student.forward + reading)


def strategy_of(config: FusionConfig, processes: int, accelerate_config: str | Path | None) -> tuple[Strategy, int]:
    """How the devices share the work, and how many there are. Raises `GfvizError` for an unreadable file."""
    if accelerate_config is not None:
        from gfviz.fusion.recipes import accelerate_path
        from gfviz.runs.yamlfile import read_mapping

        data = read_mapping(accelerate_path(accelerate_config))
        count = processes if processes > 1 else data.get("num_processes", 1)
        if type(count) is not int or count < 1:
            raise GfvizError(f"{accelerate_config}: num_processes is {str(count)[:40]}: pass --processes")
        kind = str(data.get("distributed_type", "NO")).upper()
        if kind == "FSDP":
            return "fsdp", count
        if kind == "DEEPSPEED":
            options = data.get("deepspeed_config")
            stage = options.get("zero_stage", 2) if isinstance(options, dict) else 2
            return ("zero3" if stage == 3 else "zero2"), count
        return ("ddp" if count > 1 else "single"), count
    if config.training.fsdp:
        return "fsdp", processes
    return ("ddp" if processes > 1 else "single"), processes


def _bits(teachers: list[TeacherConfig]) -> dict[str, int]:
    chosen = {"8bit": 8, "4bit": 4}
    return {teacher.name: chosen[teacher.quantization] for teacher in teachers if teacher.quantization in chosen}


def _stored(model: ModelConfig, otherwise: str) -> str:
    return otherwise if model.dtype == "auto" else model.dtype


def _alone(shape: BatchShape) -> BatchShape:
    from dataclasses import replace

    return replace(shape, rows=1)  # on a CPU teachers read one example at a time


def _model_plan(name: str, config: ModelConfig, parameters: int, size: int, known: dict[str, Any]) -> ModelPlan:
    return ModelPlan(name, config.model, parameters, size, known[name].source)


def _examples(config: FusionConfig, train: Sequence[Any] | None, notes: list[str]) -> list[Example] | None:
    from gfviz.fusion.data import as_examples, read_examples

    if train is not None:
        return as_examples(train)
    missing = [path for path in config.data.train if not Path(path).is_file()]
    if not config.data.train or missing:
        notes.append(f"training data: {missing[0] if missing else 'none named'} cannot be read; examples are unknown")
        return None
    return read_examples(config.data.train)


def _steps(config: FusionConfig, examples: int | None, processes: int) -> int | None:
    training = config.training
    if training.steps is not None:
        return training.steps
    if examples is None:
        return None
    batches = math.ceil(examples / (training.batch_size * processes))
    return math.ceil(math.ceil(batches / training.accumulation) * (training.epochs or 1.0))
