"""Scores of a model on held-out examples: exact match by generation, likelihood, calibration, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gfviz.errors import GfvizError
from gfviz.fusion.data import Example, as_examples, read_examples, spread
from gfviz.fusion.scores import Score, TokenScores, score
from gfviz.runs import RunDirectory, RunReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARKERS = ("->", "####")


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of one model.

    overall: over all examples, families: per family, both with intervals at `confidence` (see `Score`; the most likely
    token at the answer's positions, EOS included, is what calibration is about); nll_per_byte: the likelihood per byte
    of the answer, comparable across tokenizers; answers: what was generated, in the examples' order.
    """

    model: str
    overall: Score
    nll_per_byte: float
    confidence: float
    families: dict[str, Score]
    answers: tuple[str, ...] = ()

    @property
    def exact_match(self) -> float:
        """Share of right answers over all families."""
        return self.overall.exact_match

    @property
    def exact_matches(self) -> dict[str, float]:
        """Share of right answers by family, that of all examples under the empty name."""
        return {"": self.exact_match} | {name: found.exact_match for name, found in self.families.items()}

    @property
    def count(self) -> int:
        """How many examples."""
        return self.overall.count

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood per answer token, nats."""
        return self.overall.nll

    @property
    def ece(self) -> float:
        """Expected calibration error."""
        return self.overall.ece

    def metrics(self) -> dict[str, float]:
        """Rows for the metrics store; an interval that is not known has none."""
        whole = self.overall
        rows: dict[str, float | None] = {"eval/exact_match": whole.exact_match}
        rows |= {"eval/exact_match_low": whole.low, "eval/exact_match_high": whole.high}
        rows |= {"eval/nll": whole.nll, "eval/nll_low": whole.nll_low, "eval/nll_high": whole.nll_high}
        rows |= {"eval/ece": whole.ece, "eval/ece_low": whole.ece_low, "eval/ece_high": whole.ece_high}
        for name, found in self.families.items():
            rows |= {f"eval/{name}/exact_match": found.exact_match, f"eval/{name}/nll": found.nll}
            rows[f"eval/{name}/ece"] = found.ece
        return {name: value for name, value in rows.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the generated answers; the scores over all examples stand at the top."""
        families = {name: asdict(found) for name, found in self.families.items()}
        facts = {"model": self.model, "nll_per_byte": self.nll_per_byte, "confidence": self.confidence}
        return {**facts, **asdict(self.overall), "families": families}


def exact_matches_at(reader: RunReader, step: int) -> dict[str, float]:
    """`EvaluationReport.exact_matches` of the evaluation that a run's store holds for a step; {} for none."""
    found = {}
    for name in reader.names():
        if name.startswith("eval/") and name.endswith("/exact_match"):
            series = reader.series(name)
            inside = series.values[series.steps == step]
            if len(inside):
                found[name[len("eval/") : -len("/exact_match")]] = float(inside[0])
    return found


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
    chat_template: bool = False,
    trust_remote_code: bool = False,
    extract: Callable[[str], str] = final_answer,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate a model (folder, hub id, `LoadedModel`) or a run's fused model on JSONL files or examples.

    Greedy generation, prompts padded left, in batches; with `chat_template` each prompt is a user's turn in the model's
    own. Raises `GfvizError` for unreadable data, an unfinished run, a model that cannot be loaded or has no chat
    template, and for examples that its context cannot hold. Cost: one generation and one forward pass per example.
    """
    from gfviz.fusion.lengths import require_room, require_room_to_answer
    from gfviz.fusion.tokenise import ExampleEncoder

    items = list(data)
    if all(isinstance(item, str | Path) for item in items):
        examples = read_examples(items)
    else:
        examples = as_examples(items)
    if not examples:
        raise GfvizError("there is no example to evaluate on")
    loaded, chosen = load_target(model, device, revision, trust_remote_code), spread(examples, limit)
    encoder = ExampleEncoder(loaded.tokenizer, chat_template)
    require_room(chosen, encoder, loaded.context, loaded.name)
    require_room_to_answer(chosen, encoder, loaded.context, max_new_tokens, loaded.name)
    return evaluate_loaded(
        loaded.model, loaded.tokenizer, chosen, loaded.name,
        batch_size=batch_size, max_new_tokens=max_new_tokens, confidence=confidence, chat_template=chat_template,
        extract=extract, on_progress=on_progress,
    )  # fmt: skip


def load_target(model: Any, device: str | None, revision: str | None, trust_remote_code: bool = False) -> Any:
    """The `LoadedModel` of a model, a run's fused model, or itself. Raises `GfvizError` for an unfinished run."""
    from gfviz.capture.models import LoadedModel, load_model

    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, RunDirectory):
        if not model.model_path.is_dir():
            raise GfvizError(f"run {model.id} has no fused model yet: let it finish, or resume it")
        model = model.model_path
    return load_model(model, device, trust_remote_code=trust_remote_code, revision=revision)


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
        tokens = likelihood(model, encoder, examples, batch_size)
    finally:
        model.train(training)
    right = np.array([is_right(answer, example, extract) for answer, example in zip(answers, examples)])
    families: dict[str, Score] = {}
    for family in sorted({example.family for example in examples}):
        inside = np.array([example.family == family for example in examples])
        families[family] = score(right[inside], tokens.of(inside), confidence)
    size = sum(len(example.answer.encode("utf-8", "surrogatepass")) for example in examples)
    per_byte = -float(tokens.log_prob.sum()) / max(size, 1)
    return EvaluationReport(name, score(right, tokens, confidence), per_byte, confidence, families, tuple(answers))


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


def likelihood(model: "PreTrainedModel", encoder: Any, examples: Sequence[Example], batch_size: int) -> TokenScores:
    """What the model gives each token of the examples' answers, longest examples first. One forward pass each.

    The head is applied to the answers' positions alone, a chunk of the vocabulary at a time (see `SignalReader`).
    """
    import torch

    from gfviz.capture.forward import SignalReader
    from gfviz.fusion.batch import pad_model

    reader = SignalReader(model, 1)
    encoded = [encoder.encode(example) for example in examples]
    order = sorted(range(len(encoded)), key=lambda place: -len(encoded[place].ids))
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = pad_model([encoded[place] for place in chosen], 0, "left")
        mask, labels = inputs["mask"], inputs["labels"]
        signal, logits = reader.read_targets(inputs["input_ids"], inputs["attention_mask"], mask, labels)
        owner = torch.tensor(chosen)[:, None].expand(mask.shape)[mask]
        right = signal.ids[:, 0].cpu() == labels[mask]
        log_probs = (each.float() - signal.logsumexp for each in (logits, signal.values[:, 0]))
        own, most = (each.double().cpu() for each in log_probs)
        parts.append((owner.numpy(), own.numpy(), most.exp().numpy(), right.double().numpy()))
    return TokenScores(*(np.concatenate(column) for column in zip(*parts)))
