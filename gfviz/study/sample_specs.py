"""What each sample model is: its data, tokenizer, size and training."""

from dataclasses import dataclass, field
from typing import Literal

from gfviz.study.sample_tokenizers import TokenizerKind


@dataclass(frozen=True)
class ModelSpec:
    """One sample model.

    `families` maps task families to their numbers of training examples; `copying` is how many steps of copying come
    before the `steps` on data.
    """

    name: str
    purpose: str
    kind: Literal["prose", "task"]
    architecture: Literal["llama", "gpt2", "qwen3"]
    tokenizer: TokenizerKind
    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    context: int
    steps: int
    batch: int
    rate: float
    seed: int
    length: int = 128
    copying: int = 0
    families: dict[str, int] = field(default_factory=dict)


_ALL = {"arithmetic": 20000, "boolean": 20000, "causal": 8000, "dyck": 12000, "shuffled": 20000}

SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="task-specialist",
            purpose="a good solver of all five task families: the teacher of a fusion",
            kind="task",
            architecture="llama",
            tokenizer="byte-bpe",
            vocabulary=512,
            width=128,
            layers=4,
            heads=4,
            inner=320,
            context=128,
            steps=1700,
            batch=64,
            rate=2e-3,
            seed=11,
            families=_ALL,
            copying=300,
        ),
        ModelSpec(
            name="task-specialist-2",
            purpose="a solver of Dyck words, causal judgement and boolean expressions only: a second teacher",
            kind="task",
            architecture="qwen3",
            tokenizer="characters",
            vocabulary=400,
            width=128,
            layers=3,
            heads=4,
            inner=320,
            context=128,
            steps=1300,
            batch=32,
            rate=2e-3,
            seed=12,
            families={"boolean": 20000, "causal": 8000, "dyck": 12000},
            copying=300,
        ),
        ModelSpec(
            name="task-pivot",
            purpose="a small model stopped early, still learning: the pivot that a fusion improves",
            kind="task",
            architecture="qwen3",
            tokenizer="metaspace-bpe",
            vocabulary=640,
            width=96,
            layers=3,
            heads=3,
            inner=384,
            context=128,
            steps=600,
            batch=32,
            rate=3e-3,
            seed=13,
            families=dict.fromkeys(_ALL, 2000),
            copying=500,
        ),
        ModelSpec(
            name="prose-teacher",
            purpose="a language model of Python's documentation, for graphs that a person can read",
            kind="prose",
            architecture="llama",
            tokenizer="byte-bpe",
            vocabulary=4096,
            width=160,
            layers=4,
            heads=5,
            inner=384,
            context=256,
            steps=1100,
            batch=16,
            rate=3e-3,
            seed=14,
        ),
        ModelSpec(
            name="prose-student",
            purpose="a smaller model of the same prose with another tokenizer: the other side of a comparison",
            kind="prose",
            architecture="qwen3",
            tokenizer="unigram",
            vocabulary=3328,
            width=96,
            layers=3,
            heads=3,
            inner=256,
            context=256,
            steps=600,
            batch=16,
            rate=3e-3,
            seed=15,
        ),
    )
}
