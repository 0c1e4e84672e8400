"""Loading pivot and teachers as a configuration asks: revision, precision, device, shards, bits, adapters."""

import importlib.util
from typing import Any

from gfviz.capture.models import LoadedModel, load_model, load_with, pick_device
from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, LoraConfig, ModelConfig, TeacherConfig


def home_device(config: FusionConfig) -> str:
    """Where models without a device of their own run: the CPU, or the best device there is."""
    return "cpu" if config.training.device == "cpu" else pick_device()


def computes_in(config: FusionConfig) -> bool:
    """Whether the precision asked for is one in which the training device computes."""
    # Accelerate passes over float16 on a CPU in silence.
    return config.training.precision != "float16" or home_device(config) != "cpu"


def load_pivot(config: FusionConfig) -> LoadedModel:
    """The pivot on the CPU, in float32 unless its dtype says otherwise: the trainer decides where it goes.

    Raises `GfvizError` also for a precision in which this machine would not compute.
    """
    if not computes_in(config):
        raise GfvizError(
            "training.precision: float16 is for GPUs, on a CPU the computation would stay in float32: set float32 or "
            "bfloat16"
        )
    return _load(config.pivot, "pivot", "cpu", _dtype(config.pivot), config.pivot.attention)


def load_teacher(teacher: TeacherConfig, home: str = "cpu") -> LoadedModel:
    """A teacher's model as its configuration asks: on a device, sharded over all of them, or quantised.

    One without a device is loaded on the CPU, to be moved to `home` or sharded later; where `home` is no CPU it keeps
    the precision in which it is stored. Raises `GfvizError` naming the key for what cannot be loaded so.
    """
    key = f"teachers.{teacher.name}"
    if teacher.quantization == "none" and teacher.device != "auto":
        runs_on = teacher.device or home
        dtype = _dtype(teacher) or ("float32" if runs_on == "cpu" else "auto")
        return _load(teacher, key, teacher.device or "cpu", dtype)
    if teacher.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise GfvizError(
            f"{key}.quantization: {teacher.quantization} needs bitsandbytes (pip install bitsandbytes) and a GPU: "
            "install it, or set quantization to 'none' or use an offline cache"
        )
    return _load_mapped(teacher, key)


def _load_mapped(teacher: TeacherConfig, key: str) -> LoadedModel:
    from transformers import BitsAndBytesConfig

    options: dict[str, Any] = {"device_map": teacher.device or "auto", "dtype": teacher.dtype}
    try:
        if teacher.quantization != "none":
            eight = teacher.quantization == "8bit"
            options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=eight, load_in_4bit=not eight)
        return load_with(teacher.model, options, teacher.trust_remote_code, teacher.revision)
    except GfvizError as error:
        raise GfvizError(f"{key}.quantization/device: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise GfvizError(f"{key}.quantization/device: cannot load {teacher.model} so ({text})") from error


def _dtype(config: ModelConfig) -> str | None:
    return None if config.dtype == "auto" else config.dtype


def _load(config: ModelConfig, key: str, device: str, dtype: str | None, attention: str | None = None) -> LoadedModel:
    try:
        return load_model(config.model, device, dtype, config.trust_remote_code, config.revision, attention)
    except GfvizError as error:
        raise GfvizError(f"{key}.model: {error}") from error


def adapt(model: Any, lora: LoraConfig) -> Any:
    """The model with trainable low-rank adapters, all else frozen. Raises `GfvizError` where peft is not installed."""
    try:
        import peft
    except ImportError as error:
        raise GfvizError("pivot.lora: needs peft: pip install 'gfviz[lora]'") from error
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )  # fmt: skip


def move_model(model: Any, device: Any) -> None:
    """Move a model in place."""
    model.to(device)


def logit_width(loaded: LoadedModel) -> int:
    """Width of a model's logits, which may exceed its tokenizer."""
    return int(loaded.model.get_output_embeddings().weight.shape[0])


def pad_id(tokenizer: Any) -> int:
    """An id to pad with; attention never sees it."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
