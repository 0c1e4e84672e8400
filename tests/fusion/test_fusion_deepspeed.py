"""DeepSpeed's own engine from the shipped configurations, over two gloo processes, where DeepSpeed is installed."""

from pathlib import Path

import pytest

from gfviz.fusion.recipes import accelerate_path
from tests.fusion.comparing import assert_same_training
from tests.fusion.sharded import CURVES, whole_and_sharded


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
