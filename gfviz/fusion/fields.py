"""What the configuration's fields are made of: numbers with bounds, texts that files can hold; and how a fault is told.

Bounds lie far beyond what anyone trains with, and within what float32, SQLite and the libraries below can hold: where
they end something overflows, mostly in silence.
"""

import math
import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

MAX_STEPS = 10**9
MAX_ROWS = 2**20
"""Of examples, tokens or logits at once."""
MAX_WEIGHT = 1e9
_MAX_TEXT, _MAX_PART = 4000, 255

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# Words that transformers takes. It looks at its arguments only when all models are loaded.
REPORTERS = (
    "tensorboard", "trackio", "wandb", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte",
    "kubeflow", "mlflow", "neptune", "swanlab",
)  # fmt: skip
SHARDING = (
    "full_shard", "shard_grad_op", "no_shard", "hybrid_shard", "hybrid_shard_zero2", "offload", "auto_wrap",
)  # fmt: skip


def _among(choices: tuple[str, ...]) -> AfterValidator:
    def check(given: Any) -> Any:
        for word in given.split() if isinstance(given, str) else given or ():
            if word not in choices:
                raise ValueError(f"{word[:40]!r} is unknown: choose among {', '.join(choices)}")
        return given

    return AfterValidator(check)


Reporters = Annotated[list[str], _among(REPORTERS)]
Sharding = Annotated[str | None, _among(SHARDING)]


class Strict(BaseModel):
    """Every key known, every number finite, every text one that a file system takes."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_text(text)
        return value


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text with a null byte can name nothing")
    if len(os.fsencode(text)) > _MAX_TEXT or any(len(os.fsencode(part)) > _MAX_PART for part in text.split("/")):
        raise ValueError(f"longer than any name is ({_MAX_PART} bytes between slashes, {_MAX_TEXT} in all)")


class Schedule(Strict):
    """A number that moves from `start` to `end` over the first `over` share of the steps, then stays."""

    start: float = Field(ge=0, le=MAX_WEIGHT, description="Value at the first step.")
    end: float = Field(ge=0, le=MAX_WEIGHT, description="Value after the share `over` of the steps.")
    over: float = Field(1.0, gt=0, le=1, description="Share of all steps that the move takes.")
    shape: Literal["linear", "cosine"] = Field("linear", description="Form of the move.")

    def at(self, progress: float) -> float:
        """Value at `progress` in [0, 1] of the run.

        >>> Schedule(start=0, end=2, over=0.5).at(0.25)
        1.0
        """
        share = min(1.0, max(0.0, progress / self.over))
        if self.shape == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return self.start + (self.end - self.start) * share


def told(error: ValidationError) -> str:
    """What a schema has against a mapping: the first three faults, each with its key, in one line."""
    faults = [_fault(item) for item in error.errors()]
    return "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _fault(item: Any) -> str:
    # A union's members appear in the location under their type names; the user wrote none of them.
    place = ".".join(str(part) for part in item["loc"] if str(part) not in ("float", "Schedule"))
    text = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        text = "unknown key, remove it or correct its name"
    elif item["type"] == "missing":
        text = "is missing"
    elif not isinstance(item.get("input"), dict | list):
        text += f" (got {_shown(item.get('input'))})"
    return " ".join((f"{place}: {text}" if place else text).split())[:300]


def _shown(given: object) -> str:
    try:
        return repr(given[:60]) if isinstance(given, str) else str(given)[:60]
    except ValueError:  # Python writes no integer of more than 4300 digits out
        return "a number of thousands of digits"
