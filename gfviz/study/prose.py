"""The prose corpus: paragraphs from the documentation inside Python's standard library.

Docstrings (by `ast`), the language topics of `pydoc_data` and blocks of comments, cut into paragraphs and kept where
they read as sentences. The same interpreter gives the same bytes; sample_data/prose ships what CPython 3.11.7 gave.

    python -m gfviz.study.prose --out sample_data/prose
"""

import argparse
import ast
import hashlib
import importlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.files import atomic_write_text

# Others' packages, and tests: their docstrings document nothing.
_LEFT_OUT = ("site-packages", "dist-packages", "test", "tests")
_WORD = re.compile(r"[(\"']?[A-Za-z][a-z]*(?:['-][a-z]+)*[\"')]?[.,;:!?]?[\"')]?")
_SHINGLE = 10
_HELD_OUT_HUNDREDTHS = 8
_PAGE_LENGTH = (45, 600)


@dataclass(frozen=True)
class Corpus:
    """Training paragraphs and held-out ones, none from the same source file, no ten words in a row shared."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def standard_library() -> Path:
    """Folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def paragraphs(text: str) -> list[str]:
    """Cut a text at blank lines and keep the paragraphs that read as sentences, each on one line.

    Kept: 45 to 600 ASCII characters, at least 8 words, seven in ten of them plain words, an ending that ends a
    sentence, no code prompt or field mark.

    >>> paragraphs("x = 1\\n\\nReturn the sum of all the numbers in the list that was\\ngiven, or zero if it is empty.")
    ['Return the sum of all the numbers in the list that was given, or zero if it is empty.']
    """
    found = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in found if _reads_well(paragraph)]


def _reads_well(paragraph: str) -> bool:
    shortest, longest = _PAGE_LENGTH
    if not (shortest <= len(paragraph) <= longest and paragraph.isascii() and paragraph[0].isalpha()):
        return False
    if paragraph[-1] not in ".:!?)" or any(mark in paragraph for mark in (">>>", "::=", "|", "----", "====", ":param")):
        return False
    words = paragraph.split()
    plain = sum(_WORD.fullmatch(word) is not None for word in words)
    return len(words) >= 8 and plain >= 0.7 * len(words)


def docstrings(source: str) -> list[str]:
    """Return the docstrings of a module, its classes and functions, in the order of the text.

    >>> docstrings('def f():\\n    "Do it."')
    ['Do it.']
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: 0 if isinstance(node, ast.Module) else node.lineno)
    return [text for node in nodes if (text := ast.get_docstring(node))]


def comment_blocks(source: str) -> list[str]:
    """Return the runs of comment lines, without their marks.

    >>> comment_blocks("# one\\n# two\\nx = 1  # three")
    ['one\\ntwo']
    """
    blocks: list[str] = []
    lines: list[str] = []
    for line in [*source.splitlines(), ""]:
        if line.lstrip().startswith("#"):
            lines.append(line.lstrip().lstrip("#").strip())
        elif lines:
            blocks.append("\n".join(lines))
            lines = []
    return blocks


def _sources(library: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (name of the source, its texts): files in order of their path, then the topics of pydoc_data."""
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).as_posix()
        if any(part in _LEFT_OUT for part in path.relative_to(library).parts) or name.startswith("pydoc_data/"):
            continue
        try:
            source = path.read_text("utf-8")
            yield name, docstrings(source) + comment_blocks(source)
        except (UnicodeDecodeError, SyntaxError):
            continue
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for topic in sorted(topics):
        yield f"pydoc_data/{topic}", [topics[topic]]


def _is_held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100 < _HELD_OUT_HUNDREDTHS


def _shingles(paragraph: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+", paragraph.lower())
    return {" ".join(words[start : start + _SHINGLE]) for start in range(len(words) - _SHINGLE + 1)}


def build_corpus(library: Path | None = None) -> Corpus:
    """Extract the corpus from a standard library (the running interpreter's by default); about ten seconds.

    Whole source files are held out, by the hash of their name; a paragraph occurs once; a held-out paragraph that
    is in the training text, or shares ten words in a row with it, is dropped. Raises `GfvizError` where the library
    has no text.
    """
    library = library or standard_library()
    train: dict[str, None] = {}
    held_out: dict[str, None] = {}
    for name, texts in _sources(library):
        target = held_out if _is_held_out(name) else train
        target.update(dict.fromkeys(paragraph for text in texts for paragraph in paragraphs(text)))
    if not train:
        raise GfvizError(f"no documentation found in {library}: this interpreter was installed without its sources")
    seen: set[str] = set().union(*map(_shingles, train))
    fresh = (paragraph for paragraph in held_out if paragraph not in train and seen.isdisjoint(_shingles(paragraph)))
    return Corpus(tuple(train), tuple(fresh))


def write_corpus(folder: Path, corpus: Corpus) -> None:
    """Write train.txt and held_out.txt (one paragraph a line), the licence of the text, and where it came from."""
    atomic_write_text(folder / "train.txt", "\n".join(corpus.train) + "\n")
    atomic_write_text(folder / "held_out.txt", "\n".join(corpus.held_out) + "\n")
    atomic_write_text(folder / "LICENSE-PSF", _licence())
    about = {
        "source": "docstrings, comments and pydoc topics of the CPython standard library",
        "version": ".".join(map(str, sys.version_info[:3])),
        "licence": "PSF-2.0 (LICENSE-PSF)",
        "command": "python -m gfviz.study.prose --out sample_data/prose",
        "train_paragraphs": len(corpus.train),
        "held_out_paragraphs": len(corpus.held_out),
    }
    atomic_write_text(folder / "source.json", json.dumps(about, indent=2) + "\n")


def _licence() -> str:
    for path in (standard_library() / "LICENSE.txt", Path(sys.base_prefix) / "LICENSE.txt"):
        if path.is_file():
            return path.read_text("utf-8")
    raise GfvizError("this interpreter came without its LICENSE.txt: use one that has it to build the corpus")


def main() -> None:
    """Build the corpus from the running interpreter."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.txt and held_out.txt")
    folder = parser.parse_args().out
    corpus = build_corpus()
    write_corpus(folder, corpus)
    print(f"{len(corpus.train)} training and {len(corpus.held_out)} held-out paragraphs in {folder}")


if __name__ == "__main__":
    main()
