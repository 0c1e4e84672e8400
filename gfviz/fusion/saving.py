"""The fused model as an ordinary transformers folder, with a card that says where it comes from."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gfviz.capture.models import hub_commit
from gfviz.errors import GfvizError
from gfviz.files import fresh_folder, remove_whatever
from gfviz.fusion.config import FusionConfig, ModelConfig
from gfviz.fusion.evaluation import EvaluationReport
from gfviz.runs.yamlfile import parse_yaml

_WHOLE_HASH_BYTES = 256 * 1024 * 1024
_BLOCK = 1 << 20
_SAMPLED_BLOCKS = 64
# Where it lay, who wrote it, and what the run's own configuration says.
_NOT_COMPUTED = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation", "use_cache"}
_CALLED_WITH = {"padding", "truncation"}


def save_model(model: Any, tokenizer: Any, folder: Path, card: str, state: Mapping[str, Any] | None = None) -> None:
    """Write weights (safetensors), tokenizer, chat template and README.md; the folder appears whole or not at all.

    Raises `GfvizError` where it cannot be written, and for weights that are not finite.
    """
    require_finite(state if state is not None else model.state_dict(), f"the model is not saved to {folder}")
    scratch, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        # A run from elsewhere may hold a link by that name, through which all would be written elsewhere.
        fresh_folder(scratch)
        remove_whatever(old)
        model.save_pretrained(scratch, state_dict=state)
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        for path in scratch.rglob("*"):
            if path.is_file():
                with open(path, "rb") as written:
                    os.fsync(written.fileno())
        if folder.exists():
            os.rename(folder, old)
        os.rename(scratch, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise GfvizError(f"cannot save the fused model to {folder}: {' '.join(str(error).split())[:200]}") from error


def model_card(
    config: FusionConfig,
    run_id: str,
    facts: Mapping[str, Any],
    before: Mapping[str, float],
    after: EvaluationReport | None,
) -> str:
    """The model card: pivot, sources, licences as far as their own cards name them, data, losses, scores.

    `before` is the pivot's exact match by family, that of all examples under the empty name.
    """
    lines = ["---", "library_name: transformers", "tags: [model-fusion, gfviz]", "---", "", f"# {config.name}", ""]
    lines += [f"Fused by gfviz {facts.get('versions', {}).get('gfviz', '')} in run `{run_id}`.", ""]
    lines += ["| role | model | licence | weight | losses |", "| --- | --- | --- | --- | --- |"]
    lines.append(f"| pivot | {_named(config.pivot)} | {_licence(config.pivot.model)} | | |")
    weights = config.teacher_weights() if config.teachers else {}
    for teacher in config.teachers:
        token, structure = teacher.token or config.loss.token, teacher.structure or config.loss.structure
        control = "" if teacher.control == "none" else f", control {teacher.control}"
        cells = (
            f"source {teacher.name}",
            _named(teacher),
            _licence(teacher.model),
            f"{weights[teacher.name]:.3g}",
        )
        lines.append(f"| {' | '.join(cells)} | {token} + {structure}{control} |")
    lines += ["", "The fused model is bound by the licences of all of them.", "", "## Data", ""]
    for role, files in (("training", config.data.train), ("evaluation", config.data.evaluation)):
        lines.append(f"- {role}: {', '.join(_cell(name) for name in files) or 'examples given in memory'}")
    hashes = facts.get("data", {})
    lines += [f"- SHA-256 {name}: `{value}`" for name, value in hashes.items()]
    lines += ["", "## Scores", ""]
    if after is None:
        lines.append("Not evaluated.")
    else:
        interval = f"{after.confidence:.0%} interval"
        lines += [
            f"| family | pivot | fused ({interval}) | NLL per token | calibration error | n |",
            f"|{' --- |' * 6}",
        ]
        for name, score in {"": after.overall, **after.families}.items():
            first = f"{before[name]:.3f}" if name in before else ""
            row = (
                _cell(name) or "all",
                first,
                f"{score.exact_match:.3f} ({score.low:.3f}–{score.high:.3f})",
                _with_interval(score.nll, score.nll_low, score.nll_high),
                _with_interval(score.ece, score.ece_low, score.ece_high),
                str(score.count),
            )
            lines.append(f"| {' | '.join(row)} |")
        lines += ["", f"NLL per byte: {after.nll_per_byte:.4f} nats."]
    return "\n".join(lines) + "\n"


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f}–{high:.3f})"


def require_finite(state: Mapping[str, Any], what: str) -> None:
    """Raise `GfvizError` where a weight is NaN or infinite. Cost: one read of the weights."""
    name = first_not_finite(state.items())
    if name is not None:
        raise GfvizError(f"{name} has weights that are NaN or infinite: {what}: lower training.learning_rate")


def first_not_finite(tensors: Iterable[tuple[str, Any]]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity, or None. Cost: one read of them.

    >>> import torch
    >>> first_not_finite([("a", torch.ones(2)), ("b", torch.tensor([0.0, torch.nan]))])
    'b'
    """
    import torch

    floating = ((name, value) for name, value in tensors if value.is_floating_point())
    return next((name for name, value in floating if not bool(torch.isfinite(value).all())), None)


def config_hash(config: Any) -> str:
    """SHA-256 of what a model's configuration says of its computation: a transformers configuration."""
    told = {name: value for name, value in config.to_dict().items() if name not in _NOT_COMPUTED}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of all that decides how a tokenizer cuts a text: vocabulary, merges, normalizer, templates.

    A tokenizer of pure Python is known by its class and vocabulary.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        told: Any = [type(tokenizer).__name__, tokenizer.get_vocab()]
    else:
        # Padding and truncation are how it was called last.
        told = {name: value for name, value in json.loads(backend.to_str()).items() if name not in _CALLED_WITH}
    text = json.dumps([told, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def model_hash(where: str, revision: str | None = None) -> str:
    """SHA-256 of a local model's weights, or `hub:ID@COMMIT` of one on the hub (the commit that this machine loaded).

    A hub model that this machine has not loaded is `hub:ID`, with the revision that was asked for.

    Files above 256 MB in all are read in 64 blocks of 1 MB spread evenly over each, with their sizes: two fine-tunes of
    one model differ in nearly every block.
    """
    folder = Path(where)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        which = hub_commit(where, revision) or revision
        return f"hub:{where}@{which}" if which else f"hub:{where}"
    digest = hashlib.sha256()
    whole = sum(path.stat().st_size for path in files) <= _WHOLE_HASH_BYTES
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        step = _BLOCK if whole else max(_BLOCK, size // _SAMPLED_BLOCKS)
        with open(path, "rb") as content:
            for start in range(0, size, step):
                content.seek(start)
                digest.update(content.read(_BLOCK))
    return digest.hexdigest()


def damaged_checkpoint(folder: Path, error: Exception) -> GfvizError:
    """What to say of a checkpoint that cannot be read."""
    text = " ".join(str(error).split())[:200]
    return GfvizError(f"{folder} is damaged ({text}): remove it to resume from the checkpoint before")


def _named(model: ModelConfig) -> str:
    commit = hub_commit(model.model, model.revision) or model.revision
    return _cell(f"{model.model}@{commit}" if commit else model.model)


def _licence(where: str) -> str:
    # The licence that a model's own card declares in its front matter; the card of a hub id is not fetched for it.
    path = Path(where) / "README.md"
    if not path.is_file():
        return "see its card"
    with open(path, "rb") as card:
        text = card.read(65536).decode("utf-8", errors="replace")
    if not text.startswith("---"):
        return "not stated"
    try:
        front = parse_yaml(text.split("---", 2)[1])
    except GfvizError:
        return "not stated"
    return _cell(str(front.get("license", "not stated"))) if isinstance(front, dict) else "not stated"


def _cell(text: str) -> str:
    # Names come from users and files: nothing in them may break the table or become markup.
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|").replace("<", "&lt;").replace("`", "'")[:200]
