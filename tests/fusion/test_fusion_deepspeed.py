"""DeepSpeed's own engine from the shipped configurations, over two gloo processes, where DeepSpeed is installed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.recipes import accelerate_path
from gfviz.fusion.session import create_run
from tests.fusion.comparing import assert_same_training
from tests.fusion.sharded import CURVES, launch_on, whole_and_sharded, write_worker
from tests.fusion.test_fusion_trainer import poison, settings
from tests.fusion.tiny import sums


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


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_a_pivot_in_deepspeeds_shards_trains_as_on_one_process(zoo, tmp_path: Path, name: str) -> None:
    """The teacher is whole on every process; under ZeRO-3 the pivot is whole only inside its forward passes."""
    pytest.importorskip("deepspeed")
    whole, sharded = whole_and_sharded(zoo, tmp_path, shipped_environment(name))
    facts = sharded.record().facts
    assert (facts["distributed"], facts["world_size"], facts["sharded_teachers"]) == ("DEEPSPEED", 2, [])
    assert_same_training(whole, sharded, CURVES)


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_a_bad_step_is_skipped_with_all_its_forward_passes(zoo, tmp_path: Path, name: str) -> None:
    """The engine steps inside the backward pass; one example's teacher gives NaN, to one process and in one pass.

    Skipped as on one process: neither the weights nor the moments nor the gradients of the sound passes are left over.
    """
    pytest.importorskip("deepspeed")
    examples = sums(24)
    examples[11] = replace(examples[11], family="bad")
    write_examples(tmp_path / "train.jsonl", examples)
    write_worker(tmp_path)
    bad = poison(zoo["twin"], tmp_path / "bad")
    runs = []
    for processes, size in ((1, 4), (2, 2)):
        training = {"steps": 6, "batch_size": size, "accumulation": 2, "log_every": 1, "scheduler": "constant"}
        config = settings(
            zoo, tmp_path, data={"train": [str(tmp_path / "train.jsonl")]},
            loss={"structure": "spectral", "beta": 1.0}, training=training,
        )  # fmt: skip
        config["teachers"].append({"name": "bad", "model": str(bad), "domains": ["bad"]})
        run = create_run(parse_config(config))
        environment = shipped_environment(name) if processes == 2 else {}
        if environment:
            environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] = "2"
        done = launch_on(run, tmp_path, processes, environment)
        assert done.returncode == 0, done.stderr[-3000:]
        runs.append(run)
    skipped = [run.reader().series("bad_steps") for run in runs]
    assert skipped[0].steps.tolist() == skipped[1].steps.tolist()
    # Twice in six steps of eight out of 24 examples, and not at the end: what follows shows what was left over.
    assert skipped[0].values.tolist() == [1, 2]
    assert skipped[0].steps[0] < 6
    assert np.isnan(runs[1].reader().series("loss/total").values).sum() == 2
    assert_same_training(*runs, ["loss/total", "loss/sft", "loss/other/token", "loss/other/structure"])
