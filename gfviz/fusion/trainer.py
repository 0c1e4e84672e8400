"""`FusionTrainer`: `transformers.Trainer` with the fusion objective, and checkpoints that are whole or not there."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from gfviz.capture.forward import SignalReader
from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text
from gfviz.fusion.batch import Collator, TrainingExample
from gfviz.fusion.losses import AnswerSignal
from gfviz.fusion.objective import Counts, Objective, unit_names
from gfviz.fusion.onpolicy import OwnAnswers
from gfviz.fusion.saving import damaged_checkpoint, first_not_finite
from gfviz.fusion.sharding import is_sharded
from gfviz.fusion.teachers import answer_signal, forward_arguments, read_window, window_logits
from gfviz.runs import checkpoint_is_whole

COMPLETE = "COMPLETE"


class StepMeter:
    """Metrics of the steps since the last read, as tensors: reading a number from a GPU makes it wait."""

    def __init__(self) -> None:
        self._current: dict[str, Tensor] = {}
        self.finite: dict[str, Tensor] = {}
        self.tokens = 0
        self.steps: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, parts: dict[str, Tensor], finite: dict[str, Tensor], tokens: int) -> None:
        """Add one forward pass: parts are shares of the step's means, so they add up; finite by who produced it."""
        for name, value in parts.items():
            self._current[name] = self._current[name] + value if name in self._current else value
        for name, sound in finite.items():
            self.finite[name] = self.finite[name] & sound if name in self.finite else sound
        self.tokens += tokens

    def close_step(self, step: int) -> None:
        """The optimizer step is done."""
        if self._current:
            self.steps.append((step, self._current))
        self._current, self.finite = {}, {}

    def culprits(self) -> str:
        """Who was not finite in the step, in words."""
        return " and ".join(name for name, sound in self.finite.items() if not bool(sound)) or "another process"

    def read(self, across: Callable[[Tensor], Tensor]) -> list[tuple[int, dict[str, float]]]:
        """All closed steps as numbers, in one transfer; the meter is empty afterwards. `across` sums over processes."""
        flat = [value.double() for _, parts in self.steps for value in parts.values()]
        numbers = iter(across(torch.stack(flat)).tolist() if flat else [])
        found = [(step, {name: next(numbers) for name in parts}) for step, parts in self.steps]
        self.steps = []
        return found


class FusionTrainer(Trainer):
    """Trains the pivot on an `Objective`. `examples` are `TrainingExample`s; teachers live in the objective.

    `own` writes the texts of every step anew in the pivot's words, over the same examples.
    """

    # The loss is divided by the whole accumulated batch's own counts already; without this transformers (5.19 on)
    # would divide it again by the number of accumulation steps.
    loss_is_scaled_for_ga = True
    objective: Objective

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        objective: Objective,
        examples: list[TrainingExample],
        collator: Collator,
        k: int,
        temperature: float = 1.0,
        callbacks: list[Any] | None = None,
        keep_checkpoints: int = 2,
        balance_every: int = 20,
        own: OwnAnswers | None = None,
    ) -> None:
        # Texts that are still to be written have no batch yet: the loader hands over places alone.
        data: Any
        together: Any
        data, together = (examples, collator) if own is None else (list(range(len(examples))), list)
        super().__init__(model=model, args=arguments, data_collator=together, train_dataset=data, callbacks=callbacks)
        self.own = own
        # The run's own callback tells what happens; this one would print a dictionary at every logged step.
        self.remove_callback(PrinterCallback)
        self.objective = objective
        self.k = k
        self.temperature = temperature
        self.keep_checkpoints = keep_checkpoints
        self.balance_every = balance_every
        objective.across = self.across_processes
        objective.processes = self.args.world_size
        self.meter = StepMeter()
        self.fusion_state: dict[str, Any] = {"bad_steps": 0}
        self.before_seal: Callable[[], None] = lambda: None
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self._stop_agreed = False
        self._accepts = forward_arguments(self.accelerator.unwrap_model(model))

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The batches of one optimizer step, with each loss's denominator over all of them and all processes."""
        samples: list[Any] = []
        if self.state.global_step >= self.state.max_steps:
            # Resumed where it had ended but for its last evaluation: transformers would train a step too many.
            self.control.should_training_stop = True
            return samples, None
        for _ in range(num_batches):
            with suppress(StopIteration):
                samples.append(next(epoch_iterator))
        if self.own is not None:
            # Here and not in the loader, which is a batch ahead of the weights.
            model = self.accelerator.unwrap_model(self.model)
            samples = [self.own.batch(model, places) for places in samples]
        return samples, self._counts(samples, device) if samples else None

    def _counts(self, samples: list[dict[str, Any]], device: torch.device) -> Counts:
        counts = self.objective.counts(samples, device)
        names = unit_names(self.objective.terms)
        packed = torch.stack([counts[name] for name in names])
        if self.args.world_size > 1:
            packed = self.accelerator.reduce(packed, "sum")
        return dict(zip(names, packed.unbind()))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share of the loss, times the number of processes (their gradients are averaged)."""
        counts = num_items_in_batch if num_items_in_batch is not None else self._counts([inputs], self.args.device)
        student = inputs["student"]
        logits = window_logits(model, student, self._accepts)
        signal = answer_signal(logits, student, self.k, self.temperature)
        plain = signal.token_log_prob
        if self.temperature != 1.0:
            plain = answer_signal(logits, student, 1).token_log_prob
        # All processes agree about when it is time: every so many steps.
        measure = self.objective.balance and self.state.global_step % self.balance_every == 0
        value = self.objective(signal, plain, logits, inputs, counts, self._progress(self.state.global_step), measure)
        self.meter.add(value.parts, value.finite, int(student["attention_mask"].numel()))
        loss = value.total * self.args.world_size
        if self._engine is not None:
            loss = loss * spoiler(value.finite)
        return (loss, {}) if return_outputs else loss

    @property
    def _engine(self) -> Any:
        """DeepSpeed's engine, None where there is none."""
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        return self.accelerator.deepspeed_engine_wrapped.engine if deepspeed else None

    def drop_step(self) -> None:
        """Drop the gradients of a step that is not finite. Raises `GfvizError` where DeepSpeed has applied them."""
        if self._engine is None:
            # Without gradients the optimizer leaves weights and moments as they are.
            self.model.zero_grad(set_to_none=True)  # type: ignore[union-attr]
        elif self._engine.was_step_applied():
            raise GfvizError(
                f"step {self.state.global_step + 1}: DeepSpeed applied a step that was not finite, as it does without "
                "ZeRO and with check_grad_overflow off: change its configuration and resume from the last checkpoint"
            )

    def _progress(self, step: int) -> float:
        return step / max(1, self.state.max_steps)

    def close_step(self, step: int) -> None:
        """The optimizer step is done, `step` with it: what was summed up over its forward passes is put to use."""
        self.meter.close_step(step)
        self.objective.rebalance(self._progress(step - 1))

    def probe_signal(self, student: Mapping[str, Tensor]) -> AnswerSignal:
        """The student's signal at temperature 1 over a padded batch, in evaluation mode; no dropout is drawn.

        As the teachers', without logits [B, W, V]; but a model in shards has to apply its head itself.
        """
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        try:
            if is_sharded(self.accelerator):
                return answer_signal(window_logits(model, student, self._accepts), student, self.k)
            return read_window(SignalReader(model, self.k), student)
        finally:
            model.train(training)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the count of transformers wants flat inputs, and would leave out the teachers."""
        return 0

    def step_is_finite(self) -> bool:
        """Whether every process's every forward pass since the last step was finite.

        The one place where a step reads from its device, and where processes tell each other what each of them knows:
        whether one was asked to stop goes with it.
        """
        if not self.meter.finite and self.args.world_size == 1:
            return True
        unsound = ~torch.stack([value.to(self.args.device) for value in self.meter.finite.values()]).all()
        if self.args.world_size == 1:
            return not bool(unsound)
        asked = unsound.new_full((), self.asked_to_stop())
        bad, stop = self.across_processes(torch.stack([unsound, asked]).to(torch.float32)).tolist()
        self._stop_agreed = stop > 0
        return bad == 0

    def should_stop(self) -> bool:
        """Whether any process was asked to stop: the same answer in all of them at the end of a step."""
        return self._stop_agreed if self.args.world_size > 1 else self.asked_to_stop()

    def across_processes(self, values: Tensor) -> Tensor:
        """Sum over the processes; the values themselves where there is one."""
        return self.accelerator.reduce(values.to(self.args.device), "sum") if self.args.world_size > 1 else values

    # The files of a checkpoint as transformers reads them: tensors and plain values. Those of a run in shards are read
    # with pickle, by torch and DeepSpeed: the session asks before.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with _reading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _require_finite(self) -> None:
        # A run that goes on from NaN stays there: the checkpoint before is worth more.
        assert self.model is not None
        trained = ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)
        # Of weights in shards each process looks at its own.
        here = ((name, value.to_local() if hasattr(value, "to_local") else value) for name, value in trained)
        bad = torch.tensor([float(first_not_finite(here) is not None)])
        if float(self.across_processes(bad)) > 0:
            raise GfvizError(
                f"step {self.state.global_step}: trained weights are NaN or infinite: no checkpoint is written: lower "
                "training.learning_rate and resume from the last one, or start anew"
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._require_finite()
        # transformers writes the files one by one: the marker, written last, is what makes them a checkpoint.
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save and folder.exists():
                shutil.rmtree(folder)
            super()._save_checkpoint(model, trial)
            # Rows up to this step must be in the store before the checkpoint says that the step is done.
            self.before_seal()
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                _seal(folder, self.state.global_step, {**self.fusion_state, "scales": self.objective.scales}, self.args)
                prune_checkpoints(folder.parent, self.keep_checkpoints)
        except (OSError, RuntimeError) as error:
            if self.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise GfvizError(
                f"cannot write the checkpoint {folder}: {' '.join(str(error).split())[:200]}; the last one is kept"
            ) from error


def spoiler(finite: Mapping[str, Tensor]) -> Tensor:
    """1 where all was finite, else NaN: the factor of a loss whose step must not be applied.

    DeepSpeed's engine steps inside the backward pass, before a callback could drop the gradients, and holds those of
    the step's earlier passes in buffers of its own. It skips a step whose gradients overflowed, on every process.
    """
    sound = torch.stack(list(finite.values())).all()
    return torch.where(sound, 1.0, torch.nan)


@contextmanager
def _reading(checkpoint: str | None) -> Iterator[None]:
    # Each library that reads a part of it fails in a way of its own.
    try:
        yield
    except Exception as error:
        raise damaged_checkpoint(Path(checkpoint or ""), error) from error


def _seal(folder: Path, step: int, state: dict[str, Any], arguments: TrainingArguments) -> None:
    atomic_write_text(folder / "fusion.json", json.dumps({**state, "world_size": arguments.world_size}) + "\n")
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as written:
                os.fsync(written.fileno())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    atomic_write_text(folder / COMPLETE, json.dumps({"version": 1, "step": step, "files": sizes}) + "\n")


def prune_checkpoints(parent: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints, and every half one."""
    whole: list[tuple[int, Path]] = []
    half: list[tuple[int, Path]] = []
    for path in parent.glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal() and not path.is_symlink():
            (whole if checkpoint_is_whole(path) else half).append((int(step), path))
    for _, path in half + sorted(whole)[:-keep]:
        # The marker goes first: a kill in between must not leave a marked folder without its files.
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
