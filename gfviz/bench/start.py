"""How long it takes to begin: importing the library, and the command's help."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

from gfviz.bench.measure import Row, make_row


def run(device: torch.device, size: str) -> list[Row]:
    """Import of gfviz and of its lower floors without torch's own import, and `gfviz --help`; in fresh processes."""
    count = 5 if size == "full" else 1
    floors = "import torch\nt = time.perf_counter()\nimport gfviz.signals, gfviz.graph, gfviz.gromov, gfviz.runs"
    lazy = "t = time.perf_counter()\nimport gfviz"
    rows = []
    for name, code, target in (
        ("import gfviz", lazy, "<= 0.5"),
        ("import of signals, graph, gromov and runs, torch's import left out", floors, "<= 0.5"),
    ):
        script = f"import time\n{code}\nprint(time.perf_counter() - t)"
        seconds = [float(_output([sys.executable, "-c", script])) for _ in range(count)]
        rows.append(make_row(f"start · {name}", statistics.median(seconds), "s", target=target))
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        _output([sys.executable, "-c", "from gfviz.cli import main; main()", "--help"])
        seconds.append(time.perf_counter() - begun)
    return [*rows, make_row("start · gfviz --help", statistics.median(seconds), "s", target="<= 0.6")]


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
