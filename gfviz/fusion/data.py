"""Examples to train and evaluate on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text, whole_characters

MAX_LINE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Example:
    """A prompt with its answer; `target` is the part of the answer that is scored, `family` its domain."""

    prompt: str
    answer: str
    target: str | None = None
    family: str = "all"


def as_examples(items: Iterable[object]) -> list[Example]:
    """Examples from any objects with `prompt`, `answer` and optionally `target`, `family`. Raises `GfvizError`.

    >>> as_examples([{"prompt": "1+1=", "answer": "2"}])
    [Example(prompt='1+1=', answer='2', target=None, family='all')]
    """
    return [_example(item, f"example {number}") for number, item in enumerate(items, 1)]


def read_examples(paths: Sequence[str | Path]) -> list[Example]:
    """Read JSON lines; `domain` is another name for `family`. Raises `GfvizError` naming file and line."""
    found: list[Example] = []
    for path in paths:
        before = len(found)
        try:
            with open(path, encoding="utf-8") as file:
                # A line is never read further than it may be long: there are files of one line without end.
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), 1):
                    if line.strip():
                        found.append(_example(_parse(line, f"{path}:{number}"), f"{path}:{number}"))
        except OSError as error:
            raise GfvizError(f"cannot read the data file {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise GfvizError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
        if len(found) == before:
            raise GfvizError(f"{path} holds no examples: one JSON object with prompt and answer per line")
    return found


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    """Write JSON lines that `read_examples` reads back, whole or not at all."""
    rows = ({key: value for key, value in asdict(example).items() if value is not None} for example in examples)
    atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def examples_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over all examples in order: what a run or a cache was made from."""
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.prompt, example.answer, example.target or "", example.family):
            content = part.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
    return digest.hexdigest()


def spread(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` examples, the first ones of each family in turn, in their own order.

    >>> examples = [Example("a", "1", family="x"), Example("b", "1", family="x"), Example("c", "1", family="y")]
    >>> [example.prompt for example in spread(examples, 2)]
    ['a', 'c']
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    turns: dict[str, int] = {}
    ranked = []
    for place, example in enumerate(examples):
        turn = turns.get(example.family, 0)
        turns[example.family] = turn + 1
        ranked.append((turn, place))
    return [examples[place] for place in sorted(place for _, place in sorted(ranked)[:limit])]


def in_own_words(example: Example, written: str) -> Example:
    """The example with a generated answer, which begins with the space that the data's own answer begins with.

    Tokenizers with a space marker drop that of a text's first token.

    >>> in_own_words(Example("1+1 is", " two"), "2").answer
    ' 2'
    """
    space = example.answer[: len(example.answer) - len(example.answer.lstrip())]
    return replace(example, answer=space + written.strip())


def _parse(line: str, where: str) -> object:
    if len(line) > MAX_LINE:
        raise GfvizError(f"{where}: the line is longer than 4 MB")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GfvizError(f"{where}: not JSON ({error})") from error


def _example(item: object, where: str) -> Example:
    if isinstance(item, Example):
        values: dict[str, object] = asdict(item)
    elif isinstance(item, dict):
        values = item
    else:
        values = {key: getattr(item, key, None) for key in ("prompt", "answer", "target", "family")}
    prompt, answer, target = values.get("prompt"), values.get("answer"), values.get("target")
    family = values.get("family") or values.get("domain") or "all"
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise GfvizError(f"{where}: needs the texts `prompt` and `answer`")
    if not answer.strip():
        raise GfvizError(f"{where}: the answer is empty, so there is nothing to learn or to score")
    if target is not None and not isinstance(target, str):
        raise GfvizError(f"{where}: `target` must be a text")
    found = Example(prompt, answer, target, str(family))
    for name, text in asdict(found).items():
        whole_characters(text or "", f"{where}: `{name}`")
    return found
