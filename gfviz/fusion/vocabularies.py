"""Two vocabularies matched by what their tokens say."""

import torch
from torch import Tensor

from gfviz.errors import GfvizError
from gfviz.signals import Vocabulary


def shared_tokens(
    student: Vocabulary, teacher: Vocabulary, sizes: tuple[int, int], ends: tuple[int | None, int | None] = (None, None)
) -> tuple[Tensor, Tensor, int]:
    """Maps id → number of the shared token (−1 for none), int64 [V_s] and [V_t], and how many are shared.

    Tokens are equal where their bytes are; where a vocabulary has several ids of the same bytes the first one counts.
    `sizes` are the widths of the models' logits, which may exceed the tokenizers'; `ends` are the two ids that close an
    answer: one token by their role, however they are written. O(V).

    >>> a, b = Vocabulary.from_tokens(["x", "y"]), Vocabulary.from_tokens(["y", "z"])
    >>> [table.tolist() for table in shared_tokens(a, b, (2, 3))[:2]]
    [[-1, 0], [0, -1, -1]]
    """
    first, second = (_first_ids(vocabulary) for vocabulary in (student, teacher))
    common = sorted(first.keys() & second.keys())
    maps = []
    for size, table in zip(sizes, (first, second)):
        numbers = torch.full((size,), -1, dtype=torch.int64)
        ids = torch.tensor([table[token] for token in common], dtype=torch.int64)
        if len(common):
            inside = ids < size
            numbers[ids[inside]] = torch.arange(len(common))[inside]
        maps.append(numbers)
    count = len(common)
    if ends[0] is not None and ends[1] is not None:
        maps[0][ends[0]] = maps[1][ends[1]] = count
    return maps[0], maps[1], count


def require_shared(count: int, teacher: str) -> None:
    """Raise `GfvizError` where not one token is shared, so that `anchored` would compare nothing."""
    if count == 0:
        raise GfvizError(
            f"teachers.{teacher}: no token in common with the pivot, so structure 'anchored' has nothing to match: "
            "use 'spectral' or 'sorted'"
        )


def require_same(student: Vocabulary, teacher: Vocabulary, name: str) -> None:
    """Raise `GfvizError` unless every id means the same in both vocabularies, as KL needs."""
    if student.identity != teacher.identity:
        raise GfvizError(
            f"teachers.{name}: token loss 'kl' needs the pivot's own tokenizer, but this one differs "
            f"({student.identity[:12]} and {teacher.identity[:12]}): use 'uld' or 'alm'"
        )


def _first_ids(vocabulary: Vocabulary) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for index, token in enumerate(vocabulary.tokens):
        if index not in vocabulary.special and not token.startswith(b"<unused "):
            found.setdefault(token, index)
    return found
