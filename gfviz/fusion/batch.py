"""Batches: padded ids of every model, the answer positions in a window, the aligned pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gfviz.fusion.align import Alignment
from gfviz.fusion.tokenise import Encoded

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True)
class TeacherPart:
    """What one teacher contributes to an example: its encoding, the pairs, and its number in the teacher's cache."""

    encoded: Encoded
    alignment: Alignment
    index: int


@dataclass(frozen=True)
class TrainingExample:
    """One example, encoded for the pivot and for every teacher that it is routed to."""

    encoded: Encoded
    teachers: Mapping[str, TeacherPart] = field(default_factory=dict)


def pad_model(items: Sequence[Encoded], pad: int, side: PaddingSide, multiple: int = 1) -> dict[str, Tensor]:
    """Inputs of one model: input_ids, attention_mask, position_ids [B, L]; mask, labels [B, W] of the last W indices.

    W is the smallest window that holds every answer position; `labels` is 0 where `mask` is False (never read there).
    `places` [N]: the positions in the mask flattened where it is True, because their number is known here at no cost,
    and a GPU would have to be waited for.
    """
    length = -(-max(len(item.ids) for item in items) // multiple) * multiple
    ids = np.full((len(items), length), pad, np.int64)
    seen = np.zeros((len(items), length), np.int64)
    labels = np.zeros((len(items), length), np.int64)
    mask = np.zeros((len(items), length), bool)
    for row, item in enumerate(items):
        shift = length - len(item.ids) if side == "left" else 0
        ids[row, shift : shift + len(item.ids)] = item.ids
        seen[row, shift : shift + len(item.ids)] = 1
        first = first_position(item, length, side)
        mask[row, first : first + item.positions] = True
        labels[row, first : first + item.positions] = item.ids[item.start :]
    window = length - int(np.flatnonzero(mask.any(0))[0])
    # Models with learned positions count from the first real token, not from the padding.
    positions = np.maximum(seen.cumsum(1) - 1, 0)
    arrays = {
        "input_ids": ids,
        "attention_mask": seen,
        "position_ids": positions,
        "mask": mask[:, -window:],
        "labels": labels[:, -window:],
        "places": np.flatnonzero(mask[:, -window:]),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def first_position(item: Encoded, length: int, side: PaddingSide) -> int:
    """Index of the first answer position in the padded row."""
    return item.start - 1 + (length - len(item.ids) if side == "left" else 0)


class Collator:
    """Turns training examples into one batch of tensors; `pads` are the padding ids of pivot and teachers.

    The batch has `student` (see `pad_model`) and `teachers`: per teacher with any example in the batch `model`, `rows`
    [R] (its examples among the batch), pairs `student_at`, `teacher_at`, `aligned` [R, A] in window coordinates,
    `student_chunks` [R, W], `teacher_chunks` [R, W'] and `chunks` [R]; `index`, a list of R numbers, stays on the host.
    """

    def __init__(self, pivot_pad: int, teacher_pads: Mapping[str, int], side: PaddingSide, multiple: int = 1) -> None:
        self.pivot_pad = pivot_pad
        self.teacher_pads = dict(teacher_pads)
        self.side: PaddingSide = side
        self.multiple = multiple

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        student = pad_model([example.encoded for example in examples], self.pivot_pad, self.side, self.multiple)
        teachers = {}
        for name, pad in self.teacher_pads.items():
            rows = [row for row, example in enumerate(examples) if name in example.teachers]
            if rows:
                teachers[name] = self._teacher(name, pad, rows, examples, student)
        return {"student": student, "teachers": teachers}

    def _teacher(
        self, name: str, pad: int, rows: list[int], examples: Sequence[TrainingExample], student: dict[str, Tensor]
    ) -> dict[str, Any]:
        parts = [examples[row].teachers[name] for row in rows]
        model = pad_model([part.encoded for part in parts], pad, self.side, self.multiple)
        ours = [self._offset(examples[row].encoded, student) for row in rows]
        theirs = [self._offset(part.encoded, model) for part in parts]
        pairs = max(1, max(len(part.alignment.student) for part in parts))
        student_at, teacher_at = (np.zeros((len(rows), pairs), np.int64) for _ in range(2))
        aligned = np.zeros((len(rows), pairs), bool)
        student_chunks = np.full((len(rows), student["mask"].shape[1]), -1, np.int64)
        teacher_chunks = np.full((len(rows), model["mask"].shape[1]), -1, np.int64)
        for row, (part, own, other) in enumerate(zip(parts, ours, theirs)):
            found = part.alignment
            count = len(found.student)
            student_at[row, :count] = found.student + own
            teacher_at[row, :count] = found.teacher + other
            aligned[row, :count] = True
            student_chunks[row, own : own + len(found.student_chunks)] = found.student_chunks
            teacher_chunks[row, other : other + len(found.teacher_chunks)] = found.teacher_chunks
        arrays = {
            "rows": np.array(rows),
            "student_at": student_at,
            "teacher_at": teacher_at,
            "aligned": aligned,
            "student_chunks": student_chunks,
            "teacher_chunks": teacher_chunks,
            "chunks": np.array([part.alignment.chunks for part in parts]),
        }
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return {"model": model, "index": [part.index for part in parts], **tensors}

    def _offset(self, item: Encoded, padded: Mapping[str, Tensor]) -> int:
        length, window = padded["input_ids"].shape[1], padded["mask"].shape[1]
        return first_position(item, length, self.side) - (length - window)
