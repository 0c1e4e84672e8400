"""Pairwise fusion: the pivot with each source alone, then one model by a weighted mean of the weights.

InfiFusion (arXiv 2501.02795) defines both forms: unified (all sources at once) and pairwise followed by a merge.
"""

import os
from pathlib import Path
from typing import Any

import torch

from gfviz.files import atomic_write_text
from gfviz.fusion.callback import EventHook, FusionEvent
from gfviz.fusion.config import FusionConfig
from gfviz.fusion.trust import asks_for_code
from gfviz.runs import RunDirectory, RunWriter, list_runs
from gfviz.runs.identity import ProcessIdentity


def fuse_pairwise(run: RunDirectory, config: FusionConfig, writer: RunWriter | None, hook: EventHook) -> str | None:
    """Fuse with each teacher in a run of its own under `pairs/`, merge, evaluate, save.

    A pair that has finished is not fused again when the run is resumed. Returns None, or why it stopped.
    """
    from gfviz.fusion.session import create_run, execute, run_examples, wait_until

    train, evaluation = run_examples(run, config)
    folder = run.path / "pairs"
    # What the run itself may, its pairs may.
    trusted = asks_for_code(config.to_mapping()) is not None
    for teacher in config.teachers:
        if int(os.environ.get("RANK", "0")):
            # The first process makes the pair's run.
            wait_until(lambda name=teacher.name: _pair(folder, name) is not None)  # type: ignore[misc]
        pair = _pair(folder, teacher.name)
        if pair is None:
            mapping = config.to_mapping() | {"mode": "unified", "name": teacher.name, "runs": str(folder)}
            mapping["teachers"] = [teacher.model_dump(mode="json", by_alias=True)]
            pair = create_run(FusionConfig.model_validate(mapping), train, evaluation, ProcessIdentity.of())
        if pair.record().state != "finished":
            hook(FusionEvent("stage", text=f"fusing with {teacher.name}"))
            if execute(pair, hook, trusted=trusted) is not None:
                return f"stopped while fusing with {teacher.name}"
        if writer is not None:
            for name, (step, value, _) in pair.reader().latest().items():
                writer.log(step, {f"pair/{teacher.name}/{name}": value})
            writer.event(f"pair with {teacher.name} finished in {pair.id}")
    if writer is not None:
        _merge(run, config, writer, evaluation)
    return None


def _pair(folder: Path, name: str) -> RunDirectory | None:
    return next((found for found in list_runs(folder) if found.record().name == name), None)


def _merge(run: RunDirectory, config: FusionConfig, writer: RunWriter, evaluation: list[Any]) -> None:
    from gfviz.capture.models import load_model
    from gfviz.fusion.data import spread
    from gfviz.fusion.evaluation import evaluate_loaded
    from gfviz.fusion.saving import model_card, save_model

    weights = config.teacher_weights()
    pairs = {found.record().name: found.model_path for found in list_runs(run.path / "pairs")}
    device = "cpu" if config.training.device == "cpu" else None
    pivot = config.pivot
    merged = load_model(pivot.model, "cpu", "float32", pivot.trust_remote_code, pivot.revision)
    means: dict[str, torch.Tensor] = {}
    for name, share in weights.items():
        part = load_model(pairs[name], "cpu", "float32").model.state_dict()
        for key, value in part.items():
            term = value.double() * share if value.is_floating_point() else value
            means[key] = means[key] + term if key in means and value.is_floating_point() else term
    merged.model.load_state_dict(means)
    facts = {"merge": weights}
    run.add_facts(facts)
    # Before the evaluation: whatever fails there, the model is on the disk.
    save_model(merged.model, merged.tokenizer, run.model_path, model_card(config, run.id, facts, {}, None))
    settings = config.evaluation
    if evaluation and settings.at_end:
        moved = load_device(merged.model, device)
        report = evaluate_loaded(
            moved, merged.tokenizer, spread(evaluation, settings.limit), config.name, batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens, confidence=settings.confidence,
            chat_template=config.data.chat_template,
        )  # fmt: skip
        step = int(max((item[0] for item in writer.run.reader().latest().values()), default=0))
        writer.log(step, report.metrics())
        atomic_write_text(run.model_path / "README.md", model_card(config, run.id, facts, {}, report))


def load_device(model: Any, device: str | None) -> Any:
    """The model on the device asked for, or on the best there is."""
    from gfviz.capture.models import pick_device

    return model.to(pick_device(device))
