"""Texts to run a model over, in memory and from files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfviz.errors import GfvizError


@dataclass(frozen=True)
class Text:
    """A text of which the characters from `answer_start` on count; a plain text counts from its first character."""

    content: str
    answer_start: int = 0

    @classmethod
    def of(cls, given: str | Text | tuple[str, str] | Sequence[str]) -> Text:
        """A `Text` from itself, from a plain string, or from a (prompt, answer) pair.

        >>> Text.of(("2+2=", "4"))
        Text(content='2+2=4', answer_start=4)
        """
        if isinstance(given, Text):
            return given
        if isinstance(given, str):
            return cls(given)
        if isinstance(given, Sequence) and len(given) == 2 and all(isinstance(part, str) for part in given):
            return cls(given[0] + given[1], len(given[0]))
        raise GfvizError(f"a text is a string or a (prompt, answer) pair of strings, not {type(given).__name__}")


def as_texts(texts: Iterable) -> list[Text]:
    """Check and convert; raises `GfvizError` naming the first text that is empty or of the wrong kind."""
    if isinstance(texts, str | bytes):
        raise GfvizError("texts must be a list of strings, not one string: wrap it in a list")
    found = [Text.of(text) for text in texts]
    if not found:
        raise GfvizError("there is no text: the list is empty")
    for number, text in enumerate(found):
        if not text.content[text.answer_start :].strip():
            raise GfvizError(f"text {number} is empty{' after its prompt' if text.answer_start else ''}: remove it")
    return found


def read_texts(path: str | Path, limit: int | None = None) -> list[Text]:
    """Read texts from a UTF-8 file, at most `limit` of them.

    `.jsonl`: an object a line with `text`, or with `prompt` and `answer`. Anything else: plain text, one text a line,
    blank lines left out. Raises `GfvizError` naming file and line.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = path.write_text("one\\n\\ntwo\\n")
    >>> [text.content for text in read_texts(path)]
    ['one', 'two']
    """
    path = Path(path)
    try:
        # newline="" keeps CRLF as it is: the bytes of a text are what alignment counts.
        with open(path, encoding="utf-8", newline="") as handle:
            content = handle.read()
    except FileNotFoundError:
        raise GfvizError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise GfvizError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    # str.splitlines would also break at U+2028, inside a JSON string too.
    lines = content.split("\n")
    if path.suffix.lower() == ".jsonl":
        texts = _from_jsonl(path, lines)
    else:
        texts = [Text(line.removesuffix("\r")) for line in lines if line.strip()]
    if not texts:
        raise GfvizError(f"{path}: the file holds no text")
    return texts[:limit]


def _from_jsonl(path: Path, lines: list[str]) -> list[Text]:
    texts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GfvizError(f"{path}, line {number}: not JSON ({error})") from error
        texts.append(_from_object(path, number, item))
    return texts


def _from_object(path: Path, number: int, item: object) -> Text:
    if isinstance(item, dict):
        if isinstance(item.get("text"), str) and item["text"].strip():
            return Text(item["text"])
        prompt, answer = item.get("prompt"), item.get("answer")
        if isinstance(prompt, str) and isinstance(answer, str) and answer.strip():
            return Text(prompt + answer, len(prompt))
    raise GfvizError(f"{path}, line {number}: expected an object with a 'text', or with a 'prompt' and an 'answer'")
