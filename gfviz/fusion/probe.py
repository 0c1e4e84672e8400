"""How far the student's graph is from each teacher's, with a certified interval, while it learns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gfviz.errors import GfvizError
from gfviz.fusion.batch import Collator, TrainingExample
from gfviz.fusion.losses import AnswerSignal
from gfviz.fusion.teachers import SignalSource
from gfviz.graph import CoactivationGraph

PROBE_BATCH = 16


@dataclass(frozen=True)
class GraphDistance:
    """lower ≤ GW_2(student, teacher) ≤ upper."""

    teacher: str
    lower: float
    upper: float


class GraphProbe:
    """Rank graphs accumulated over fixed examples: each teacher's once, the student's at every measurement.

    A teacher's graph covers the probe examples that it is routed to, and the student's graph that it is compared with
    the same ones. Controls are not applied: the teacher itself is measured.
    """

    def __init__(
        self, examples: Sequence[TrainingExample], collator: Collator, budget: str, folder: Path, device: Any
    ) -> None:
        self.batches = [
            _moved(collator(examples[start : start + PROBE_BATCH]), device)
            for start in range(0, len(examples), PROBE_BATCH)
        ]
        self.budget = budget
        self.folder = folder
        self._teachers: dict[str, CoactivationGraph | None] = {}

    def measure(
        self,
        step: int,
        student: Callable[[Mapping[str, Any]], AnswerSignal],
        sources: Sequence[SignalSource],
        warn: Callable[[str], None],
        keep: bool = True,
    ) -> list[GraphDistance]:
        """Measure now; saves `step-N-student.safetensors`, and each teacher's graph once. Draws no random number.

        A model that gives no sound signal has no graph: `warn` gets one line about it, and the others are measured.
        Without `keep` nothing is saved: a process that takes part in the forward passes of sharded models alone. Raises
        `GfvizError` where the probe examples have no answer position.
        """
        from gfviz.gromov import gromov_wasserstein

        with torch.no_grad():
            signals = [student(batch["student"]) for batch in self.batches]
        if not signals:
            raise GfvizError("graph: the probe examples have no answer position")
        whole = _of_all([(found, None) for found in signals], "student", warn)
        if whole is None:
            return []
        if keep:
            whole.save(self.folder / f"step-{step:06d}-student.safetensors")
        results = []
        for source in sources:
            teacher = self._teacher(source, warn, keep)
            routed = [
                (found, batch["teachers"][source.name]["rows"])
                for found, batch in zip(signals, self.batches)
                if source.name in batch["teachers"]
            ]
            own = _of_all(routed, "student", warn)
            if teacher is None or own is None:
                continue
            found = gromov_wasserstein(own, teacher, p=2, budget=self.budget)
            results.append(GraphDistance(source.name, float(found.lower), float(found.upper)))
        return results

    def _teacher(self, source: SignalSource, warn: Callable[[str], None], keep: bool) -> CoactivationGraph | None:
        if source.name not in self._teachers:
            parts = [batch["teachers"][source.name] for batch in self.batches if source.name in batch["teachers"]]
            signals: list[tuple[AnswerSignal, torch.Tensor | None]] = [(source.signals(part), None) for part in parts]
            graph = _of_all(signals, source.name, warn)
            if keep and graph is not None:
                graph.save(self.folder / f"{source.name}.safetensors")
            self._teachers[source.name] = graph
        return self._teachers[source.name]


def _graph(found: AnswerSignal, rows: torch.Tensor | None, source: str) -> CoactivationGraph:
    from gfviz.signals import TopKLogits

    signal = found.signal
    if rows is not None:
        signal = TopKLogits(signal.values[rows], signal.ids[rows], signal.logsumexp[rows], signal.mask[rows])
    return CoactivationGraph.from_signal(signal.to(dtype=torch.float32), nodes="rank", normalize="prob", source=source)


def _of_all(
    signals: Sequence[tuple[AnswerSignal, torch.Tensor | None]], source: str, warn: Callable[[str], None]
) -> CoactivationGraph | None:
    """The merged graph of a model's signals, each of all rows or of some; None of none, or where one is unsound."""
    if not signals:
        return None
    try:
        graphs = [_graph(found, rows, source) for found, rows in signals]
    except GfvizError as error:
        warn(f"no graph distance of {source}: {error}")
        return None
    return graphs[0] if len(graphs) == 1 else graphs[0].merge(*graphs[1:])


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value
