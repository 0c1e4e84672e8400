"""Some real steps of a fusion, for their speed and memory: nothing is kept of them."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfviz.fusion.config import FusionConfig
from gfviz.fusion.data import Example
from gfviz.fusion.loading import computes_in

# Single steps wander by a fifth (the allocator grows, other programs run): the median of nine, or of as many as half a
# minute holds, but three at least.
WARM_UP, LEAST_TIMED, MOST_TIMED, ENOUGH_SECONDS = 1, 3, 9, 30.0
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class MeasuredSteps:
    """Median seconds of an optimizer step, its padded tokens of the pivot, and the most memory beyond the start."""

    seconds: float
    tokens: int
    peak_bytes: int


def reason_not_to(config: FusionConfig, examples: Sequence[Example] | None, needed: Callable[[], int]) -> str:
    """Why no step can be measured on one device here, empty where one can. It takes `needed()` bytes."""
    models = [("pivot", config.pivot.model), *((t.name, t.model) for t in config.teachers if t.cache is None)]
    absent = [name for name, where in models if not _has_weights(where)]
    if absent:
        return f"the weights of {', '.join(absent)} are not on this machine"
    if not examples:
        return "there is no training data"
    if not computes_in(config):
        return "a CPU does not compute in float16"
    whole, available = needed(), _available(config)
    if whole > available:
        return f"one device alone needs {whole / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free"
    return ""


def measure_steps(config: FusionConfig, examples: Sequence[Example], threads: int | None = None) -> MeasuredSteps:
    """Run a few optimizer steps of the fusion on one device, with so many threads, and throw their result away.

    As many examples as they read are taken evenly over the data; teachers read each anew, as in a first epoch. Raises
    `GfvizError` as a run would.
    """
    from transformers import TrainerCallback

    from gfviz.fusion.prepare import prepare
    from gfviz.fusion.session import training_arguments
    from gfviz.fusion.sharding import place_teachers
    from gfviz.fusion.trainer import FusionTrainer
    from gfviz.runs import RunDirectory

    short, chosen = _short(config, examples)

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.tokens: list[int] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            self.begun = time.perf_counter()
            trainer.meter.tokens = 0
            for teacher in prepared.online:
                teacher.forget()

        def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
            trainer.meter.close_step(int(state.global_step))
            trainer.meter.read(trainer.across_processes)
            self.ends.append(time.perf_counter() - self.begun)
            self.tokens.append(trainer.meter.tokens)
            timed = self.ends[WARM_UP:]
            if len(timed) >= LEAST_TIMED and sum(timed) > ENOUGH_SECONDS:
                control.should_training_stop = True

    with tempfile.TemporaryDirectory(prefix="gfviz-plan-") as scratch, _threads(threads), _watching(config) as watch:
        prepared = prepare(short, chosen, [])
        clock = Clock()
        trainer = FusionTrainer(
            prepared.trained, training_arguments(short, RunDirectory(Path(scratch))), prepared.objective,
            prepared.train, prepared.collator, prepared.k, config.loss.temperature, callbacks=[clock],
        )  # fmt: skip
        place_teachers(config, prepared.online, trainer.accelerator)
        trainer.train()
    tokens = statistics.mean(clock.tokens[WARM_UP:])
    return MeasuredSteps(statistics.median(clock.ends[WARM_UP:]), int(tokens), watch.peak)


def _short(config: FusionConfig, examples: Sequence[Example]) -> tuple[FusionConfig, list[Example]]:
    steps = WARM_UP + MOST_TIMED
    wanted = steps * config.training.batch_size * config.training.accumulation
    stride = max(1, len(examples) // wanted)
    cached = any(teacher.cache is not None for teacher in config.teachers)
    # A cache knows the whole data alone.
    chosen = list(examples) if cached else list(examples[::stride][:wanted])
    changed: dict[str, Any] = {"steps": steps, "epochs": None, "checkpoint_every": 0, "report_to": []}
    # One device shares with none.
    changed |= {"fsdp": None, "fsdp_config": None, "deepspeed": None}
    return config.model_copy(update={"training": config.training.model_copy(update=changed)}), chosen


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Watch:
    peak = 0


@contextmanager
def _watching(config: FusionConfig) -> Iterator[_Watch]:
    """The most memory of this process while inside, beyond what it held before: of the GPU where there is one."""
    import torch

    found = _Watch()
    if torch.cuda.is_available() and config.training.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found.peak = torch.cuda.max_memory_allocated() - before
        return
    import psutil

    process = psutil.Process()
    before, ended = process.memory_info().rss, threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            found.peak = max(found.peak, process.memory_info().rss - before)

    # The process's own record of its peak would know of what came before as well.
    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _available(config: FusionConfig) -> int:
    import torch

    if torch.cuda.is_available() and config.training.device != "cpu":
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _has_weights(where: str) -> bool:
    from gfviz.capture.models import hub_commit

    folder = Path(where)
    return any(folder.glob("*.safetensors")) if folder.is_dir() else hub_commit(where) is not None
