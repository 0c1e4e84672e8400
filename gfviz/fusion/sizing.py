"""Memory of a training step without the memory: the step runs on tensors that have shapes and no storage.

torch's fake tensors go through the same operators and the same autograd graph as real ones. Counting the storages that
are alive at each operator gives the peak of weights, gradients, optimizer states and activations of any architecture,
at any size, in seconds on one core.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gfviz.errors import GfvizError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from gfviz.fusion.config import LoraConfig


@dataclass(frozen=True)
class BatchShape:
    """A padded batch: `rows` examples of `length` tokens, logits at the last `window` of them."""

    rows: int
    length: int
    window: int


@dataclass(frozen=True)
class StepMemory:
    """Bytes that training a model takes on one device that holds all of it.

    `forward` is what the forward pass leaves for the backward pass, logits among it; `activations` is the most that a
    step holds beyond weights, gradients and optimizer; `peak` is that of a step once
    the optimizer has its states, at most the sum (activations go as gradients come). `largest_block`: weights of the
    largest repeated block, which sharding gathers whole.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    forward: int
    activations: int
    peak: int
    largest_block: int


@dataclass(frozen=True)
class ForwardMemory:
    """Bytes of a frozen model: its weights, and what one forward pass without gradients holds at its peak."""

    parameters: int
    weights: int
    forward: int
    largest_block: int


def training_memory(
    architecture: PretrainedConfig,
    shape: BatchShape,
    *,
    dtype: str = "float32",
    precision: str = "float32",
    checkpointing: bool = False,
    lora: LoraConfig | None = None,
    temperature: float = 1.0,
    accumulation: int = 1,
    attention: str | None = None,
) -> StepMemory:
    """The memory of training a model of this architecture with AdamW on batches of this shape.

    AdamW keeps two numbers of the weights' precision for each trained weight. With accumulation gradients stay through
    the next forward pass. The loss keeps what `answer_signal` keeps: the logits, and one gradient of them; at another
    temperature than 1 those of the scaled logits as well. Raises `GfvizError` for an architecture that cannot be built
    from its configuration. Cost: seconds; no memory worth naming.
    """
    model = _build(architecture, dtype, attention)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trained: Any = model
    if lora is not None:
        from gfviz.fusion.loading import adapt

        trained = adapt(model, lora)
    with _pretending() as ledger:
        _give_shapes(trained.train())
        learned = [p for p in trained.parameters() if p.requires_grad]
        for weight in learned:
            weight.register_post_accumulate_grad_hook(ledger.is_gradient)
        weights = ledger.peak = ledger.other_peak = ledger.live
        for _ in range(min(accumulation, 2)):
            before = ledger.live
            value = _loss(trained, shape, precision, temperature)
            forward = ledger.live - before
            value.backward()
            del value
        gradients = sum(p.numel() * p.element_size() for p in learned)
        return StepMemory(
            parameters=sum(p.numel() for p in trained.parameters()),
            trainable=sum(p.numel() for p in learned),
            weights=weights,
            gradients=gradients,
            optimizer=2 * gradients,
            forward=forward,
            activations=ledger.other_peak - weights,
            peak=ledger.peak + 2 * gradients,
            largest_block=_largest_block(model),
        )


def forward_memory(
    architecture: PretrainedConfig,
    shape: BatchShape,
    *,
    dtype: str = "float32",
    attention: str | None = None,
    sharded: bool = False,
) -> ForwardMemory:
    """The memory of a frozen model that reads batches of this shape. Raises `GfvizError` as `training_memory` does.

    Its head is applied to some rows and a chunk of the vocabulary at a time (see `SignalReader`), where it is a plain
    linear map and not in shards (`sharded`); else the logits are held whole.
    """
    model = _build(architecture, dtype, attention).eval()
    with _pretending() as ledger, torch.no_grad():
        _give_shapes(model)
        weights = ledger.peak = ledger.live
        head = model.get_output_embeddings()
        if sharded or type(head) is not nn.Linear:
            _window_logits(model, shape)
        else:
            _read_in_chunks(model, head, shape)
        # The signal's own numbers are a thousandth of the logits.
        count = sum(p.numel() for p in model.parameters())
        return ForwardMemory(count, weights, ledger.peak - weights, _largest_block(model))


def _read_in_chunks(model: Any, head: nn.Linear, shape: BatchShape) -> None:
    """What `SignalReader` holds: the model's pass with the head at one position, then the head chunk by chunk."""
    from gfviz.capture.forward import ROWS
    from gfviz.kernels.blockwise import CACHED_ELEMENTS
    from gfviz.kernels.head import CHUNK

    entered: list[Tensor] = []

    def cut(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor]:
        entered.append(given[0])
        return (given[0][:1, :1],)

    handle = head.register_forward_pre_hook(cut)
    _window_logits(model, shape)
    handle.remove()
    chosen = entered[0].flatten(0, 1)[: shape.rows * shape.window].clone()
    for some in chosen.split(ROWS):
        logits = nn.functional.linear(some, head.weight[:CHUNK])
        torch.empty(min(CACHED_ELEMENTS, logits.numel()))  # where they are exponentiated
        del logits


def _loss(model: nn.Module, shape: BatchShape, precision: str, temperature: float) -> Tensor:
    mixed = precision != "float32"
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float16
    with torch.autocast("cpu", kind, enabled=mixed):
        logits = _window_logits(model, shape)
    # Accelerate hands a mixed-precision model's outputs on in float32.
    logits = logits.float() if mixed else logits
    scaled = logits if temperature == 1.0 else logits / temperature
    reduced: Tensor = _Reduced.apply(scaled)  # type: ignore[assignment]
    # The answers' likelihood is taken of the logits themselves.
    plain: Tensor = reduced if temperature == 1.0 else _Reduced.apply(logits)  # type: ignore[assignment]
    return reduced + plain


def _window_logits(model: nn.Module, shape: BatchShape) -> Tensor:
    from gfviz.fusion.teachers import forward_arguments, window_logits

    ids = torch.zeros(shape.rows, shape.length, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": torch.zeros_like(ids)}
    inputs["mask"] = torch.ones(shape.rows, shape.window, dtype=torch.bool)
    return window_logits(model, inputs, forward_arguments(model))


class _Reduced(torch.autograd.Function):
    """In the place of the kernel for top-k and logsumexp, which reads storage: it keeps the logits, returns one
    gradient as large, that of the answer tokens in it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.empty_like(ctx.saved_tensors[0])


def _build(architecture: PretrainedConfig, dtype: str, attention: str | None) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        options = {} if attention is None else {"attn_implementation": attention}
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(architecture, dtype=getattr(torch, dtype), **options)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise GfvizError(
            f"a {architecture.model_type} model cannot be sized from its configuration ({text})"
        ) from error


def _give_shapes(model: nn.Module) -> None:
    """Replace a meta model's tensors by fake ones of a CPU, which mixed precision and attention act upon."""
    seen: dict[int, Tensor] = {}  # tied weights stay one
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in seen:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    seen[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
                tensors[name] = seen[id(tensor)]  # type: ignore[assignment]


def _largest_block(model: nn.Module) -> int:
    """Weights of the largest module that stands in a list of like ones: a decoder layer."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for blocks in lists for block in blocks]
    return max(sizes, default=0)


@contextmanager
def _pretending() -> Iterator[_Ledger]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        ledger = _Ledger()
        stack.enter_context(ledger)
        yield ledger


class _Ledger(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, their peak, and the peak of all but weights' gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self.other_peak = 0
        self._gradients = 0
        self._weights: set[Tensor] = set()
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for item in tree_iter(found):
            if isinstance(item, Tensor):
                self._enter(item.untyped_storage())
        return found

    def _enter(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        self.other_peak = max(self.other_peak, self.live - self._gradients)
        weakref.finalize(storage, self._leave, key)

    def is_gradient(self, weight: Tensor) -> None:
        """Hook: a weight's gradient has been made, once or again."""
        if weight.grad is not None and weight not in self._weights:
            self._weights.add(weight)
            self._gradients += weight.grad.untyped_storage().nbytes()

    def _leave(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)
