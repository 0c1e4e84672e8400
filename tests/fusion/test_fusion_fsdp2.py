"""FSDP2 from the shipped configuration over two gloo processes, and where frozen teachers go under each launcher."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gfviz.fusion.config import parse_config
from gfviz.fusion.prepare import prepare
from gfviz.fusion.recipes import accelerate_path
from gfviz.fusion.sharding import is_sharded, place_teachers
from tests.fusion.comparing import assert_same_training
from tests.fusion.sharded import CURVES, whole_and_sharded
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

# Accelerate turns FSDP on for accelerators alone; on CPUs the same plugin and preparation run once it is told so.
ALSO_ON_CPUS = """
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
plain = AcceleratorState.__init__
def also_on_cpus(self, *args, **named):
    plain(self, *args, **named)
    plugin = named.get("fsdp_plugin")
    if plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = plugin
AcceleratorState.__init__ = also_on_cpus
"""


def shipped_environment(name: str) -> dict[str, str]:
    """What `accelerate launch --config_file` gives its processes for a shipped configuration, but full precision."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launch_command_parser().parse_args(["--config_file", str(accelerate_path(name)), "script.py"])
    found = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    chosen = {key: value for key, value in found.items() if key.startswith(("ACCELERATE_", "FSDP_"))}
    return {**chosen, "ACCELERATE_MIXED_PRECISION": "no"}


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_pivot_and_its_teacher_in_fsdp2_shards_train_as_on_one_process(zoo, tmp_path: Path) -> None:
    """Teachers in shards, and routed, so that a batch may leave one out on one process alone."""
    whole, sharded = whole_and_sharded(zoo, tmp_path, shipped_environment("fsdp2"), ["sum"], ALSO_ON_CPUS)
    facts = sharded.record().facts
    assert (facts["distributed"], facts["world_size"], facts["sharded_teachers"]) == ("FSDP", 2, ["other"])
    assert_same_training(whole, sharded, CURVES)
    folder = sharded.checkpoints()[-1][1]
    assert len(list(folder.glob("pytorch_model_fsdp_0/*.distcp"))) == 2


def fake_accelerator(kind: str, processes: int = 4) -> SimpleNamespace:
    """As much of an accelerator as the preparation of teachers reads; a device that is not where models are loaded."""
    stage = {"zero2": 2, "zero3": 3}.get(kind)
    plugin = None if stage is None else SimpleNamespace(zero_stage=stage)
    return SimpleNamespace(
        is_fsdp2=kind == "fsdp2", num_processes=processes, device=torch.device("meta"),
        state=SimpleNamespace(deepspeed_plugin=plugin),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "collective"), [("multi-gpu", False), ("zero2", False), ("zero3", True), ("fsdp2", True)]
)
def test_which_launchers_make_forward_passes_collective(kind: str, collective: bool) -> None:
    assert is_sharded(fake_accelerator(kind)) is collective


@pytest.mark.parametrize("kind", ["multi-gpu", "zero2", "zero3"])
def test_teachers_are_whole_on_every_device_where_they_are_not_sharded(zoo, tmp_path: Path, kind: str) -> None:
    """DeepSpeed never sees a teacher: it is frozen, whole, moved, and runs without the other processes."""
    config = parse_config(settings(zoo, tmp_path, teachers=("other", "twin")))
    config.teachers[1].device = "cpu"
    prepared = prepare(config, sums(4), [])
    place_teachers(config, prepared.online, fake_accelerator(kind))  # type: ignore[arg-type]
    moved, placed = prepared.online
    assert {p.device.type for p in moved.model.parameters()} == {"meta"}
    # One with a device of its own stays there.
    assert {p.device.type for p in placed.model.parameters()} == {"cpu"}
    for teacher in prepared.online:
        assert not teacher.collective
        assert not teacher.model.training
        assert not any(p.requires_grad for p in teacher.model.parameters())
        assert sum(p.numel() for p in teacher.model.parameters()) > 0
    assert all(type(p) is torch.nn.Parameter for p in moved.model.parameters())


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_accelerates_launcher_reads_the_shipped_deepspeed_files(name: str) -> None:
    """Its own loader and checks; the engine is in test_fusion_deepspeed.py, for which DeepSpeed must be installed."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    arguments = launch_command_parser().parse_args(["--config_file", str(accelerate_path(name)), "script.py"])
    found, _, _ = _validate_launch_command(arguments)
    assert found.use_deepspeed
    assert not found.use_fsdp
    assert found.zero_stage == int(name[-1])
    assert (found.num_processes, found.mixed_precision) == (8, "bf16")
    assert str(found.zero3_init_flag).lower() == "false"
    assert str(found.zero3_save_16bit_model).lower() == str(name == "zero3").lower()


def test_the_shipped_fsdp2_file_sets_what_the_shards_need() -> None:
    found = shipped_environment("fsdp2")
    assert (found["ACCELERATE_USE_FSDP"], found["FSDP_VERSION"]) == ("true", "2")
    assert found["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    assert (found["FSDP_STATE_DICT_TYPE"], found["FSDP_RESHARD_AFTER_FORWARD"]) == ("SHARDED_STATE_DICT", "true")
