"""A configuration in the words of `transformers.TrainingArguments`."""

import copy
from typing import Any

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, TrainingConfig
from gfviz.runs import RunDirectory

# What transformers may have against its arguments, in its own words for them, and where our file says it.
_KEYS = {
    "fsdp": "fsdp", "deepspeed": "deepspeed", "bf16": "precision", "fp16": "precision", "report_to": "report_to",
    "max_steps": "steps", "lr_scheduler": "scheduler", "warmup": "warmup", "use_cpu": "device",
}  # fmt: skip


def training_arguments(config: FusionConfig, run: RunDirectory) -> Any:
    """The configuration in the words of transformers. Raises `GfvizError` for what it refuses, naming the key."""
    from transformers import TrainingArguments

    _check_reporters(config.training)
    values = _values(config, run)
    try:
        return TrainingArguments(**values)
    except (ValueError, TypeError, AttributeError, LookupError, ImportError, OSError) as error:
        _forget_deepspeed()
        text = " ".join(str(error).split()) or type(error).__name__
        # DeepSpeed's file is read by a library that does not say what for.
        key = next((ours for theirs, ours in _KEYS.items() if theirs in text.lower()), None)
        key = key or ("deepspeed" if config.training.deepspeed else "fsdp_config" if config.training.fsdp else None)
        raise GfvizError(f"training{f'.{key}' if key else ''}: transformers refuses it: {text[:300]}") from error


def _forget_deepspeed() -> None:
    """Undo what a refused DeepSpeed file leaves: as long as its error is kept, no model could be loaded."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def _check_reporters(training: TrainingConfig) -> None:
    if not training.report_to:
        return
    from transformers.integrations import get_available_reporting_integrations

    missing = sorted(set(training.report_to) - set(get_available_reporting_integrations()))
    if missing:
        raise GfvizError(f"training.report_to: not installed here: {', '.join(missing)}: install it, or leave it out")


def _values(config: FusionConfig, run: RunDirectory) -> dict[str, Any]:
    import torch

    training = config.training
    on_gpu = training.device != "cpu" and torch.cuda.is_available()
    return {
        "output_dir": str(run.checkpoints_path),
        "max_steps": training.steps or -1,
        "num_train_epochs": training.epochs or 1.0,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.scheduler,
        "warmup_steps": training.warmup,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "bf16": training.precision == "bfloat16",
        "fp16": training.precision == "float16",
        "use_cpu": training.device == "cpu",
        "seed": config.seed,
        "data_seed": config.seed,
        "logging_strategy": "steps",
        "logging_steps": training.log_every,
        # The filter reads the loss at every step, which makes a GPU wait; the callback judges steps itself.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if training.checkpoint_every else "no",
        "save_steps": training.checkpoint_every or 500,
        "report_to": training.report_to or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "fsdp": training.fsdp or "",
        "fsdp_config": copy.deepcopy(training.fsdp_config),  # transformers writes into it
        "deepspeed": training.deepspeed,
        # A batch goes to a GPU while that works on the last one.
        "dataloader_pin_memory": on_gpu,
        "accelerator_config": {"non_blocking": on_gpu},
        "ddp_find_unused_parameters": False,
    }
