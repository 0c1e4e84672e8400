"""Nothing inside a training step waits for a GPU but the one place that is meant to.

On the device "meta" tensors have shapes and no values: whatever would have to be read from a device shows itself, and
all code runs that a GPU would run (but for the kernels themselves).
"""

import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gfviz.fusion.arguments import training_arguments
from gfviz.fusion.config import parse_config
from gfviz.fusion.losses import AnchoredGLD, AnswerSignal, disagreement
from gfviz.fusion.losses import structure as structure_losses
from gfviz.fusion.objective import make_structure_loss, make_token_loss
from gfviz.fusion.prepare import prepare
from gfviz.fusion.rows import SignalRow, from_rows
from gfviz.fusion.trainer import FusionTrainer
from gfviz.runs import RunDirectory
from gfviz.signals import TopKLogits
from tests.fusion.test_fusion_losses import make_pair, maps_of
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

META = torch.device("meta")
# Results whose size depends on values, and numbers handed to Python. `eigh` reads its error code, as torch says of it.
READS = (
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero", "bincount", "_linalg_eigh",
    "repeat_interleave.Tensor", "_assert_async", "sparse",
)  # fmt: skip
MADE_ON_THE_HOST = {"tensor", "as_tensor", "new_tensor", "tolist", "numpy"}


class Waits(TorchDispatchMode):
    """Where a GPU would be waited for: (operator, file that asked)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).removeprefix("aten.")
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = [item for item in flat if isinstance(item, torch.Tensor)]
        there = any(item.device == META for item in tensors) or kwargs.get("device") == META
        if there and self._waits(name, tensors, kwargs):
            self.found.append((name, asker()))
            if name.startswith("_local_scalar_dense"):
                return False
        return func(*args, **kwargs)

    def _waits(self, name: str, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        if name.startswith(("index.", "index_put")):
            return any(item.dtype in (torch.bool, torch.uint8) for item in tensors[1:] if item.dim())
        if name.startswith("_to_copy") and "device" in kwargs:
            return kwargs["device"] != tensors[0].device and not kwargs.get("non_blocking")
        if name.startswith("copy_"):
            return tensors[0].device != tensors[1].device and tensors[1].dim() > 0
        return any(part in name for part in READS)


class MadeOnTheHost(TorchFunctionMode):
    """Tensors made from Python's numbers: they are copied to a GPU, and the copy is waited for."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in MADE_ON_THE_HOST and isinstance(made, torch.Tensor) and made.is_meta:
            self.found.append((func.__name__, asker()))
        return made


def asker() -> str:
    """The innermost file of the project, or of transformers below it, that the call came from."""
    for frame, _ in traceback.walk_stack(None):
        for root in ("/gfviz/", "/transformers/"):
            if root in frame.f_code.co_filename:
                return root.strip("/") + "/" + frame.f_code.co_filename.split(root)[-1]
    return "autograd"


class FromRows:
    """A teacher read from a cache: rows on the host, the batch on the device."""

    name = "twin"

    def __init__(self, rows: dict[int, SignalRow], width: int) -> None:
        self.rows, self.width = rows, width

    def signals(self, part: dict[str, Any]) -> AnswerSignal:
        return from_rows([self.rows[number] for number in part["index"]], part, self.width)

    def idle(self) -> None:
        """Nothing."""


def moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: moved(item) for key, item in value.items()}
    return value.to(META) if isinstance(value, torch.Tensor) else value


@pytest.fixture
def trainer(zoo, tmp_path: Path) -> FusionTrainer:
    """With two teachers, one of them for half of the examples and from a cache."""
    mapping = settings(zoo, tmp_path, teachers=("other", "twin"), loss={"structure": "anchored", "temperature": 2.0})
    mapping["teachers"][1]["domains"] = ["sum"]
    config = parse_config(mapping)
    prepared = prepare(config, sums(8), [])
    arguments = training_arguments(config, RunDirectory(tmp_path / "run"))
    trainer = FusionTrainer(
        prepared.trained, arguments, prepared.objective, prepared.train, prepared.collator, prepared.k, 2.0
    )
    online, cached = prepared.online
    part = prepared.collator(prepared.train)["teachers"]["twin"]
    rows = dict(zip(part["index"], cached.rows_of(part["model"]), strict=True))
    trainer.objective.terms[1].source = FromRows(rows, cached._width)
    trainer.model = trainer.model.to(META)
    online.model.to(META)
    online._reader._proven = True  # the first batch alone is waited for
    return trainer


CASES = (
    ("uld", "sorted", "prob"), ("uld", "centred", "prob"), ("uld", "spectral", "prob"), ("uld", "entries", "zscore"),
    ("alm", "anchored", "prob"), ("none", "anchored", "raw"), ("kl", "none", "prob"),
)  # fmt: skip


def step(trainer: FusionTrainer, batches: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A whole step, up to the question whether all was finite."""
    optimizer = torch.optim.AdamW(trainer.model.parameters())
    with Waits() as waits, MadeOnTheHost(waits.found):
        counts = trainer._counts(batches, META)
        for batch in batches:
            trainer.compute_loss(trainer.model, batch, num_items_in_batch=counts).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimizer.step()
        trainer.meter.close_step(1)
    return waits.found


def test_a_step_waits_for_no_device(trainer: FusionTrainer) -> None:
    examples = trainer.train_dataset
    batches = [moved(trainer.data_collator(examples[:4]))]
    terms = trainer.objective.terms
    maps = terms[0].structure.maps
    config = parse_config({"pivot": {"model": "-"}, "training": {"steps": 1}})
    for token, structure, normalize in CASES:
        trainer.objective.terms = terms[1:] if token == "kl" else terms
        for term in terms:
            term.token = make_token_loss(token, config)
            term.structure = make_structure_loss(structure, normalize, maps)
            term.control = "one-hot" if structure == "sorted" else "none"
        found = step(trainer, batches)
        models = [one for one in found if one[1] == "transformers/masking_utils.py"]
        eigen = [one for one in found if one == ("_linalg_eigh.default", "gfviz/gromov/batched.py")]
        # transformers looks whether a batch is padded, and how: in each model's forward pass, as in any training.
        assert len(models) == (2 if token == "kl" else 4)
        # Student's and teacher's spectra, of two teachers: torch's own look at the error code.
        assert len(eigen) == (4 if structure == "spectral" else 0)
        rest = [one for one in found if one not in models and one not in eigen]
        assert rest == [], (token, structure)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: int(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.clone().index_put_((x > 0,), x.new_zeros(())),
        lambda x: torch.equal(x, x),
        lambda x: torch.unique(x),
        lambda x: torch.where(x > 0),
        lambda x: x.masked_select(x > 0),
        lambda x: bool(x.any()),
        lambda x: x.new_tensor(3),
        lambda x: torch.tensor([1, 2], device=META),
        lambda x: torch.zeros(3).to(META),
        lambda x: x.cpu(),
        lambda x: torch.zeros(3, device=META).copy_(torch.zeros(3)),
        lambda x: torch.bincount(x.long().flatten()),
        lambda x: x.clone().requires_grad_().gather(1, x.long(), sparse_grad=True).sum().backward(),
        lambda x: torch.linalg.eigvalsh(x),
    ],
)
def test_whatever_waits_is_found(waits) -> None:
    with Waits() as seen, MadeOnTheHost(seen.found), suppress(RuntimeError):
        waits(torch.zeros(4, 4, device=META))
    assert len(seen.found) >= 1


def test_a_bound_in_place_of_a_count_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU sizes are bounds: `anchored` gives the same loss and gradient, for any normalisation."""
    for normalize in ("prob", "raw", "zscore"):
        found = []
        for size in (disagreement.known_size, lambda _size, bound: bound):
            monkeypatch.setattr(disagreement, "known_size", size)
            monkeypatch.setattr(structure_losses, "known_size", size)
            pair, _, student, _ = make_pair()
            value = AnchoredGLD(*maps_of(), normalize)(pair).total
            value.backward()
            found.append((value.detach(), student.grad))
            monkeypatch.undo()
        torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("normalize", ["prob", "raw"])
def test_an_examples_loss_does_not_depend_on_its_batch(normalize: str) -> None:
    pair = make_pair()[0]
    whole = AnchoredGLD(*maps_of(), normalize)(pair).total.item()
    alone = 0.0
    for row in range(len(pair.aligned)):
        sides = []
        for side in (pair.student, pair.teacher):
            signal = side.signal
            one = TopKLogits(*(x[row : row + 1] for x in (signal.values, signal.ids, signal.logsumexp, signal.mask)))
            sides.append(AnswerSignal(one, side.token_log_prob[row : row + 1]))
        changed = replace(pair, student=sides[0], teacher=sides[1])
        alone += AnchoredGLD(*maps_of(), normalize)(changed).total.item()
    assert whole == pytest.approx(alone, rel=1e-12)
