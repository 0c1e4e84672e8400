"""Training and scoring of the sample models: a plain torch loop over packed prose or padded tasks."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gfviz.study.tasks import Example, extract

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Token ids, the mask of real ones, and the labels (`IGNORED` where nothing is learned), all [B, T] int64."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up over a twentieth of the steps, then a cosine down to a twentieth of `peak`."""

    steps: int
    peak: float

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0.

        >>> schedule = Schedule(100, 1.0)
        >>> schedule.rate(0), schedule.rate(4), round(schedule.rate(99), 2)
        (0.2, 1.0, 0.05)
        """
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.peak * (step + 1) / warm
        done = (step - warm + 1) / max(1, self.steps - warm)
        return self.peak * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)


def prose_batches(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, size: int, length: int, seed: int
) -> Iterator[Batch]:
    """Yield batches [size, length] for ever: paragraphs in a new order each epoch, packed end to end."""
    encoded = [[*row, tokenizer.eos_token_id] for row in tokenizer(list(texts))["input_ids"]]
    rng = random.Random(f"prose/{seed}")
    stream: list[int] = []
    while True:
        rng.shuffle(encoded)
        for row in encoded:
            stream += row
            if len(stream) >= size * length:
                ids = torch.tensor(stream[: size * length]).view(size, length)
                stream = stream[size * length :]
                yield Batch(ids, torch.ones_like(ids), ids)


def encode_examples(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], int]]:
    """Return for each example the ids of `<s> prompt answer </s>` and how many of them are the prompt's.

    >>> from gfviz.study.sample_tokenizers import train_tokenizer
    >>> tokenizer = train_tokenizer("characters", [], 400, 64)
    >>> [(ids, prompt)] = encode_examples([Example("1+1", " 2", "2", "toy")], tokenizer)
    >>> len(ids), prompt
    (7, 4)
    """
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    texts = tokenizer([example.prompt + example.answer for example in examples])["input_ids"]
    return [([*text, tokenizer.eos_token_id], len(prompt)) for text, prompt in zip(texts, prompts)]


def copy_batches(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, size: int, seed: int) -> Iterator[Batch]:
    """Yield for ever rows that say the same 8 to 21 random tokens of the texts twice, labels on the second time.

    A few hundred such steps first give a small model the habit of looking up what followed a token before, which it
    needs to read operands and names out of a prompt and is slow to find from the tasks alone.
    """
    special = set(tokenizer.all_special_ids)
    used = torch.tensor(sorted({token for row in tokenizer(list(texts))["input_ids"] for token in row} - special))
    generator = torch.Generator().manual_seed(seed)
    while True:
        length = int(torch.randint(8, 22, (1,), generator=generator))
        row = used[torch.randint(0, len(used), (size, length), generator=generator)]
        ids = torch.cat([torch.full((size, 1), tokenizer.bos_token_id), row, row], dim=1)
        labels = ids.clone()
        labels[:, : length + 2] = IGNORED
        yield Batch(ids, torch.ones_like(ids), labels)


def task_batches(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, size: int, seed: int
) -> Iterator[Batch]:
    """Yield right-padded batches for ever, in a new order each epoch; labels on the answer and `</s>`.

    Families stay mixed within a batch; sorting by length would save padding and give batches of one family each.
    """
    encoded = encode_examples(examples, tokenizer)
    rng = random.Random(f"tasks/{seed}")
    while True:
        rng.shuffle(encoded)
        for start in range(0, len(encoded), size):
            yield _pad(encoded[start : start + size], tokenizer.pad_token_id)


def _pad(rows: Sequence[tuple[list[int], int]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows])
    places = torch.arange(longest)
    prompts = torch.tensor([prompt for _, prompt in rows])[:, None]
    return Batch(ids, mask, ids.masked_fill((mask == 0) | (places < prompts), IGNORED))


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, T, V] at labels [B, T] over all labelled tokens.

    Over tokens and not over rows: one-word answers, mostly noise at first, would drown the written steps otherwise.
    """
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)


def train(
    model: PreTrainedModel, batches: Iterator[Batch], schedule: Schedule, after_step: Callable[[int, float], None]
) -> None:
    """Train in place with AdamW (betas 0.9 and 0.95, decay 0.1 on matrices, gradients clipped at norm 1).

    `after_step(step, loss)` is called with steps counted from 1; the loss is that of the last step that was read,
    every twentieth, so that a GPU is not held up.
    """
    device = model.device
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.peak, betas=(0.9, 0.95), fused=True)
    model.train()
    loss_read = math.nan
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        batch = next(batches)
        logits = model(input_ids=batch.ids.to(device), attention_mask=batch.mask.to(device), use_cache=False).logits
        loss = answer_loss(logits, batch.labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            loss_read = loss.item()
        after_step(step + 1, loss_read)
    model.eval()


@torch.inference_mode()
def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], longest: int, size: int = 100
) -> list[str]:
    """Return what the model writes after each prompt, at most `longest` tokens, the likeliest token each time.

    Prompts of like length are generated together, padded on the left.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        inputs = tokenizer([prompts[index] for index in chosen], padding=True, padding_side="left", return_tensors="pt")
        inputs = inputs.to(model.device)
        written = cast(Any, model).generate(**inputs, max_new_tokens=longest, do_sample=False)
        texts = tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts):
            answers[index] = text
    return answers


def exact_matches(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], longest: int
) -> list[bool]:
    """Return for each example whether the final answer in the greedy continuation is the target."""
    answers = greedy_answers(model, tokenizer, [example.prompt for example in examples], longest)
    return [extract(answer) == example.target for answer, example in zip(answers, examples)]


@torch.inference_mode()
def prose_nll(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int = 32
) -> tuple[float, float]:
    """Return the mean negative log-likelihood in nats per token and in bits per byte; every text begins after `<s>`.

    Bits per byte compare models with different tokenizers. Texts are cut at the tokenizer's `model_max_length`.
    """
    nats, tokens, count = 0.0, 0, 0
    for start in range(0, len(texts), size):
        chosen = list(texts[start : start + size])
        inputs = tokenizer(chosen, padding=True, padding_side="right", truncation=True, return_tensors="pt")
        inputs = inputs.to(model.device)
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        labels = inputs["input_ids"][:, 1:].masked_fill(inputs["attention_mask"][:, 1:] == 0, IGNORED)
        nats += functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        ).item()
        tokens += int((labels != IGNORED).sum())
        kept = tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True)
        count += sum(len(text.encode()) for text in kept)
    return nats / tokens, nats / count / math.log(2)
