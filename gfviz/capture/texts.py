"""Texts to run a model over, in memory and from files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.files import whole_characters

MAX_LINE = 64 * 2**20


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
    """Check and convert; raises `GfvizError` naming the first text that is empty, no Unicode or of the wrong kind."""
    if isinstance(texts, str | bytes):
        raise GfvizError("texts must be a list of strings, not one string: wrap it in a list")
    found = [Text.of(text) for text in texts]
    if not found:
        raise GfvizError("there is no text: the list is empty")
    for number, text in enumerate(found):
        if not text.content[text.answer_start :].strip():
            raise GfvizError(f"text {number} is empty{' after its prompt' if text.answer_start else ''}: remove it")
        whole_characters(text.content, f"text {number}")
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
    objects = path.suffix.lower() == ".jsonl"
    texts: list[Text] = []
    try:
        # newline="\n" keeps CRLF as it is: the bytes of a text are what alignment counts; U+2028 ends no line.
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), start=1):
                if len(line) > MAX_LINE:
                    raise GfvizError(f"{path}, line {number}: longer than {MAX_LINE // 2**20} MiB")
                if line.strip():
                    texts.append(_from_line(path, number, line) if objects else _plain(line))
                if limit is not None and len(texts) >= limit:
                    break
    except FileNotFoundError:
        raise GfvizError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise GfvizError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if not texts:
        raise GfvizError(f"{path}: the file holds no text")
    return texts[:limit]


def _plain(line: str) -> Text:
    return Text(line.removesuffix("\n").removesuffix("\r"))


def _from_line(path: Path, number: int, line: str) -> Text:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GfvizError(f"{path}, line {number}: not JSON ({error})") from error
    return _from_object(path, number, item)


def _from_object(path: Path, number: int, item: object) -> Text:
    where = f"{path}, line {number}"
    if isinstance(item, dict):
        if isinstance(item.get("text"), str) and item["text"].strip():
            return Text(whole_characters(item["text"], where))
        prompt, answer = item.get("prompt"), item.get("answer")
        if isinstance(prompt, str) and isinstance(answer, str) and answer.strip():
            return Text(whole_characters(prompt + answer, where), len(prompt))
    raise GfvizError(f"{where}: expected an object with a 'text', or with a 'prompt' and an 'answer'")
