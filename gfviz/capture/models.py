"""Loading language models as a stranger's files: safetensors only, no remote code, a head that was really stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError
from gfviz.paths import check_model_folder, names_a_path

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model with its tokenizer and the name it goes by; `revision` as it was asked for on the hub."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None = None

    @property
    def context(self) -> int | None:
        """The longest sequence that the model's positions allow, or None where the configuration names no limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)  # absent in some families
        return int(limit) if isinstance(limit, int) and limit > 0 else None


def pick_device(device: str | None = None) -> str:
    """The device to run on: the one asked for, else CUDA, else MPS, else the CPU."""
    import torch

    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise GfvizError(f"device '{device}' is not available here: {str(error).splitlines()[0]}") from error
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_model(
    where: str | Path,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    attention: str | None = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer from a local folder or a hub id.

    `revision` is a branch, tag or commit on the hub; `attention` names an attention implementation of transformers.
    Weights are read from safetensors alone, in float32 on a CPU and in the stored precision elsewhere unless `dtype`
    says otherwise. Raises `GfvizError` for a missing folder or file, pickled weights, code that the model would have
    to bring along, an architecture without a language-model head, a checkpoint whose head was not stored, or a
    revision of a local folder.
    """
    if attention is not None and "/" in attention:
        raise GfvizError(f"attention {attention[:80]!r} is a kernel on the hub, which is code: name one of its own")
    device = pick_device(device)
    options = {"dtype": dtype or ("float32" if device == "cpu" else "auto"), "attn_implementation": attention}
    loaded = load_with(str(where), options, trust_remote_code, revision)
    loaded.model.to(device)  # type: ignore[arg-type]
    return loaded


def load_with(
    where: str, options: dict[str, Any], trust_remote_code: bool = False, revision: str | None = None
) -> LoadedModel:
    """As `load_model`, with `options` of transformers that say where the weights go and in what precision."""
    check_model_folder(where)
    _check_revision(where, revision)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        source: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
        config = AutoConfig.from_pretrained(where, **source)
        if type(config) not in tuple(MODEL_FOR_CAUSAL_LM_MAPPING.keys()) and not getattr(config, "auto_map", None):
            raise GfvizError(f"{where}: a {config.model_type} model has no language-model head: give a causal LM")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            **options,
            **source,
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(where, **source)
    except GfvizError:
        raise
    except BaseException as error:
        if not _is_fault_of_file(error):
            raise
        raise GfvizError(_reason(where, error, revision)) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise GfvizError(
            f"{where}: the weights lack {missing[0]}{' and others' if len(missing) > 1 else ''}: "
            "this is no complete causal language model (was it saved without its head?)"
        )
    return LoadedModel(model.eval(), tokenizer, Path(where).name or where, revision)


def load_tokenizer(where: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or hub id, never running code of its own. Raises `GfvizError`."""
    where = str(where)
    names_a_path(where)
    _check_revision(where, revision)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False, revision=revision)
    except BaseException as error:
        if not _is_fault_of_file(error):
            raise
        raise GfvizError(f"{where}: no tokenizer can be read there ({' '.join(str(error).split())[:200]})") from error


def _is_fault_of_file(error: BaseException) -> bool:
    # A panic of the Rust libraries (tokenizers, on a broken `precompiled_charsmap` say) is no `Exception` to Python,
    # and its class cannot be imported.
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _check_revision(where: str, revision: str | None) -> None:
    # transformers would ignore it, and the run's record would then name a revision that nobody checked.
    if revision is not None and Path(where).exists():
        raise GfvizError(f"{where}: a local folder has no revision '{revision}': leave it out, or give the hub id")


def hub_commit(where: str, revision: str | None = None) -> str | None:
    """The commit of a hub id that this machine's cache holds for `revision`, None where it holds none.

    Nothing is fetched: what was loaded from the hub lies in the cache under its commit.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(where, "config.json", revision=revision)
    except HFValidationError:  # not the form of a hub id
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def _reason(where: str, error: BaseException, revision: str | None) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return f"{where}: the model needs code of its own, which is not run unless you pass --trust-remote-code"
    if not Path(where).exists() and isinstance(error, OSError):
        which = f" at revision '{revision}'" if revision else ""
        return f"{where}: neither a local folder nor a model that can be fetched from the hub{which}"
    return f"{where}: cannot be loaded as a causal language model ({text[:200]})"
