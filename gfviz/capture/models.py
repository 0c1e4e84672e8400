"""Loading language models as a stranger's files: safetensors only, no remote code, a head that was really stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model with its tokenizer and the name it goes by."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

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
) -> LoadedModel:
    """Load a causal language model and its tokenizer from a local folder or a hub id.

    Weights are read from safetensors alone, in float32 on a CPU and in the stored precision elsewhere unless `dtype`
    says otherwise. Raises `GfvizError` for a missing folder or file, pickled weights, code that the model would have
    to bring along, an architecture without a language-model head, or a checkpoint whose head was not stored.
    """
    where = str(where)
    _check_folder(where)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    device = pick_device(device)
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code)
        if type(config) not in tuple(MODEL_FOR_CAUSAL_LM_MAPPING.keys()) and not getattr(config, "auto_map", None):
            raise GfvizError(f"{where}: a {config.model_type} model has no language-model head: give a causal LM")
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=dtype or ("float32" if device == "cpu" else "auto"),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=trust_remote_code)
    except GfvizError:
        raise
    except Exception as error:
        raise GfvizError(_reason(where, error)) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise GfvizError(
            f"{where}: the weights lack {missing[0]}{' and others' if len(missing) > 1 else ''}: "
            "this is no complete causal language model (was it saved without its head?)"
        )
    return LoadedModel(model.to(device).eval(), tokenizer, Path(where).name or where)


def load_tokenizer(where: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or hub id, never running code of its own. Raises `GfvizError`."""
    where = str(where)
    _is_local(where)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except Exception as error:
        raise GfvizError(f"{where}: no tokenizer can be read there ({' '.join(str(error).split())[:200]})") from error


def _is_local(where: str) -> bool:
    """Whether it is a path that exists; raises where it can only have been meant as one."""
    if Path(where).exists():
        return True
    if where.startswith((".", "/", "~")) or where.count("/") > 1 or "\\" in where:
        raise GfvizError(f"{where}: no such folder")
    return False  # a hub id


def _check_folder(where: str) -> None:
    if not _is_local(where):
        return
    folder = Path(where)
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise GfvizError(f"{where}: not a model folder (there is no config.json in it)")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        reason = "its weights are pickled, which can run code" if pickled else "it has no weights"
        raise GfvizError(f"{where}: {reason}: expected model.safetensors")


def _reason(where: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return f"{where}: the model needs code of its own, which is not run unless you pass --trust-remote-code"
    if not Path(where).exists() and isinstance(error, OSError):
        return f"{where}: neither a local folder nor a model that can be fetched from the hub"
    return f"{where}: cannot be loaded as a causal language model ({text[:200]})"
