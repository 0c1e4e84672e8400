"""Scores of a model on held-out examples: exact match by generation, likelihood, calibration, with intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.fusion.data import Example, as_examples, read_examples, spread
from gfviz.runs import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ECE_BINS = 10
_MARKERS = ("->", "####")


@dataclass(frozen=True)
class Score:
    """Share of right answers with its Wilson interval; `count` examples."""

    exact_match: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of one model.

    exact_match with its interval at `confidence`, overall and per family; nll: mean negative log-likelihood of the
    answer per token, in nats (EOS included), nll_per_byte the same per byte of the answer, comparable across
    tokenizers; ece: expected calibration error of the most likely token at the answer's positions (10 bins of equal
    width, Guo et al. 2017); answers: what was generated, in the examples' order.
    """

    model: str
    exact_match: float
    low: float
    high: float
    count: int
    nll: float
    nll_per_byte: float
    ece: float
    confidence: float
    families: dict[str, Score]
    answers: tuple[str, ...] = ()

    @property
    def overall(self) -> Score:
        """The score over all families."""
        return Score(self.exact_match, self.low, self.high, self.count)

    def metrics(self) -> dict[str, float]:
        """Rows for the metrics store."""
        rows = {"eval/exact_match": self.exact_match, "eval/nll": self.nll, "eval/ece": self.ece}
        rows |= {"eval/exact_match_low": self.low, "eval/exact_match_high": self.high}
        return rows | {f"eval/{name}/exact_match": score.exact_match for name, score in self.families.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the generated answers."""
        return {key: value for key, value in asdict(self).items() if key != "answers"}


def wilson(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) for no examples.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = share + z * z / (2 * count)
    spread_ = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread_) / scale), min(1.0, (middle + spread_) / scale)


def final_answer(text: str) -> str:
    """The part of a written answer that is scored: the first line, after its last `->` or `####` where it has one.

    >>> final_answer(" 3+5=8, 8*2=16 -> 16"), final_answer(" True\\nmore")
    ('16', 'True')
    """
    lines = text.strip().splitlines()
    if not lines:
        return ""
    line = lines[0]
    for marker in _MARKERS:
        line = line.rpartition(marker)[2]
    return line.strip()


def is_right(generated: str, example: Example, extract: Callable[[str], str] = final_answer) -> bool:
    """Whether a generated answer is the example's: the same final answer as its `target`, or as its answer's."""
    wanted = example.target.strip() if example.target is not None else extract(example.answer)
    return extract(generated) == wanted


def evaluate(
    model: "str | Path | RunDirectory | Any",
    data: "Sequence[str | Path] | Sequence[Example] | Sequence[Any]",
    *,
    limit: int | None = None,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    confidence: float = 0.95,
    device: str | None = None,
    revision: str | None = None,
    extract: Callable[[str], str] = final_answer,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate a model (folder, hub id, `LoadedModel`) or a run's fused model on JSONL files or examples.

    Greedy generation, prompts padded left, in batches. Raises `GfvizError` for unreadable data, an unfinished run or a
    model that cannot be loaded. Cost: one generation and one forward pass per example.
    """
    items = list(data)
    if all(isinstance(item, str | Path) for item in items):
        examples = read_examples(items)
    else:
        examples = as_examples(items)
    if not examples:
        raise GfvizError("there is no example to evaluate on")
    loaded = load_target(model, device, revision)
    return evaluate_loaded(
        loaded.model, loaded.tokenizer, spread(examples, limit), loaded.name,
        batch_size=batch_size, max_new_tokens=max_new_tokens, confidence=confidence, extract=extract,
        on_progress=on_progress,
    )  # fmt: skip


def load_target(model: Any, device: str | None, revision: str | None) -> Any:
    """The `LoadedModel` of a model, a run's fused model, or itself. Raises `GfvizError` for an unfinished run."""
    from gfviz.capture.models import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, RunDirectory):
        if not model.model_path.is_dir():
            raise GfvizError(f"run {model.id} has no fused model yet: let it finish, or resume it")
        model = model.model_path
    return load_model(model, device, revision=revision)


def evaluate_loaded(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    name: str,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    confidence: float = 0.95,
    chat_template: bool = False,
    extract: Callable[[str], str] = final_answer,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """`evaluate` on a model in memory; its training mode is restored and no random number is drawn."""
    from gfviz.fusion.tokenise import ExampleEncoder

    encoder = ExampleEncoder(tokenizer, chat_template)
    training = model.training
    model.eval()
    try:
        answers = generate(model, encoder, [e.prompt for e in examples], batch_size, max_new_tokens, on_progress)
        nll, tokens, ece = likelihood(model, encoder, examples, batch_size)
    finally:
        model.train(training)
    right = np.array([is_right(answer, example, extract) for answer, example in zip(answers, examples)])
    families: dict[str, Score] = {}
    for family in sorted({example.family for example in examples}):
        inside = np.array([example.family == family for example in examples])
        families[family] = _score(right[inside], confidence)
    overall = _score(right, confidence)
    size = sum(len(example.answer.encode("utf-8", "surrogatepass")) for example in examples)
    return EvaluationReport(
        name, overall.exact_match, overall.low, overall.high, overall.count, nll / max(tokens, 1),
        nll / max(size, 1), ece, confidence, families, tuple(answers),
    )  # fmt: skip


def _score(right: np.ndarray, confidence: float) -> Score:
    low, high = wilson(int(right.sum()), len(right), confidence)
    return Score(float(right.mean()), low, high, len(right))


def generate(
    model: "PreTrainedModel",
    encoder: Any,
    prompts: Sequence[str],
    batch_size: int,
    max_new_tokens: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Greedy continuations of prompts, in their order; longest first, so that a lack of memory shows at once."""
    import torch
    from transformers import GenerationConfig

    tokenizer = encoder.tokenizer
    eos = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (eos or 0)
    options = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=eos, pad_token_id=pad, use_cache=True
    )
    ids = [encoder.prompt_ids(prompt) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    answers = [""] * len(ids)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(ids[i]) for i in chosen)
        padded = torch.tensor([[pad] * (width - len(ids[i])) + ids[i] for i in chosen], device=model.device)
        seen = torch.tensor([[0] * (width - len(ids[i])) + [1] * len(ids[i]) for i in chosen], device=model.device)
        with torch.no_grad():
            written: Any = model.generate(padded, attention_mask=seen, generation_config=options)  # type: ignore[operator]
        for i, row in zip(chosen, written[:, width:].tolist()):
            if eos is not None and eos in row:
                row = row[: row.index(eos)]
            answers[i] = tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if on_progress is not None:
            on_progress(start + len(chosen), len(order))
    return answers


def likelihood(
    model: "PreTrainedModel", encoder: Any, examples: Sequence[Example], batch_size: int
) -> tuple[float, int, float]:
    """Sum of −log p over all answer tokens, their number, and the calibration error of the most likely token."""
    import torch

    from gfviz.fusion.batch import pad_model
    from gfviz.fusion.teachers import answer_signal, forward_arguments, window_logits

    accepts = forward_arguments(model)
    encoded = sorted((encoder.encode(example) for example in examples), key=lambda item: -len(item.ids))
    total, tokens = 0.0, 0
    confidence, correct = [], []
    for start in range(0, len(encoded), batch_size):
        inputs = pad_model(encoded[start : start + batch_size], 0, "left")
        inputs = {key: value.to(model.device) for key, value in inputs.items()}
        with torch.no_grad():
            found = answer_signal(window_logits(model, inputs, accepts).float(), inputs, 1)
        mask = found.signal.mask
        total -= float(found.token_log_prob[mask].double().sum())
        tokens += int(mask.sum())
        confidence.append(found.signal.probs()[mask][:, 0].cpu().numpy())
        correct.append((found.signal.ids[mask][:, 0] == inputs["labels"][mask]).cpu().numpy())
    return total, tokens, calibration_error(np.concatenate(confidence), np.concatenate(correct))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error over bins of equal width: Σ share of the bin · |accuracy − confidence| in it.

    >>> calibration_error(np.array([0.75, 0.75, 0.75, 0.75]), np.array([1, 1, 1, 0]))
    0.0
    """
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, correct.astype(float) - confidence, ECE_BINS)
    return float(np.abs(gaps).sum() / max(len(confidence), 1))
