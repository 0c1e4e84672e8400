"""Train the sample models from scratch, score them, and write them as ordinary `transformers` folders.

    python -m gfviz.study.sample_models --out sample_data/models [--only NAME ...] [--checkpoints DIR] [--smoke]

Weights are stored in half precision; config.json says float32, so that they load for training and for the CPU.
"""

import argparse
import copy
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text
from gfviz.paths import sample_data_dir
from gfviz.study.sample_cards import model_card
from gfviz.study.sample_specs import SPECS, ModelSpec
from gfviz.study.sample_tokenizers import train_tokenizer
from gfviz.study.sample_training import (
    Batch,
    Schedule,
    copy_batches,
    exact_matches,
    prose_batches,
    prose_nll,
    task_batches,
    train,
)
from gfviz.study.tasks import FAMILIES, Example

CHECKPOINTED = "prose-student"
_CHECKPOINTS = 5
_LONGEST_ANSWER = 40
# Texts whose tokens are copied at first; enough to meet every token.
_COPIED = 1600


@dataclass(frozen=True)
class Data:
    """What one model learns from and is scored on: paragraphs for a prose model, examples for a task model."""

    texts: tuple[str, ...]
    examples: tuple[Example, ...]
    held_out: tuple[str, ...]
    tests: tuple[Example, ...]


def load_data(spec: ModelSpec, smoke: bool) -> Data:
    """Read the shipped prose, or generate the spec's task examples (training) and 200 test examples a family."""
    if spec.kind == "prose":
        train_texts, held_out = (
            (sample_data_dir() / "prose" / name).read_text("utf-8").splitlines()
            for name in ("train.txt", "held_out.txt")
        )
        return Data(tuple(train_texts[: 400 if smoke else None]), (), tuple(held_out[: 16 if smoke else None]), ())
    examples: list[Example] = []
    tests: list[Example] = []
    for name, count in spec.families.items():
        examples += FAMILIES[name].examples("train", min(count, 40) if smoke else count, spec.seed)
    for family in FAMILIES.values():
        tests += family.examples("test", 4 if smoke else 200, seed=0)
    return Data(tuple(e.prompt + e.answer for e in examples), tuple(examples), (), tuple(tests))


def build_model(spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return the untrained model of a spec; raises `GfvizError` for an architecture that has no builder here."""
    config: dict[str, object] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        "initializer_range": 0.04,
        "dtype": "float32",
    }
    torch.manual_seed(spec.seed)
    if spec.architecture == "gpt2":
        config |= {"n_embd": spec.width, "n_layer": spec.layers, "n_head": spec.heads, "n_inner": spec.inner}
        config |= {"n_positions": spec.context, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config.from_dict(config))
    config |= {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.heads,
        "intermediate_size": spec.inner,
        "max_position_embeddings": spec.context,
    }
    if spec.architecture == "llama":
        return LlamaForCausalLM(LlamaConfig.from_dict(config))
    if spec.architecture == "qwen3":
        # Not qwen2: AutoTokenizer gives every model of that type Qwen2's own tokenizer, whatever tokenizer.json says.
        config["head_dim"] = spec.width // spec.heads
        return Qwen3ForCausalLM(Qwen3Config.from_dict(config))
    raise GfvizError(f"unknown architecture '{spec.architecture}' in the spec of {spec.name}")


def save_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, card: str, scores: dict[str, object]
) -> None:
    """Write a `transformers` folder, whole or not at all, in place of one that is there.

    Weights go to half precision and config.json says float32, which is what `from_pretrained` then gives.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        scratch = Path(name) / folder.name
        copy.deepcopy(model).cpu().half().save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        config = json.loads((scratch / "config.json").read_text("utf-8"))
        config["dtype"] = "float32"
        (scratch / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        (scratch / "README.md").write_text(card, "utf-8")
        (scratch / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
        # safetensors makes files that only their owner can read; a wheel would carry that on.
        (scratch / "model.safetensors").chmod((scratch / "config.json").stat().st_mode)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(scratch, folder)


def checkpoint_steps(steps: int) -> tuple[int, ...]:
    """Return five steps, the last one `steps`, each a third of the next.

    >>> checkpoint_steps(2430)
    (30, 90, 270, 810, 2430)
    """
    return tuple(sorted({max(1, round(steps / 3**power)) for power in range(_CHECKPOINTS)}))


def train_one(spec: ModelSpec, out: Path, device: str, smoke: bool, checkpoints: Path | None) -> dict[str, object]:
    """Train, score and write one model; return its scores (and the seconds of training)."""
    if smoke:
        spec = replace(spec, steps=4, copying=min(spec.copying, 2), batch=8)
    data = load_data(spec, smoke)
    tokenizer = train_tokenizer(
        spec.tokenizer, data.texts, spec.vocabulary, spec.context, symbols_apart=spec.kind == "task"
    )
    model = build_model(spec, tokenizer)
    # Through the base class, because transformers wraps its own `to` in a decorator that hides the signature.
    torch.nn.Module.to(model, torch.device(device))
    total = spec.copying + spec.steps
    saved_at = checkpoint_steps(total) if checkpoints is not None and spec.name == CHECKPOINTED else ()
    started = time.perf_counter()

    def after_step(step: int, loss: float) -> None:
        if step % max(1, total // 20) == 0:
            print(
                f"{spec.name}  step {step}/{total}  loss {loss:.3f}  {time.perf_counter() - started:.0f} s",
                flush=True,
            )
        if checkpoints is not None and step in saved_at:
            folder = checkpoints / spec.name / f"step-{step:05d}"
            save_model(folder, model, tokenizer, f"# {spec.name} after {step} of {total} steps\n", {"step": step})

    train(model, _batches(spec, data, tokenizer), Schedule(total, spec.rate), after_step)
    seconds = time.perf_counter() - started
    scores = score(model, tokenizer, data)
    scores |= {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "training_seconds": round(seconds)}
    save_model(out / spec.name, model, tokenizer, model_card(spec, scores), scores)
    return scores


def rescore(spec: ModelSpec, out: Path, device: str, smoke: bool) -> dict[str, object]:
    """Score a model that is already in `out` again, and write its card and scores anew; the weights stay."""
    folder = out / spec.name
    if not (folder / "scores.json").is_file():
        raise GfvizError(f"no trained {spec.name} in {out}: run the same command without --rescore first")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    torch.nn.Module.to(model, torch.device(device))
    known = json.loads((folder / "scores.json").read_text("utf-8"))
    scores: dict[str, object] = known | score(model.eval(), tokenizer, load_data(spec, smoke))
    atomic_write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
    atomic_write_text(folder / "README.md", model_card(spec, scores))
    return scores


def _batches(spec: ModelSpec, data: Data, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    if spec.kind == "prose":
        return prose_batches(data.texts, tokenizer, spec.batch, spec.length, spec.seed)
    copies = copy_batches(data.texts[:: max(1, len(data.texts) // _COPIED)], tokenizer, spec.batch, spec.seed)
    return chain(islice(copies, spec.copying), task_batches(data.examples, tokenizer, spec.batch, spec.seed))


def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Data) -> dict[str, object]:
    """Return held-out scores: nats per token and bits per byte on prose, or exact match per family on the test split.

    Scored as they are stored, in half precision rounded back to single.
    """
    model.half().float()
    if data.held_out:
        per_token, bits = prose_nll(model, tokenizer, data.held_out)
        return {"held_out_nats_per_token": round(per_token, 4), "held_out_bits_per_byte": round(bits, 4)}
    right = exact_matches(model, tokenizer, data.tests, _LONGEST_ANSWER)
    by_family: dict[str, list[bool]] = {}
    for example, hit in zip(data.tests, right):
        by_family.setdefault(example.family, []).append(hit)
    return {
        "exact_match": {name: round(sum(hits) / len(hits), 4) for name, hits in by_family.items()},
        "mean_exact_match": round(sum(right) / len(right), 4),
        "test_examples_a_family": len(data.tests) // len(by_family),
    }


def main() -> None:
    """Train the sample models from scratch."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder a model")
    parser.add_argument("--only", nargs="+", choices=sorted(SPECS), help="train these alone")
    parser.add_argument("--rescore", action="store_true", help="train nothing: score the models in --out again")
    parser.add_argument("--checkpoints", type=Path, help=f"also keep five checkpoints of {CHECKPOINTED} here")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the weights depend on it (default 1)")
    parser.add_argument("--smoke", action="store_true", help="four steps a model, to see that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in options.only or SPECS:
        if options.rescore:
            scores = rescore(SPECS[name], options.out, device, options.smoke)
        else:
            scores = train_one(SPECS[name], options.out, device, options.smoke, options.checkpoints)
        print(name, json.dumps(scores), flush=True)


if __name__ == "__main__":
    main()
