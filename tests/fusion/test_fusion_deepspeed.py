"""DeepSpeed's own engine from the shipped configurations, over two gloo processes, where DeepSpeed is installed."""

import os
import subprocess
from pathlib import Path

import pytest

from gfviz.fusion import session
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.launch import launch_command
from gfviz.fusion.recipes import accelerate_path
from gfviz.runs import RunDirectory
from tests.fusion.comparing import assert_same_training
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

WORKER = """
import torch
torch.set_num_threads(1)
from gfviz.fusion.session import execute
from gfviz.runs import RunDirectory
def follow(event):
    if event.kind == "step" and event.step >= int(sys.argv[2]):
        raise RuntimeError("the power is gone")
execute(RunDirectory.open(sys.argv[1]), follow)
"""


def shipped_environment(name: str) -> dict[str, str]:
    """What `accelerate launch --config_file` gives its processes for a shipped configuration, but full precision."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    arguments = launch_command_parser().parse_args(["--config_file", str(accelerate_path(name)), "script.py"])
    checked, defaults, _ = _validate_launch_command(arguments)
    checked.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    found = prepare_deepspeed_cmd_env(checked)[1]
    chosen = {key: value for key, value in found.items() if key.startswith("ACCELERATE_")}
    return {**chosen, "ACCELERATE_MIXED_PRECISION": "no", "DS_ACCELERATOR": "cpu"}


def launch(run: RunDirectory, folder: Path, name: str | None, until: int = 1000) -> subprocess.CompletedProcess:
    (folder / "worker.py").write_text(WORKER)
    home = str(Path(__file__).resolve().parents[2])
    command = launch_command([str(folder / "worker.py"), str(run.path), str(until)], 2 if name else 1)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": home,
        **(shipped_environment(name) if name else {}),
    }
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_a_pivot_in_deepspeeds_shards_trains_as_on_one_process(zoo, tmp_path: Path, name: str) -> None:
    """Two teachers whole on every process, graphs, evaluation, checkpoints, a crash, a resume, the whole model."""
    pytest.importorskip("deepspeed")
    write_examples(tmp_path / "train.jsonl", sums())
    write_examples(tmp_path / "eval.jsonl", sums(6))
    files = {"train": [str(tmp_path / "train.jsonl")], "evaluation": [str(tmp_path / "eval.jsonl")]}
    runs = []
    for launcher, size in ((None, 8), (name, 4)):
        config = settings(
            zoo, tmp_path, data=files, loss={"structure": "spectral", "beta": 1.0}, graph={"every": 2, "examples": 4},
            training={"steps": 4, "batch_size": size, "log_every": 1, "checkpoint_every": 2},
        )  # fmt: skip
        config["evaluation"]["at_end"] = True
        run = session.create_run(parse_config(config))
        if launcher:
            died = launch(run, tmp_path, launcher, until=3)
            assert died.returncode != 0
            assert [step for step, _ in run.checkpoints()] == [2], died.stderr[-3000:]
        done = launch(run, tmp_path, launcher)
        assert done.returncode == 0, done.stderr[-3000:]
        assert run.status().state == "finished"
        runs.append(run)
    facts = runs[1].record().facts
    assert (facts["distributed"], facts["world_size"]) == ("DEEPSPEED", 2)
    names = ("loss/total", "loss/other/token", "loss/other/structure", "grad_norm", "graph/other/upper", "eval/nll")
    assert_same_training(runs[0], runs[1], names)
