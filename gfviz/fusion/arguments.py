"""A configuration in the words of `transformers.TrainingArguments`."""

from typing import Any

from gfviz.fusion.config import FusionConfig
from gfviz.runs import RunDirectory


def training_arguments(config: FusionConfig, run: RunDirectory) -> Any:
    """The configuration in the words of transformers."""
    import torch
    from transformers import TrainingArguments

    training = config.training
    on_gpu = training.device != "cpu" and torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run.checkpoints_path),
        max_steps=training.steps or -1,
        num_train_epochs=training.epochs or 1.0,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.precision == "bfloat16",
        fp16=training.precision == "float16",
        use_cpu=training.device == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        logging_strategy="steps",
        logging_steps=training.log_every,
        # The filter reads the loss at every step, which makes a GPU wait; the callback judges steps itself.
        logging_nan_inf_filter=False,
        save_strategy="steps" if training.checkpoint_every else "no",
        save_steps=training.checkpoint_every or 500,
        report_to=training.report_to or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        fsdp=training.fsdp or "",
        fsdp_config=training.fsdp_config,
        deepspeed=training.deepspeed,
        # A batch goes to a GPU while that works on the last one.
        dataloader_pin_memory=on_gpu,
        accelerator_config={"non_blocking": on_gpu},
        ddp_find_unused_parameters=False,
    )
