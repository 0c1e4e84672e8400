"""Which positions of two models stand at the same place of the answer."""

from dataclasses import dataclass

import numpy as np

from gfviz.fusion.tokenise import Encoded


@dataclass(frozen=True)
class Alignment:
    """Pairs of positions with the same bytes of the answer behind them, and the spans between such places.

    student, teacher: int64 [A] positions, pairwise; student_chunks, teacher_chunks: int64 per position of each model,
    the span (numbered from 0) that the position's token belongs to, −1 for none; chunks: number of spans.
    """

    student: np.ndarray
    teacher: np.ndarray
    student_chunks: np.ndarray
    teacher_chunks: np.ndarray
    chunks: int


def align(student: Encoded, teacher: Encoded) -> Alignment:
    """Align two encodings of one example. O(n log n).

    Where several positions of one model have the same bytes behind them (a token of no bytes), the last one counts: it
    is the one that predicts what the text has next.

    >>> a = Encoded([0, 1, 2, 3], 1, np.array([0, 2, 3]))
    >>> b = Encoded([0, 1, 2], 1, np.array([0, 3]))
    >>> pairs = align(a, b)
    >>> pairs.student.tolist(), pairs.teacher.tolist(), pairs.student_chunks.tolist()
    ([0, 2], [0, 1], [0, 0, 1])
    """
    first, second = _last_positions(student.boundaries), _last_positions(teacher.boundaries)
    places, ours, theirs = np.intersect1d(
        student.boundaries[first], teacher.boundaries[second], assume_unique=True, return_indices=True
    )
    at_student, at_teacher = first[ours], second[theirs]
    chunks = len(places)
    # One text closed by EOS and the other not: after the last common place they do not write the same.
    if chunks and student.closed != teacher.closed:
        chunks -= 1
    return Alignment(
        at_student,
        at_teacher,
        _chunk_numbers(at_student, student.positions, chunks),
        _chunk_numbers(at_teacher, teacher.positions, chunks),
        chunks,
    )


def pair_in_order(student: Encoded, teacher: Encoded) -> Alignment:
    """First position with first, second with second: for signals of another example, which have no common place."""
    count = min(student.positions, teacher.positions)
    pairs = np.arange(count)
    return Alignment(
        pairs,
        pairs,
        _chunk_numbers(pairs, student.positions, count),
        _chunk_numbers(pairs, teacher.positions, count),
        count,
    )


def _last_positions(boundaries: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(boundaries >= 0)
    # Boundaries never fall: the last position of each place is the one before a rise.
    values = boundaries[known]
    return known[np.append(values[1:] > values[:-1], True)] if len(known) else known


def _chunk_numbers(pairs: np.ndarray, positions: int, chunks: int) -> np.ndarray:
    numbers = np.searchsorted(pairs, np.arange(positions), side="right") - 1
    return np.where(numbers < chunks, numbers, -1)
