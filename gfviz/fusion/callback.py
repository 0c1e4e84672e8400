"""The callback that writes the run: metrics, evaluations, graph distances, skipped steps, the stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainerCallback

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig
from gfviz.fusion.trainer import FusionTrainer
from gfviz.runs import RunWriter

EventKind = Literal["begin", "stage", "step", "evaluation", "graph", "bad_step", "checkpoint", "end"]


@dataclass(frozen=True)
class FusionEvent:
    """Something that happened, for a progress bar: `step` of `total`, newest `values`, a readable `text`."""

    kind: EventKind
    step: int = 0
    total: int = 0
    values: dict[str, float] = field(default_factory=dict)
    text: str = ""


EventHook = Callable[[FusionEvent], None]


def silent(_event: FusionEvent) -> None:
    """The hook that does nothing."""


class RunCallback(TrainerCallback):
    """Writes what the trainer does into the run. `writer` is None on all processes but the first.

    `evaluate(step)` and `measure(step)` return rows for the store.
    """

    def __init__(
        self,
        config: FusionConfig,
        writer: RunWriter | None,
        hook: EventHook,
        evaluate: Callable[[int], dict[str, float]],
        measure: Callable[[int], dict[str, float]],
    ) -> None:
        self.config = config
        self.writer = writer
        self.hook = hook
        self.evaluate = evaluate
        self.measure = measure
        self.trainer: FusionTrainer | None = None
        self.stopped = False
        self._clock = time.monotonic()

    def attach(self, trainer: FusionTrainer) -> None:
        """Give the callback its trainer, which exists only after it."""
        self.trainer = trainer
        trainer.before_seal = self._seal_rows

    @property
    def _trainer(self) -> FusionTrainer:
        if self.trainer is None:
            raise RuntimeError("attach the trainer before training")
        return self.trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Say how many steps there are; measure the pivot before its first step."""
        self._total = int(state.max_steps)
        if self.writer is not None:
            self.writer.beat(total_steps=self._total)
            self.writer.flush()
        self.hook(FusionEvent("begin", int(state.global_step), self._total))
        if self.config.graph.every and state.global_step == 0:
            self._note(0, self.measure(0), "graph")
        self._clock = time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Drop the gradients of a step in which a teacher, or the loss, was not finite."""
        trainer = self._trainer
        if trainer.step_is_finite():
            return
        trainer.drop_step()
        trainer.fusion_state["bad_steps"] += 1
        count, step = trainer.fusion_state["bad_steps"], int(state.global_step) + 1
        text = f"step {step} skipped: {trainer.meter.culprits()} gave NaN or infinity ({count} so far)"
        if self.writer is not None:
            self.writer.log(step, {"bad_steps": count})
            self.writer.event(text, kind="warning", step=step)
        self.hook(FusionEvent("bad_step", step, self._total, text=text))
        if count > self.config.training.max_bad_steps:
            raise GfvizError(
                f"{text}; more than training.max_bad_steps = {self.config.training.max_bad_steps}: check that model's "
                "weights and dtype, or lower the learning rate"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Close the step; read the metrics, evaluate, measure and stop where it is time."""
        step = int(state.global_step)
        trainer = self._trainer
        trainer.close_step(step)
        if step % self.config.training.log_every == 0 or step == self._total or control.should_save:
            self.flush()
        else:
            self.hook(FusionEvent("step", step, self._total))
        if self.config.evaluation.every and step % self.config.evaluation.every == 0 and step < self._total:
            self._note(step, self.evaluate(step), "evaluation")
        if self.config.graph.every and (step % self.config.graph.every == 0 or step == self._total):
            self._note(step, self.measure(step), "graph")
        if trainer.should_stop() and step < self._total:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def flush(self) -> None:
        """Read the buffered metrics of all processes and commit them."""
        trainer = self._trainer
        tokens, trainer.meter.tokens = trainer.meter.tokens, 0
        rows = trainer.meter.read(trainer.across_processes)
        if not rows:
            return
        seconds = max(time.monotonic() - self._clock, 1e-9)
        self._clock = time.monotonic()
        speed = {"tokens_per_s": tokens * trainer.args.world_size / seconds, "memory_mb": memory_mb()}
        if self.writer is not None:
            for step, values in rows:
                self.writer.log(step, values)
            self.writer.log(rows[-1][0], speed)
            self.writer.flush()
        self.hook(FusionEvent("step", rows[-1][0], self._total, {**rows[-1][1], **speed}))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_others: Any) -> None:
        """Keep the trainer's own numbers that the meter does not have."""
        names = {"grad_norm": "grad_norm", "learning_rate": "lr"}
        rows = {name: float(logs[key]) for key, name in names.items() if logs and key in logs}
        if self.writer is not None and rows:
            self.writer.log(int(state.global_step), rows)

    def _seal_rows(self) -> None:
        # All rows, the trainer's own last ones among them, must outlive a power cut before the checkpoint counts.
        self.flush()
        if self.writer is not None:
            self.writer.sync()

    def on_save(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """A checkpoint is whole, and its rows are on the disk: say so."""
        step = int(state.global_step)
        if self.writer is not None:
            self.writer.event(f"checkpoint at step {step}", kind="checkpoint", step=step)
        self.hook(FusionEvent("checkpoint", step, self._total))

    def _note(self, step: int, rows: dict[str, float], kind: EventKind) -> None:
        if self.writer is not None and rows:
            self.writer.log(step, rows)
            self.writer.flush()
        self.hook(FusionEvent(kind, step, self._total, rows))
        # Time spent here is not the training's.
        self._clock = time.monotonic()


def memory_mb() -> float:
    """Peak GPU memory of this process where there is a GPU, else its resident memory, in MB (10^6 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    import psutil

    return psutil.Process().memory_info().rss / 1e6
