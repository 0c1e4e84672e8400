"""One fusion from configuration to saved model: `fuse`, `resume`, and the body that a detached worker runs too."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text, read_small_text
from gfviz.fusion.arguments import training_arguments
from gfviz.fusion.callback import EventHook, FusionEvent, RunCallback, silent
from gfviz.fusion.config import FusionConfig, load_config, parse_config
from gfviz.fusion.data import Example, as_examples, examples_hash, read_examples, spread, write_examples
from gfviz.fusion.evaluation import EvaluationReport, evaluate_loaded, exact_matches_at
from gfviz.fusion.loading import home_device
from gfviz.fusion.onpolicy import OwnAnswers
from gfviz.fusion.prepare import Prepared, prepare
from gfviz.fusion.saving import damaged_checkpoint, model_card, model_hash, save_model
from gfviz.fusion.sharding import is_sharded, place_teachers, whole_state
from gfviz.fusion.stopping import stop_signals
from gfviz.fusion.trust import refuse_code, refuse_pickles
from gfviz.runs import RunDirectory, RunWriter
from gfviz.runs.identity import ProcessIdentity


def fuse(
    config: str | Path | Mapping[str, Any] | FusionConfig,
    overrides: Sequence[str] = (),
    *,
    on_event: EventHook = silent,
    train: Sequence[Any] | None = None,
    evaluation: Sequence[Any] | None = None,
) -> RunDirectory:
    """Fuse in this process and return the run. A run directory appears once the inputs have proved readable.

    `config` is a YAML file, a mapping or a `FusionConfig`; `train` and `evaluation` may hold examples in memory instead
    of the configuration's files (they are written into the run, so that it can be resumed). SIGTERM or Ctrl-C finishes
    the step, writes a checkpoint and ends as `stopped`. Raises `GfvizError` for bad input, naming the key.
    """
    checked = read_config(config, overrides)
    examples = (_examples(train, checked.data.train), _examples(evaluation, checked.data.evaluation))
    learned = examples[0]
    if checked.data.answers_from is not None:
        learned = _answers(checked, learned)
    prepared = prepare(checked, learned, examples[1]) if checked.mode == "unified" else None
    run = create_run(checked, train, evaluation, ProcessIdentity.of())
    if checked.data.answers_from is not None:
        write_examples(run.path / ANSWERS, learned)
    execute(run, on_event, prepared=prepared, trusted=True)
    return run


ANSWERS = Path("data") / "answers.jsonl"


def _answers(config: FusionConfig, train: list[Example]) -> list[Example]:
    from gfviz.fusion.prepare import own_answers

    return own_answers(config, train, home_device(config))[0]


def read_config(config: str | Path | Mapping[str, Any] | FusionConfig, overrides: Sequence[str] = ()) -> FusionConfig:
    """A checked configuration from a file, a mapping or one already checked."""
    if isinstance(config, FusionConfig):
        return parse_config(config.to_mapping(), overrides)
    return parse_config(config, overrides) if isinstance(config, Mapping) else load_config(config, overrides)


def create_run(
    config: FusionConfig,
    train: Sequence[Any] | None = None,
    evaluation: Sequence[Any] | None = None,
    process: ProcessIdentity | None = None,
) -> RunDirectory:
    """Make the run directory, with the examples that were given in memory; `process` is who will `execute` it."""
    in_memory = (("train", train), ("evaluation", evaluation))
    given = {name: as_examples(items) for name, items in in_memory if items is not None}

    def fill(folder: Path) -> None:
        for name, examples in given.items():
            write_examples(folder / "data" / f"{name}.jsonl", examples)

    return RunDirectory.create(config.runs, config.to_mapping(), "fusion", config.name, fill, process)


def resume(run: RunDirectory, on_event: EventHook = silent, trust_remote_code: bool = False) -> RunDirectory:
    """Go on from the newest whole checkpoint (from the beginning where there is none), in this process.

    Rows after that checkpoint are computed again. Raises `GfvizError` for a run that has finished, that another
    process writes, whose checkpoint belongs to another number of processes, or whose configuration asks for a model's
    own code while `trust_remote_code` is not set.
    """
    if run.status().state == "finished":
        raise GfvizError(f"run {run.id} has finished: there is nothing to resume")
    execute(run, on_event, trusted=trust_remote_code)
    return run


def execute(
    run: RunDirectory, on_event: EventHook = silent, prepared: Prepared | None = None, trusted: bool = False
) -> str | None:
    """Train a run that exists: become its writer (in the first process), train, evaluate, save, note how it ended.

    `trusted`: whoever started it has seen its configuration, which may have a model's own code run. Returns None where
    it has finished, else why it stopped, the same in every process.
    """
    if run.record().state == "finished":
        raise GfvizError(f"run {run.id} has finished: there is nothing to resume")
    config = parse_config(run.config, source=str(run.path / "config.yaml"))
    if not trusted:
        refuse_code(run.config, str(run.path / "config.yaml"))
    main = int(os.environ.get("RANK", "0")) == 0
    writer = run.writer(config.store.on_failure) if main else None
    try:
        with stop_signals() as stopping:
            if config.mode == "pairwise":
                from gfviz.fusion.pairwise import fuse_pairwise

                ended = fuse_pairwise(run, config, writer, on_event)
                writer_ends(writer, ended)
                return ended
            if prepared is None:
                if config.data.answers_from is not None and not (run.path / ANSWERS).is_file():
                    if main:
                        write_examples(run.path / ANSWERS, _answers(config, run_examples(run, config)[0]))
                    else:
                        # One process asks the teacher; the others read what it wrote, once it is there whole.
                        wait_until((run.path / ANSWERS).is_file)
                prepared = prepare(config, *run_examples(run, config))
            stopped_at = _Session(run, config, prepared, writer, on_event, stopping, trusted).work()
    except BaseException as error:
        if writer is not None:
            interrupted = isinstance(error, KeyboardInterrupt)
            text = "interrupted" if interrupted else f"{_kind(error)}{' '.join(str(error).split())[:400]}"
            writer.finish("stopped" if interrupted else "failed", text)
        raise
    ended = None if stopped_at is None else f"asked to stop; checkpoint at step {stopped_at}"
    writer_ends(writer, ended)
    return ended


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for what the first process does; where that dies the launcher ends this one too."""
    while not done():
        time.sleep(0.2)


def writer_ends(writer: RunWriter | None, stopped: str | None) -> None:
    """Mark the run as finished, or as stopped for the reason given."""
    if writer is not None:
        writer.finish("finished" if stopped is None else "stopped", stopped or "")


def run_examples(run: RunDirectory, config: FusionConfig) -> tuple[list[Example], list[Example]]:
    """Training and evaluation examples of a run: those kept in it, else those of the configuration's files."""
    found = []
    for name, files in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        kept = run.path / "data" / f"{name}.jsonl"
        if name == "train" and (run.path / ANSWERS).is_file():
            kept = run.path / ANSWERS
        found.append(read_examples([kept]) if kept.is_file() and kept.stat().st_size else _examples(None, files))
    return found[0], found[1]


def _examples(items: Sequence[Any] | None, files: Sequence[str]) -> list[Example]:
    return as_examples(items) if items is not None else read_examples(files)


def _kind(error: BaseException) -> str:
    return "" if isinstance(error, GfvizError) else f"{type(error).__name__}: "


class _Session:
    def __init__(
        self,
        run: RunDirectory,
        config: FusionConfig,
        prepared: Prepared,
        writer: RunWriter | None,
        hook: EventHook,
        stopping: Callable[[], bool],
        trusted: bool,
    ) -> None:
        self.run = run
        self.config = config
        self.prepared = prepared
        self.writer = writer
        self.hook = hook
        self.asked = stopping
        self.trusted = trusted
        self.reports: dict[str, EvaluationReport] = {}
        self.merged: Any = None

    def work(self) -> int | None:
        """Train to the end; the step of the checkpoint where a stop was asked for, else None."""
        from gfviz.fusion.trainer import FusionTrainer, prune_checkpoints

        prepared, config = self.prepared, self.config
        callback = RunCallback(config, self.writer, self.hook, self._evaluate, self._measure)
        self.trainer = FusionTrainer(
            prepared.trained,
            training_arguments(config, self.run),
            prepared.objective,
            prepared.train,
            prepared.collator,
            prepared.k,
            config.loss.temperature,
            callbacks=[callback],
            keep_checkpoints=config.training.keep_checkpoints,
            balance_every=config.loss.balance_every,
            own=OwnAnswers(prepared) if config.data.on_policy else None,
        )
        self.trainer.asked_to_stop = self.asked
        callback.attach(self.trainer)
        self.collective = is_sharded(self.trainer.accelerator)
        if self.collective and config.data.on_policy:
            raise GfvizError(
                "data.on_policy: a sharded pivot cannot answer step by step: use DDP (multi-gpu) or ZeRO-2"
            )
        if self.collective and config.pivot.lora is not None:
            raise GfvizError("pivot.lora: adapters are not trained on a sharded pivot: use DDP (multi-gpu) or ZeRO-2")
        # After the trainer: its accelerator decides the device, and must not take the teachers for trained models.
        place_teachers(config, prepared.online, self.trainer.accelerator)
        if self.writer is not None:
            prune_checkpoints(self.run.checkpoints_path, config.training.keep_checkpoints)
        # Before anything is noted: who may not go on leaves the run's facts and rows as they are.
        found = self._restore()
        if self.writer is not None:
            self._note_facts()
            self._drop_rows_after(found)
        checkpoint = None if found is None else found[1]
        if checkpoint is None and config.evaluation.at_start and prepared.evaluation:
            self._score(0, "the pivot")
        self.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if callback.stopped:
            return int(self.trainer.state.global_step)
        step = int(self.trainer.state.global_step)
        # Before the last evaluation: whatever fails there, the model is on the disk.
        self._save()
        if config.evaluation.at_end and prepared.evaluation:
            self._score(step, "the fused model")
            self._rewrite_card()
        self.hook(FusionEvent("end", step, step))
        return None

    def _restore(self) -> tuple[int, Path] | None:
        whole = self.run.checkpoints()
        if not whole:
            return None
        step, folder = whole[-1]
        refuse_pickles(folder, str(self.trainer.accelerator.distributed_type.value), self.trusted)
        try:
            state = json.loads(read_small_text(folder / "fusion.json"))
            size, bad = int(state["world_size"]), int(state["bad_steps"])
            scales = {str(name): float(value) for name, value in state["scales"].items()}
            kept = json.loads(read_small_text(folder / "trainer_state.json", 1 << 30))
            if kept["global_step"] != step:
                raise ValueError(f"it was written at step {kept['global_step']}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise damaged_checkpoint(folder, error) from error
        if size != self.trainer.args.world_size:
            raise GfvizError(
                f"{folder} was written by {size} processes and cannot be resumed by {self.trainer.args.world_size}: "
                f"resume with {size}"
            )
        self.trainer.fusion_state["bad_steps"] = bad
        self.prepared.objective.scales = scales
        return step, folder

    def _drop_rows_after(self, found: tuple[int, Path] | None) -> None:
        if self.writer is not None:
            self.writer.truncate_after(-1 if found is None else found[0])
            if found is not None:
                self.writer.event(f"resumed from the checkpoint at step {found[0]}", step=found[0])

    def _note_facts(self) -> None:
        from importlib.metadata import version

        prepared, config = self.prepared, self.config
        names = ("gfviz", "torch", "transformers", "accelerate", "tokenizers", "numpy")
        train, evaluation = run_examples(self.run, config)
        models = {"pivot": config.pivot, **{teacher.name: teacher for teacher in config.teachers}}
        self.facts = {
            "versions": {name: version(name) for name in names} | {"python": sys.version.split()[0]},
            "seed": config.seed,
            "k": prepared.k,
            "data": {"train": examples_hash(train), "evaluation": examples_hash(evaluation)},
            "models": {name: model_hash(one.model, one.revision) for name, one in models.items()},
            "device": str(self.trainer.args.device),
            "world_size": self.trainer.args.world_size,
            "distributed": str(self.trainer.accelerator.distributed_type.value),
            "sharded_teachers": [teacher.name for teacher in prepared.online if teacher.collective],
            "dropped_examples": prepared.dropped,
            "coverage": {name: round(found.share, 6) for name, found in prepared.coverage.items()},
            **prepared.facts,
        }
        self._require_same(self.run.record().facts)
        self.run.add_facts(self.facts)
        if self.writer is not None:
            for name, found in prepared.coverage.items():
                self.writer.event(f"teacher {name}: {found.share:.1%} of {found.positions} positions aligned")
            if prepared.dropped:
                self.writer.event(f"{prepared.dropped} examples were too long and dropped", kind="warning")

    def _require_same(self, earlier: Mapping[str, Any]) -> None:
        # Half a run on other data, or from another model, would look like a whole one.
        if not self.run.checkpoints():
            return
        for what in ("data", "models", "architectures", "tokenizers", "k"):
            if what in earlier and earlier[what] != self.facts[what]:
                raise GfvizError(
                    f"run {self.run.id} cannot go on: its {what} changed since it began (recorded {earlier[what]}, now "
                    f"{self.facts[what]}): restore them, or start a new run"
                )

    def _evaluate(self, step: int) -> dict[str, float]:
        if not self.prepared.evaluation or (self.writer is None and not self.collective):
            return {}
        settings = self.config.evaluation

        def beat(_done: int, _total: int) -> None:
            if self.writer is not None:
                self.writer.beat()

        report = evaluate_loaded(
            self._model(),
            self.prepared.pivot.tokenizer,
            spread(self.prepared.evaluation, settings.limit),
            self.config.name,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            confidence=settings.confidence,
            chat_template=self.config.data.chat_template,
            on_progress=beat,
        )
        self.reports["start" if step == 0 else "end"] = report
        return report.metrics()

    def _score(self, step: int, who: str) -> None:
        self.hook(FusionEvent("stage", step, text=f"evaluating {who}"))
        rows = self._evaluate(step)
        if self.writer is not None and rows:
            self.writer.log(step, rows)
            self.writer.flush()
        self.hook(FusionEvent("evaluation", step, int(self.trainer.state.max_steps), rows))

    def _measure(self, step: int) -> dict[str, float]:
        if not self.prepared.objective.terms or not self.prepared.probe:
            return {}
        if self.writer is None and not self.collective:
            return {}
        if not hasattr(self, "_probe"):
            from gfviz.fusion.probe import GraphProbe

            self._probe = GraphProbe(
                self.prepared.probe, self.prepared.collator, self.config.graph.budget, self.run.path / "graphs",
                self.trainer.args.device,
            )  # fmt: skip
        sources = [term.source for term in self.prepared.objective.terms]

        def warn(text: str) -> None:
            if self.writer is not None:
                self.writer.event(text, kind="warning", step=step)

        found = self._probe.measure(step, self.trainer.probe_signal, sources, warn, keep=self.writer is not None)
        rows = {f"graph/{item.teacher}/lower": item.lower for item in found}
        return rows | {f"graph/{item.teacher}/upper": item.upper for item in found}

    def _save(self) -> None:
        state = whole_state(self.trainer) if self.collective else None
        if self.writer is None:
            return
        if self.config.pivot.lora is not None:
            self.merged = self._model().merge_and_unload()
        save_model(self._model(), self.prepared.pivot.tokenizer, self.run.model_path, self._card(), state)

    def _model(self) -> Any:
        """The pivot as it is now; once its adapters are merged, the model that was saved."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model) if self.merged is None else self.merged

    def _rewrite_card(self) -> None:
        if self.writer is not None:
            atomic_write_text(self.run.model_path / "README.md", self._card())

    def _card(self) -> str:
        start = self.reports.get("start")
        # A resumed run has not scored the pivot itself.
        before = exact_matches_at(self.run.reader(), 0) if start is None else start.exact_matches
        return model_card(self.config, self.run.id, self.facts, before, self.reports.get("end"))
