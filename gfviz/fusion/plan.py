"""`gfviz fuse --plan`: the memory a fusion takes per device, how fast it goes, how long it lasts, before it is run.

Memory is computed from shapes alone (`sizing`). Speed is measured on this machine, by some real steps, where the models
lie on its disk and fit on one device; where they do not, the plan says so and names no speed. Of several devices one
is measured and counted as often as there are devices: an upper bound, for what they say to each other is not measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.fusion.config import FusionConfig, ModelConfig, TeacherConfig
from gfviz.fusion.data import Example
from gfviz.fusion.launcher import find_launcher
from gfviz.fusion.strategy import Strategy, strategy_of

if TYPE_CHECKING:
    from gfviz.fusion.architecture import Architecture
    from gfviz.fusion.measured import MeasuredSteps
    from gfviz.fusion.sizing import BatchShape, ForwardMemory, StepMemory

_CASTING = ("fsdp", "zero1", "zero2", "zero3")
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
    could be measured, and for several devices those of devices that need not wait for each other: the speed is at most
    so high. A pairwise fusion has the steps and hours of all its runs and the memory of the largest. notes: what was
    assumed, and what could not be known.
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


@dataclass(frozen=True)
class _Devices:
    """What a plan is for: how many devices share the work and how, and what one of them is."""

    strategy: Strategy
    count: int
    device: str
    on_cpu: bool

    def alone(self) -> _Devices:
        """One of them by itself, as it is measured here."""
        return _Devices("single", 1, self.device, self.device == "cpu")


def plan(
    config: FusionConfig,
    *,
    processes: int | None = None,
    accelerate_config: str | Path | None = None,
    measure: bool = True,
    train: Sequence[Any] | None = None,
) -> Plan:
    """Plan a fusion on this machine, or on the devices that an Accelerate configuration describes.

    Models that are not here are sized from their configuration: a folder with a `config.json` is enough, and the models
    of the shipped recipes are known. `train` may hold examples in memory. The speed of several devices is that of one,
    measured here alone, times their number: an upper bound. Raises `GfvizError` for a model whose size cannot be known,
    naming the key. Cost: a few seconds a model, and some steps of training where `measure` is on and they can be run
    here.
    """
    from gfviz.fusion.loading import home_device

    notes: list[str] = []
    strategy, count = strategy_of(config, processes, accelerate_config)
    device = home_device(config)
    launcher = find_launcher(processes, accelerate_config)
    on_cpu = device == "cpu" and (launcher.path is None or launcher.name == "torch")
    devices = _Devices(strategy, count, device, on_cpu)
    examples = _examples(config, train, notes)
    if config.mode != "pairwise":
        return _plan(config, devices, examples, measure, notes)
    pairs = [
        _plan(config.model_copy(update={"mode": "unified", "teachers": [t]}), devices, examples, measure, list(notes))
        for t in config.teachers
    ]
    return _one_after_the_other(pairs)


def _plan(
    config: FusionConfig, devices: _Devices, examples: list[Example] | None, measure: bool, notes: list[str]
) -> Plan:
    from gfviz.fusion.architecture import longest_batch

    shape = longest_batch(config, examples[:_SAMPLED] if examples else None, notes)
    if examples and len(examples) > _SAMPLED:
        notes.append(f"lengths: of the first {_SAMPLED} of {len(examples)} examples")
    known = _architectures(config, notes)
    online = [teacher for teacher in config.teachers if teacher.cache is None]
    student, teachers = _sizes(config, known, shape, devices)
    memory, peak = _memory(config, student, teachers, devices, len(examples or []) * shape.window)
    if online and devices.count > 1 and devices.strategy != "fsdp":
        notes.append("teachers stand whole on every device: an offline cache (gfviz cache) frees that memory")
    steps = _steps(config, len(examples) if examples else None, devices.count)
    found: MeasuredSteps | None = None
    if measure:

        def needed() -> int:
            alone = devices.alone()
            return _memory(config, *_sizes(config, known, shape, alone), alone, len(examples or []) * shape.window)[1]

        found = _measured(config, devices, examples, needed, notes)
    notes.append("time: without evaluation, checkpoints and loading")
    if devices.on_cpu and config.training.gradient_checkpointing:
        notes.append("memory: the C library keeps some of what checkpointing frees (17% more, measured once)")
    seconds = None if found is None else found.seconds
    return Plan(
        devices.device, devices.count, devices.strategy, shape.rows, shape.length, shape.window,
        len(examples) if examples else None, steps, _model_plans(config, student, teachers, memory, known), memory,
        peak, seconds,
        None if found is None else devices.count * found.tokens / found.seconds,
        None if seconds is None or steps is None else steps * seconds / 3600,
        found.peak_bytes if found is not None and devices.strategy == "single" else None, tuple(notes),
    )  # fmt: skip


def _one_after_the_other(pairs: list[Plan]) -> Plan:
    """The plan of a pairwise fusion: a run with each teacher, and a merge."""
    largest = max(pairs, key=lambda one: one.peak_bytes)
    steps = _total([one.steps for one in pairs])
    hours = _total([one.hours for one in pairs])
    tokens = _total([None if p.hours is None else p.hours * (p.tokens_per_s or 0.0) for p in pairs])
    measured = [one.measured_peak_bytes for one in pairs]
    notes = dict.fromkeys(note for one in pairs for note in one.notes)
    said = f"pairwise: {len(pairs)} runs one after the other, steps and hours of all, memory of the largest"
    return replace(
        largest,
        steps=None if steps is None else int(steps),
        models=(largest.models[0], *(model for one in pairs for model in one.models[1:])),
        seconds_per_step=None if hours is None or not steps else hours * 3600 / steps,
        tokens_per_s=None if tokens is None or not hours else tokens / hours,
        hours=hours,
        measured_peak_bytes=None if None in measured else max(size or 0 for size in measured),
        notes=(said, "the merge holds the pivot, the mean in float64 and one result on the CPU", *notes),
    )


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _architectures(config: FusionConfig, notes: list[str]) -> dict[str, Architecture]:
    from gfviz.fusion.architecture import find_architecture

    known = {"pivot": find_architecture(config.pivot, "pivot.model")}
    for teacher in config.teachers:
        if teacher.cache is None:
            known[teacher.name] = find_architecture(teacher, f"teachers.{teacher.name}.model")
    for name, found in known.items():
        if found.shipped:
            notes.append(f"{name}: {found.name} is not here; sized by the shape that ships with gfviz")
    return known


def _sizes(
    config: FusionConfig, known: dict[str, Architecture], shape: BatchShape, devices: _Devices
) -> tuple[StepMemory, dict[str, ForwardMemory]]:
    from gfviz.fusion.sizing import forward_memory, training_memory

    training, on_cpu = config.training, devices.on_cpu
    # Sharding frameworks cast the weights themselves; autocast would keep a cast copy of each for the backward.
    cast = training.precision != "float32" and devices.strategy in _CASTING
    student = training_memory(
        known["pivot"].config, shape, dtype=training.precision if cast else _stored(config.pivot, "float32"),
        precision="float32" if cast else training.precision, checkpointing=training.gradient_checkpointing,
        lora=config.pivot.lora, temperature=config.loss.temperature, accumulation=training.accumulation,
        attention=config.pivot.attention,
    )  # fmt: skip
    teachers = {
        teacher.name: forward_memory(
            known[teacher.name].config, shape if not on_cpu else _alone(shape),
            dtype=_stored(teacher, "float32" if on_cpu else known[teacher.name].dtype),
            sharded=devices.strategy == "fsdp" and devices.count > 1,
        )
        for teacher in config.teachers if teacher.cache is None
    }  # fmt: skip
    return student, teachers


def _memory(
    config: FusionConfig, student: StepMemory, teachers: dict[str, ForwardMemory], devices: _Devices, positions: int
) -> tuple[dict[str, int], int]:
    bits, mixed = _bits(config.teachers), config.training.precision != "float32"
    memory, peak = device_memory(student, teachers, bits, devices.strategy, devices.count, mixed)
    if devices.on_cpu and teachers and positions:
        held = len(teachers) * min(_REMEMBERED, positions * (config.loss.k or 64) * 6)
        memory["teachers' remembered signals"] = held
        peak += held
    return memory, peak


def _measured(
    config: FusionConfig, devices: _Devices, examples: list[Example] | None, needed: Callable[[], int], notes: list[str]
) -> MeasuredSteps | None:
    from gfviz.fusion.measured import measure_steps, reason_not_to

    reason = reason_not_to(config, examples, needed)
    if reason:
        notes.append(f"speed was not measured: {reason}")
        return None
    count = devices.count
    if count > 1:
        notes.append(
            f"speed: one {devices.device} was measured alone and counted {count} times: tokens per second are at most, "
            "hours at least so many, for communication is not measured"
        )
    if devices.device == "cpu" and not devices.on_cpu:
        notes.append("speed: the configuration is for GPUs, which this machine lacks: a CPU was measured")
    # torch's launcher gives each of several processes one thread unless it is told otherwise.
    single = count > 1 and devices.on_cpu and "OMP_NUM_THREADS" not in os.environ
    return measure_steps(config, examples or [], threads=1 if single else None)


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
    teachers in `processes` shards, and two blocks of the pivot and of the largest teacher gathered. `zero1` to `zero3`:
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
        optimizer = math.ceil(optimizer / n)
        gradients = gradients if strategy == "zero1" else math.ceil(gradients / n)
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


def _bits(teachers: Sequence[TeacherConfig]) -> dict[str, int]:
    chosen = {"8bit": 8, "4bit": 4}
    return {teacher.name: chosen[teacher.quantization] for teacher in teachers if teacher.quantization in chosen}


def _stored(model: ModelConfig, otherwise: str) -> str:
    return otherwise if model.dtype == "auto" else model.dtype


def _alone(shape: BatchShape) -> BatchShape:
    return replace(shape, rows=1)  # on a CPU teachers read one example at a time


def _model_plans(
    config: FusionConfig,
    student: StepMemory,
    teachers: dict[str, ForwardMemory],
    memory: dict[str, int],
    known: dict[str, Architecture],
) -> tuple[ModelPlan, ...]:
    pivot, source = config.pivot.model, known["pivot"].source
    models = [ModelPlan("pivot", pivot, student.parameters, memory["pivot weights"], source)]
    for t in config.teachers:
        if t.cache is not None:
            models.append(ModelPlan(t.name, t.model, 0, 0, f"offline cache {t.cache}"))
        else:
            side = teachers[t.name]
            models.append(ModelPlan(t.name, t.model, side.parameters, side.weights, known[t.name].source))
    return tuple(models)


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
