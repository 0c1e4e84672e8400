"""The configuration of a fusion: one YAML file, every key known, every mistake named by its key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from gfviz.errors import GfvizError
from gfviz.fusion.fields import MAX_ROWS, MAX_STEPS, MAX_WEIGHT, Name, Reporters, Schedule, Sharding, Strict, told
from gfviz.fusion.overrides import apply_override, plain_copy
from gfviz.fusion.trust import refuse_code
from gfviz.runs.yamlfile import read_mapping

TokenLoss = Literal["uld", "alm", "kl", "none"]
StructureLoss = Literal["sorted", "centred", "spectral", "entries", "anchored", "none"]
Control = Literal["none", "one-hot", "shuffled"]
PIVOT = "pivot"
"""What `data.answers_from` calls the pivot."""


class LoraConfig(Strict):
    """Train low-rank adapters instead of all weights (needs the extra `lora`)."""

    rank: int = Field(16, ge=1, le=1024, title="Rank", description="Rank of the update.")
    alpha: int = Field(32, ge=1, le=MAX_ROWS, title="Alpha", description="Scale of the update: alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, title="Dropout", description="Dropout on the adapter's input.")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear", title="Target modules", description="Names of the modules to adapt."
    )


class ModelConfig(Strict):
    """A causal language model: a local folder or a hub id. Only safetensors weights are read."""

    model: str = Field(min_length=1, title="Model", description="Local folder or hub id of a causal language model.")
    revision: str | None = Field(
        None, min_length=1, title="Revision", description="Branch, tag or commit on the hub; the newest if left out."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        title="Weights' dtype",
        description="auto: float32 for the pivot and on CPUs, as stored for teachers on GPUs. A pivot in float16 can "
        "train adapters alone.",
    )
    trust_remote_code: bool = Field(
        False,
        title="Trust remote code",
        description="Run Python code that comes with the model. In a file it does nothing by itself: the command needs "
        "--trust-remote-code beside it.",
    )


class PivotConfig(ModelConfig):
    """The model that learns."""

    lora: LoraConfig | None = Field(None, title="LoRA", description="Train low-rank adapters only.")
    # With a slash transformers takes it for a kernel on the hub, which is code.
    attention: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+$",
        title="Attention",
        description="Attention implementation, as transformers names its own: eager, sdpa, flash_attention_2.",
    )


class TeacherConfig(ModelConfig):
    """One source model."""

    name: Name = Field(title="Name", description="Short name used in metrics: letters, digits, '.', '_' and '-'.")
    weight: float = Field(
        1.0,
        gt=0,
        le=MAX_WEIGHT,
        title="Weight",
        description="Share among the teachers; weights are scaled to sum to 1.",
    )
    domains: list[str] | None = Field(
        None,
        title="Domains",
        description="Only examples of these domains (families) go to this teacher; all if left out.",
    )
    token: TokenLoss | None = Field(None, title="Token loss", description="Overrides loss.token for this teacher.")
    structure: StructureLoss | None = Field(
        None, title="Structure loss", description="Overrides loss.structure for this teacher."
    )
    beta: float | None = Field(
        None, ge=0, le=MAX_WEIGHT, title="β", description="Overrides loss.beta for this teacher."
    )
    control: Control = Field(
        "none", title="Control", description="Replace the teacher's signal by [1, 0, ...] or by another example's."
    )
    cache: str | None = Field(
        None, title="Offline cache", description="Folder written by `gfviz cache`; no model is loaded."
    )
    device: str | None = Field(
        None, title="Device", description="cpu, cuda:1, or auto (sharded); the pivot's if left out."
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", title="Quantised loading", description="Load the teacher in 8 or 4 bits (needs bitsandbytes and a GPU)."
    )


class DataConfig(Strict):
    """What is trained and evaluated on: JSON lines with `prompt`, `answer` and optionally `target`, `family`."""

    train: list[str] = Field(default_factory=list, title="Training files", description="JSONL files.")
    evaluation: list[str] = Field(default_factory=list, title="Evaluation files", description="JSONL files, held out.")
    max_length: int | None = Field(
        None,
        ge=8,
        le=2**24,
        title="Longest example",
        description="In tokens of any of the models; the models' contexts if left out.",
    )
    too_long: Literal["refuse", "drop"] = Field(
        "refuse", title="Longer examples", description="Refuse the data, or drop such examples and say how many."
    )
    chat_template: bool = Field(
        False,
        title="Chat template",
        description="Put each prompt into each model's own chat template as a user's turn.",
    )
    answers_from: Name | None = Field(
        None,
        title="Answers from",
        description="Train on this teacher's own answers (sequence-level distillation), or on the pivot's (`pivot`).",
    )
    on_policy: bool = Field(
        False,
        title="On-policy",
        description="For answers_from: pivot: it answers the prompts of each step anew. Best with λ = 1: SFT on own "
        "answers teaches nothing. A plan does not count the time of writing.",
    )
    max_answer_tokens: int = Field(
        256,
        ge=1,
        le=MAX_ROWS,
        title="Longest generated answer",
        description="For answers_from: tokens generated at most.",
    )


class LossConfig(Strict):
    """total = (1 − λ)·SFT + λ·Σ w·(TOKEN + β·STRUCTURE)."""

    lam: float | Schedule = Field(
        0.5, alias="lambda", title="λ", description="Share of the teachers in the loss, 0 (plain SFT) to 1."
    )
    token: TokenLoss = Field("uld", title="Token loss", description="Compared position by position.")
    structure: StructureLoss = Field("sorted", title="Structure loss (GLD)", description="Compared graph by graph.")
    beta: float | Schedule = Field(100.0, title="β", description="Weight of the structure loss beside the token loss.")
    k: int | None = Field(
        None, ge=1, le=MAX_ROWS, title="k", description="Logits kept per position; min(64, vocabularies) if left out."
    )
    normalize: Literal["prob", "raw", "zscore"] = Field(
        "prob", title="Normalisation", description="Of the graph's vectors. Only prob is stable as a loss."
    )
    temperature: float = Field(
        1.0, ge=1e-6, le=1e6, title="Temperature", description="Divides all logits before comparison."
    )
    signal_dtype: Literal["float16", "float32"] = Field(
        "float16", title="Signal precision", description="Of the teachers' log-probabilities, online and in caches."
    )
    alm_temperature: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        title="ALM temperature",
        description="Chunk likelihoods are raised to 1/this before comparison.",
    )
    balance: Literal["none", "gradient"] = Field(
        "none",
        title="Balancing",
        description="gradient: scale each structure loss so that its gradient is as long as the token (or SFT) loss's.",
    )
    balance_every: int = Field(
        20, ge=1, le=MAX_STEPS, title="Balance every", description="Steps between two measurements of the norms."
    )

    @model_validator(mode="after")
    def _ranges(self) -> "LossConfig":
        if isinstance(self.lam, float) and not 0 <= self.lam <= 1:
            raise ValueError("lambda must lie in [0, 1]")
        if isinstance(self.lam, Schedule) and max(self.lam.start, self.lam.end) > 1:
            raise ValueError("lambda must lie in [0, 1] all along its schedule")
        if isinstance(self.beta, float) and not 0 <= self.beta <= MAX_WEIGHT:
            raise ValueError(f"beta must lie in [0, {MAX_WEIGHT:g}]")
        return self


class TrainingConfig(Strict):
    """How the pivot is trained."""

    steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, title="Steps", description="Optimizer steps; give this or epochs."
    )
    epochs: float | None = Field(
        None, gt=0, le=1e6, title="Epochs", description="Passes over the data; give this or steps."
    )
    batch_size: int = Field(
        16, ge=1, le=MAX_ROWS, title="Batch size", description="Examples per device and forward pass."
    )
    accumulation: int = Field(
        1, ge=1, le=MAX_ROWS, title="Accumulation", description="Forward passes per optimizer step."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1e3, title="Learning rate", description="Peak learning rate.")
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", title="Schedule", description="Form of the learning rate after the warm-up."
    )
    warmup: int = Field(0, ge=0, le=MAX_STEPS, title="Warm-up", description="Steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, le=1e3, title="Weight decay", description="AdamW's decay.")
    max_grad_norm: float = Field(
        1.0, ge=0, le=1e30, title="Gradient clipping", description="Largest norm; 0 turns it off."
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", title="Precision", description="Of the computation (mixed precision where not float32)."
    )
    gradient_checkpointing: bool = Field(False, title="Gradient checkpointing", description="Less memory, more time.")
    device: Literal["auto", "cpu"] = Field("auto", title="Device", description="cpu keeps off any GPU.")
    padding_side: Literal["left", "right"] = Field("left", title="Padding", description="left keeps fewer logits.")
    pad_multiple: int = Field(1, ge=1, le=65_536, title="Pad to a multiple of", description="8 suits tensor cores.")
    log_every: int = Field(
        10, ge=1, le=MAX_STEPS, title="Log every", description="Steps between two reads of the buffered metrics."
    )
    checkpoint_every: int = Field(
        0, ge=0, le=MAX_STEPS, title="Checkpoint every", description="Steps; 0 writes one when stopped only."
    )
    keep_checkpoints: int = Field(
        2, ge=1, le=MAX_STEPS, title="Keep checkpoints", description="Older ones are removed."
    )
    report_to: Reporters = Field(
        default_factory=list, title="Also report to", description="tensorboard, trackio, wandb."
    )
    fsdp: Sharding = Field(None, title="FSDP", description="As transformers names it, e.g. 'full_shard auto_wrap'.")
    fsdp_config: dict[str, Any] | None = Field(None, title="FSDP options", description="Passed to transformers.")
    deepspeed: str | None = Field(None, title="DeepSpeed", description="Path of a DeepSpeed JSON configuration.")
    max_bad_steps: int = Field(
        5,
        ge=0,
        le=MAX_STEPS,
        title="Bad steps allowed",
        description="Steps skipped for NaN (a teacher's, or a loss's) before stopping.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self


class EvaluationConfig(Strict):
    """Evaluation on the held-out files, by generation."""

    every: int = Field(
        0, ge=0, le=MAX_STEPS, title="Evaluate every", description="Steps; 0: before and after training only."
    )
    at_start: bool = Field(True, title="Evaluate the pivot", description="Score the unfused pivot before training.")
    at_end: bool = Field(True, title="Evaluate at the end", description="Score the fused model after training.")
    limit: int | None = Field(
        None, ge=1, le=MAX_STEPS, title="Examples", description="At most so many examples, evenly over families."
    )
    batch_size: int = Field(64, ge=1, le=MAX_ROWS, title="Batch size", description="Prompts generated together.")
    max_new_tokens: int = Field(64, ge=1, le=MAX_ROWS, title="Longest answer", description="Tokens generated at most.")
    confidence: float = Field(0.95, gt=0.5, lt=1, title="Confidence", description="Of the intervals.")


class GraphConfig(Strict):
    """The teacher-student graph distance, with its certified interval."""

    every: int = Field(0, ge=0, le=MAX_STEPS, title="Measure every", description="Steps; 0: never.")
    examples: int = Field(
        32, ge=1, le=MAX_ROWS, title="Probe examples", description="Fixed examples over which graphs accumulate."
    )
    budget: Literal["fast", "standard", "thorough"] = Field("fast", title="Budget", description="Of the distance.")
    nodes: Literal["rank"] = Field("rank", title="Nodes", description="Rank graphs compare across tokenizers.")


class StoreConfig(Strict):
    """The metrics store."""

    on_failure: Literal["continue", "stop"] = Field(
        "continue", title="When only the store fails", description="Go on training with rows in memory, or stop."
    )


class FusionConfig(Strict):
    """A whole fusion."""

    version: Literal[1] = Field(1, title="Version", description="Of this file's format.")
    name: str = Field("fusion", min_length=1, max_length=60, title="Name", description="Becomes part of the run's id.")
    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="Of data order, dropout and controls.")
    runs: str = Field("runs", min_length=1, title="Runs folder", description="Where the run directory is made.")
    mode: Literal["unified", "pairwise"] = Field(
        "unified",
        title="Mode",
        description="All teachers at once, or one run each and a weighted merge of the results.",
    )
    pivot: PivotConfig
    teachers: list[TeacherConfig] = Field(default_factory=list, title="Teachers", description="None: plain SFT.")
    data: DataConfig = Field(default_factory=lambda: DataConfig.model_validate({}))
    loss: LossConfig = Field(default_factory=lambda: LossConfig.model_validate({}))
    training: TrainingConfig
    evaluation: EvaluationConfig = Field(default_factory=lambda: EvaluationConfig.model_validate({}))
    graph: GraphConfig = Field(default_factory=lambda: GraphConfig.model_validate({}))
    store: StoreConfig = Field(default_factory=lambda: StoreConfig.model_validate({}))

    @model_validator(mode="after")
    def _whole(self) -> "FusionConfig":
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise ValueError("teachers: each needs a name of its own")
        self._check_answers(names)
        if self.pivot.dtype == "float16" and self.pivot.lora is None:
            # AdamW divides by the root of squared gradients, 0 in float16 below 6e-8: its steps have no bound there.
            raise ValueError(
                "pivot.dtype: weights in float16 cannot be trained: leave them in auto (float32) and set "
                "training.precision to float16, or use bfloat16"
            )
        if self.mode == "pairwise" and len(names) < 2:
            raise ValueError("mode: pairwise needs at least two teachers")
        return self

    def _check_answers(self, names: list[str]) -> None:
        source = self.data.answers_from
        if source is not None and source != PIVOT and source not in names:
            raise ValueError(f"data.answers_from: no teacher is named '{source}'")
        if self.mode == "pairwise" and source not in (None, PIVOT):
            raise ValueError(
                f"data.answers_from: in pairwise mode each pair knows its own teacher alone: use {PIVOT}, or write the "
                "answers in a unified run and train on its data/answers.jsonl"
            )
        if source == PIVOT and PIVOT in names:
            raise ValueError(f"data.answers_from: a teacher is named '{PIVOT}' too: give it another name")
        if not self.data.on_policy:
            return
        if source != PIVOT:
            raise ValueError(f"data.on_policy: the answers are the pivot's: set data.answers_from to {PIVOT}")
        for teacher in self.teachers:
            if teacher.cache is not None:
                raise ValueError(f"teachers.{teacher.name}.cache: it knows no text that is still to be written")
            if teacher.control == "shuffled" and self.training.batch_size < 2:
                raise ValueError("training.batch_size: 'shuffled' with data.on_policy needs at least 2")

    def teacher_weights(self) -> dict[str, float]:
        """Weights by name, scaled to sum to 1."""
        total = sum(teacher.weight for teacher in self.teachers)
        return {teacher.name: teacher.weight / total for teacher in self.teachers}

    def to_mapping(self) -> dict[str, Any]:
        """Plain values under the file's own keys: what `config.yaml` of a run holds."""
        return self.model_dump(mode="json", by_alias=True)


def value_at(value: float | Schedule, progress: float) -> float:
    """A constant or the value of a schedule at `progress` in [0, 1]."""
    return value.at(progress) if isinstance(value, Schedule) else value


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> FusionConfig:
    """Read and check a YAML file; `overrides` are `key.sub=value` (list items by number: `teachers.0.weight=2`).

    Relative paths in the file are kept as they are: they count from the folder where the command runs. Raises
    `GfvizError` in one line that names the key, also for a file that would have a model's own code run: an override
    may, and whoever starts the command with `trust.allow_code`.
    """
    data = read_mapping(Path(path))
    refuse_code(data, str(path))
    return parse_config(data, overrides, source=str(path))


def parse_config(data: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "configuration") -> FusionConfig:
    """Check a mapping as `load_config` does. Raises `GfvizError` in one line that names the key.

    >>> parse_config({"pivot": {"model": "x"}, "training": {"steps": 0}})
    Traceback (most recent call last):
    ...
    gfviz.errors.GfvizError: configuration: training.steps: Input should be greater than or equal to 1 (got 0)
    """
    merged = plain_copy(data)
    for override in overrides:
        apply_override(merged, override)
    try:
        return FusionConfig.model_validate(merged)
    except ValidationError as error:
        raise GfvizError(f"{source}: {told(error)}") from error
