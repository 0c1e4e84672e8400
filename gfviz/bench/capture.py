"""Capture beside the bare forward pass of the same model over the same batches."""

from __future__ import annotations

import statistics

import torch

from gfviz.bench.measure import Row, make_row, product_rate, ratio, times
from gfviz.bench.model import products_per_token, random_model, random_text, word_tokenizer
from gfviz.capture import capture


def run(device: torch.device, size: str) -> list[Row]:
    """Tokens per second of `capture`, and its share of the bare forward pass's, on a randomly initialised model."""
    full = size == "full"
    model = random_model("100M" if full else "tiny", device).eval()
    vocabulary = model.config.vocab_size
    count, length, per_batch = (8, 256, 4) if full else (2, 8, 1)
    tokenizer = word_tokenizer(vocabulary)
    texts = [random_text(length, vocabulary, seed) for seed in range(count)]
    ids = torch.tensor(tokenizer(texts)["input_ids"], device=device)

    @torch.inference_mode()
    def bare() -> None:
        for batch in ids.split(per_batch):
            model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)

    def captured() -> None:
        capture(model, texts, tokenizer=tokenizer, nodes="rank", batch_tokens=per_batch * ids.shape[1])

    seconds = times({"bare": bare, "capture": captured}, device, 5 if full else 1)
    tokens = ids.numel()
    speed, peer = (tokens / statistics.median(seconds[name]) for name in ("capture", "bare"))
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    floor = product_rate(device) / products_per_token(model)
    shape = f"{tokens} tokens, {parameters:.1f}M parameters, {device.type}"
    name = f"capture · {shape} (floor: products alone; peer: bare forward; ratio: share of it)"
    share = ratio(seconds["bare"], seconds["capture"])
    return [make_row(name, speed, "tokens/s", floor=floor, peer=peer, ratio=share, target=">= 0.95")]
