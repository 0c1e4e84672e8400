"""Signals of a served model, from the top log-probabilities that OpenAI-compatible servers return."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gfviz.errors import GfvizError
from gfviz.signals.topk import TopKLogits

_MAX_LINE = 64 * 2**20
# Sequences are padded to the longest: one long line among many short ones must not take all memory (2 GiB here).
_MAX_ENTRIES = 1 << 27


@dataclass(frozen=True)
class ServedSignal:
    """A signal whose ids index `tokens`, the byte strings that the server named; `texts` are the sampled texts."""

    signal: TopKLogits
    tokens: tuple[bytes, ...]
    texts: tuple[str, ...]


def read_served_logprobs(path: str | Path) -> ServedSignal:
    """Read JSONL of server responses, one a line, as one signal [B, T, k] with mask; k is the most that came back.

    A line is a chat completion (`choices[].logprobs.content[].top_logprobs`), a legacy completion
    (`choices[].logprobs.top_logprobs`, a list of {token: logprob}), a bare `logprobs` object, or its list of positions.
    Positions that returned fewer than k entries are filled with −inf (probability 0); tokens written with the same
    bytes are one node and their probabilities add up. logsumexp is 0: the values are log-probabilities already.
    Raises `GfvizError` naming file and line for anything else, and for more than 2^27 entries B·T·k. O(B·T·k).

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "served.jsonl"
    >>> _ = path.write_text('{"content": [{"token": "a", "top_logprobs": [{"token": "a", "logprob": -0.1}]}]}')
    >>> read_served_logprobs(path).tokens
    (b'a',)
    """
    path = Path(path)
    sequences: list[list[dict[bytes, float]]] = []
    texts: list[str] = []
    for number, response in _json_lines(path):
        try:
            for positions, text in _sequences(response):
                if positions:
                    sequences.append(positions)
                    texts.append(text)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise GfvizError(
                f"{path}, line {number}: no top log-probabilities in the form of an OpenAI-compatible server "
                f"({error or type(error).__name__}); ask the server for logprobs with top_logprobs"
            ) from error
    if not sequences:
        raise GfvizError(f"{path}: no position with top log-probabilities; ask the server for top_logprobs")
    return _assemble(sequences, tuple(texts))


def _json_lines(path: Path) -> Iterator[tuple[int, object]]:
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE + 1), ""), start=1):
                if len(line) > _MAX_LINE:
                    raise GfvizError(f"{path}, line {number}: longer than {_MAX_LINE // 2**20} MiB")
                if line.strip():
                    try:
                        yield number, json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise GfvizError(f"{path}, line {number}: not JSON ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise GfvizError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _sequences(response) -> Iterator[tuple[list[dict[bytes, float]], str]]:
    if isinstance(response, dict) and "choices" in response:
        for choice in response["choices"]:
            if choice.get("logprobs") is None:
                raise ValueError("a choice without logprobs")
            yield _positions(choice["logprobs"])
    elif isinstance(response, dict) and isinstance(response.get("logprobs"), dict | list):
        yield _positions(response["logprobs"])
    else:
        yield _positions(response)


def _positions(logprobs) -> tuple[list[dict[bytes, float]], str]:
    content = logprobs if isinstance(logprobs, list) else logprobs.get("content")
    if content is not None:
        positions = [_merged((_entry_bytes(top), top["logprob"]) for top in item["top_logprobs"]) for item in content]
        text = b"".join(_entry_bytes(item) for item in content if "token" in item)
        return [p for p in positions if p], text.decode("utf-8", errors="backslashreplace")
    # The legacy form's first position has nothing before it and is null.
    positions = [
        _merged((token.encode("utf-8", "surrogatepass"), value) for token, value in item.items())
        for item in logprobs["top_logprobs"]
        if item
    ]
    return positions, "".join(map(str, logprobs.get("tokens") or []))


def _entry_bytes(entry: dict) -> bytes:
    raw = entry.get("bytes")
    if raw is None:
        return str(entry["token"]).encode("utf-8", "surrogatepass")
    # bytes(7) would be seven zeros, and bytes(10**11) all the memory.
    if not isinstance(raw, list):
        raise ValueError("'bytes' is not a list of numbers")
    return bytes(raw)


def _merged(entries) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for token, logprob in entries:
        value = float(logprob)
        if math.isnan(value) or value > 1e-3:
            raise ValueError(f"{logprob!r} is not a log-probability")
        value = min(value, 0.0)
        if token in found:
            high, low = max(found[token], value), min(found[token], value)
            value = high + math.log1p(math.exp(low - high)) if low > -math.inf else high
        found[token] = value
    return found


def _assemble(sequences: list[list[dict[bytes, float]]], texts: tuple[str, ...]) -> ServedSignal:
    tokens = tuple(sorted({token for positions in sequences for position in positions for token in position}))
    index = {token: i for i, token in enumerate(tokens)}
    k = max(len(position) for positions in sequences for position in positions)
    length = max(map(len, sequences))
    if len(sequences) * length * k > _MAX_ENTRIES:
        raise GfvizError(
            f"{len(sequences)} responses of up to {length} positions and {k} entries are too many to hold at once: "
            "split the file, with responses of like length together"
        )
    values = torch.full((len(sequences), length, k), -torch.inf, dtype=torch.float64)
    ids = torch.zeros((len(sequences), length, k), dtype=torch.int64)
    mask = torch.zeros((len(sequences), length), dtype=torch.bool)
    for b, positions in enumerate(sequences):
        for t, position in enumerate(positions):
            # Ties by bytes, so that the same file always gives the same graph.
            ranked = sorted(position.items(), key=lambda item: (-item[1], item[0]))
            values[b, t, : len(ranked)] = torch.tensor([value for _, value in ranked], dtype=torch.float64)
            ids[b, t, : len(ranked)] = torch.tensor([index[token] for token, _ in ranked])
            mask[b, t] = True
    values = torch.where(mask.unsqueeze(-1), values, 0.0)
    logsumexp = torch.zeros(mask.shape, dtype=torch.float64)
    signal = TopKLogits(values, ids, logsumexp, mask, len(tokens), served=True)
    return ServedSignal(signal, tokens, texts)
