"""One fusion twice: on one process, and over two gloo processes that a launcher's environment makes shard the pivot."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from gfviz.fusion import session
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.launch import launch_command
from gfviz.fusion.trust import VARIABLE
from gfviz.runs import RunDirectory
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

CURVES = ("loss/total", "loss/other/token", "loss/other/structure", "grad_norm", "graph/other/upper", "eval/nll")
_WORKER = """
from gfviz.fusion.session import execute
from gfviz.runs import RunDirectory
def follow(event):
    if event.kind == "step" and event.step >= int(sys.argv[2]):
        raise RuntimeError("the power is gone")
execute(RunDirectory.open(sys.argv[1]), follow)
"""


def whole_and_sharded(
    zoo: Mapping[str, Path],
    folder: Path,
    environment: Mapping[str, str],
    domains: Sequence[str] | None = None,
    before: str = "",
) -> tuple[RunDirectory, RunDirectory]:
    """Graphs, evaluation, checkpoints and the whole model at the end; the sharded run dies at step 3 and is resumed.

    `before` is code that the processes run first; `domains` routes the teacher.
    """
    write_examples(folder / "train.jsonl", sums())
    write_examples(folder / "eval.jsonl", sums(6))
    write_worker(folder, before)
    files = {"train": [str(folder / "train.jsonl")], "evaluation": [str(folder / "eval.jsonl")]}
    runs = []
    for processes, size in ((1, 8), (2, 4)):
        config = settings(
            zoo, folder, data=files, loss={"structure": "spectral", "beta": 1.0}, graph={"every": 2, "examples": 4},
            training={"steps": 4, "batch_size": size, "log_every": 1, "checkpoint_every": 2},
        )  # fmt: skip
        config["teachers"][0]["domains"] = domains
        config["evaluation"]["at_end"] = True
        run = session.create_run(parse_config(config))
        if processes == 2:
            died = launch_on(run, folder, processes, environment, until=3)
            assert died.returncode != 0
            assert [step for step, _ in run.checkpoints()] == [2], died.stderr[-3000:]
            # Its shards are read with pickle: nobody has said that this run may.
            assert "is read with pickle" in launch_on(run, folder, processes, environment).stderr
            assert [step for step, _ in run.checkpoints()] == [2]
        done = launch_on(run, folder, processes, {**environment, VARIABLE: "1"} if processes == 2 else {})
        assert done.returncode == 0, done.stderr[-3000:]
        assert run.status().state == "finished"
        runs.append(run)
    return runs[0], runs[1]


def write_worker(folder: Path, before: str = "") -> None:
    """The script of one process; `before` is code that it runs first."""
    (folder / "worker.py").write_text(f"import sys\nimport torch\ntorch.set_num_threads(1)\n{before}{_WORKER}")


def launch_on(
    run: RunDirectory, folder: Path, processes: int, environment: Mapping[str, str], until: int = 1000
) -> subprocess.CompletedProcess:
    """Run the worker that `write_worker` left in the folder until the end, or until it dies at a step."""
    home = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        launch_command([str(folder / "worker.py"), str(run.path), str(until)], processes), capture_output=True,
        text=True, timeout=400, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home, **environment},
    )  # fmt: skip
