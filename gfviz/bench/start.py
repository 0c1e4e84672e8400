"""How long it takes to begin: importing the library, and the command's help."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import torch

from gfviz.bench.measure import Row, make_row


def run(device: torch.device, size: str) -> list[Row]:
    """Import of gfviz and of its lower floors without torch's own import, and `gfviz --help`; in fresh processes."""
    count = 5 if size == "full" else 1
    floors = "import torch\nt = time.process_time()\nimport gfviz.signals, gfviz.graph, gfviz.gromov, gfviz.runs"
    lazy = "t = time.process_time()\nimport gfviz"
    rows = []
    for name, code, target in (
        ("import gfviz", lazy, "<= 0.5"),
        ("import of signals, graph, gromov and runs, torch's import left out", floors, "<= 0.5"),
    ):
        script = f"import time\n{code}\nprint(time.process_time() - t)"
        seconds = [float(_output([sys.executable, "-c", script])) for _ in range(count)]
        rows.append(make_row(f"start · {name}, processor time", statistics.median(seconds), "s", target=target))
    help_text, nothing = (
        statistics.median(_whole([sys.executable, "-c", *code]) for _ in range(count))
        for code in (["from gfviz.cli import main; main()", "--help"], ["pass"])
    )
    name = "start · gfviz --help, processor time (floor: Python alone)"
    return [*rows, make_row(name, help_text, "s", floor=nothing, target="<= 0.6")]


def _whole(command: list[str]) -> float:
    begun = _of_children()
    _output(command)
    return _of_children() - begun


def _of_children() -> float:
    """Processor time of the processes that have ended, seconds: what other programs do does not stretch it."""
    found = os.times()
    return found.children_user + found.children_system


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
