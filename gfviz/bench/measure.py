"""What every benchmark needs: rows, interleaved timing, the machine's own bandwidth, peak memory."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One measured line.

    `value` in `unit`; `floor`, the physical least (bytes moved over the measured copy bandwidth), and `peer`, what
    another library takes, in the same unit; `ratio` is what `target` ("<= 3", ">= 50") speaks of, as `name` says, and
    `met` whether it holds. None where it does not apply or could not be measured here.
    """

    name: str
    value: float | None
    unit: str
    floor: float | None = None
    peer: float | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None


def make_row(
    name: str,
    value: float | None,
    unit: str,
    *,
    floor: float | None = None,
    peer: float | None = None,
    ratio: float | None = None,
    target: str | None = None,
    compared: bool = False,
) -> Row:
    """A row whose `met` follows from `ratio`, or `value` where there is none, and `target`.

    `compared`: the target is about a peer. Where that is not installed, nothing is met and nothing missed.

    >>> make_row("read", 2.0, "s", ratio=1.5, target="<= 3").met
    True
    >>> make_row("loss (ratio: peer / ours)", 60.0, "ms", target=">= 50", compared=True).met is None
    True
    """
    tested = ratio if compared or ratio is not None else value
    met = None
    if target is not None and tested is not None and math.isfinite(tested):
        sense, bound = target.split()
        met = tested <= float(bound) if sense == "<=" else tested >= float(bound)
    return Row(name, value, unit, floor, peer, ratio, target, met)


def times(work: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each piece of work in each of `rounds` rounds, all of them in turn: a busy machine slows all alike."""
    clock = clock_for(device)
    found: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            wait(device)
            begun = clock()
            run()
            wait(device)
            if number or rounds == 1:  # the first round warms caches and compilers
                found[name].append(clock() - begun)
    return {name: values[-rounds:] for name, values in found.items()}


def clock_for(device: torch.device) -> Callable[[], float]:
    """The clock to time by: on one core the processor's time, which other programs do not stretch; else the wall's."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def ratio(over: list[float], under: list[float]) -> float:
    """Median over the rounds of one time divided by another."""
    return statistics.median(a / b for a, b in zip(over, under))


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes per second that a copy moves (read and written), median of seven; `size` bytes are copied."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    seconds = times({"copy": lambda: target.copy_(source)}, device, 7)["copy"]
    return 2 * size / statistics.median(seconds)


def product_rate(device: torch.device, size: int = 768) -> float:
    """Multiplications with addition per second of a float32 matrix product [size, size]², median of seven."""
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    seconds = times({"product": lambda: left @ right}, device, 7)["product"]
    return size**3 / statistics.median(seconds)


def peak_bytes(run: Callable[[], object], device: torch.device) -> float | None:
    """Most bytes that `run` held at once beyond what was held before; None where the system does not say.

    On a GPU what torch allocated; on Linux the process's resident memory, whose high-water mark can be set back.
    """
    gc.collect()
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    if not _reset_high_water():
        return None
    before = _resident("VmRSS")
    run()
    return float(_resident("VmHWM") - before)


def _reset_high_water() -> bool:
    try:
        # What the C library kept from before would hide that it is used again.
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")
    except (OSError, AttributeError):
        return False
    return True


def _resident(key: str) -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) * 1024


def nbytes(*tensors: Tensor) -> int:
    """Bytes of all elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on."""
    import scipy

    from gfviz import __version__

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "gfviz": __version__,
        "device": str(device),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
