"""Signals of a served model, from the top log-probabilities that OpenAI-compatible servers return."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gfviz.errors import GfvizError
from gfviz.signals.topk import TopKLogits
from gfviz.signals.vocabulary import readable

_MAX_LINE = 64 * 2**20
# Sequences are padded to the longest: one long line among many short ones must not take all memory (2 GiB here).
_MAX_ENTRIES = 1 << 27
# Servers round: four printed decimals of the logarithms move a sum of probabilities by 5e-5, float32 by less. This is
# twenty times that, and still no token's worth.
_ROUNDING = 1e-3


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
    Positions that returned fewer than k entries are filled with −inf (probability 0). Tokens written with the same
    bytes are one node and their probabilities add up: servers list distinct ids that decode to one text. logsumexp is
    0: the values are log-probabilities already. Raises `GfvizError` naming file and line for anything else, for a
    position whose probabilities sum to more than 1.001, and for more than 2^27 entries B·T·k. O(B·T·k).

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
        except GfvizError as error:
            raise GfvizError(f"{path}, line {number}: {error}") from error
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
        listed = [[(_entry_bytes(top), top["logprob"]) for top in item["top_logprobs"]] for item in content]
        written = b"".join(_entry_bytes(item) for item in content if "token" in item)
    else:
        # The legacy form's first position has nothing before it and is null.
        listed = [[(_encoded(token), value) for token, value in (i or {}).items()] for i in logprobs["top_logprobs"]]
        written = b"".join(_encoded(token) for token in logprobs.get("tokens") or [])
    positions = [_merged(entries, number) for number, entries in enumerate(listed, start=1) if entries]
    return positions, written.decode("utf-8", errors="backslashreplace")


def _encoded(token: object) -> bytes:
    return str(token).encode("utf-8", "surrogatepass")


def _entry_bytes(entry: dict) -> bytes:
    raw = entry.get("bytes")
    if raw is None:
        return _encoded(entry["token"])
    # bytes(7) would be seven zeros, and bytes(10**11) all the memory.
    if not isinstance(raw, list):
        raise ValueError("'bytes' is not a list of numbers")
    return bytes(raw)


def _merged(entries: list[tuple[bytes, float]], number: int) -> dict[bytes, float]:
    """The log-probability of each token of a position, equal tokens added up; `number` is named where they exceed 1."""
    found: dict[bytes, float] = {}
    for token, logprob in entries:
        value = float(logprob)
        if math.isnan(value) or value > _ROUNDING:
            raise ValueError(f"{logprob!r} is not a log-probability")
        if token in found:
            high, low = max(found[token], value), min(found[token], value)
            value = high + math.log1p(math.exp(low - high)) if low > -math.inf else high
        found[token] = value
    total = math.fsum(map(math.exp, found.values()))
    if total > 1 + _ROUNDING:
        times = Counter(token for token, _ in entries)
        repeated = [f"{readable(token)!r} is listed {count} times" for token, count in times.items() if count > 1]
        raise GfvizError(
            f"the probabilities at position {number} sum to {total:.4g}{''.join(f', {r}' for r in repeated[:1])}: "
            "a token's logprob is the logarithm of its share of 1; ask the server for them anew"
        )
    return {token: min(value, 0.0) for token, value in found.items()}


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
