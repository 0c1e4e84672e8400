"""Frozen teachers under FSDP2: in shards over the processes, gathered block by block as they read.

`accelerator.prepare_model(teacher, evaluation_mode=True)` neither shards nor moves a teacher, and counts it among the
trained models; torch's own `fully_shard` is what Accelerate uses for the pivot.
"""

from typing import Any

from torch import nn

from gfviz.fusion.config import FusionConfig
from gfviz.fusion.loading import move_model
from gfviz.fusion.teachers import OnlineTeacher


def is_sharded(accelerator: Any) -> bool:
    """Whether forward passes of the pivot are collective: all processes must make the same ones."""
    if accelerator.is_fsdp2:
        return True
    plugin = accelerator.state.deepspeed_plugin
    return plugin is not None and plugin.zero_stage == 3


def place_teachers(config: FusionConfig, teachers: list[OnlineTeacher], accelerator: Any) -> None:
    """Put the teachers that have no place of their own where the pivot trains: in shards under FSDP2, else whole.

    Under DeepSpeed they stay whole as well: its ZeRO-3 would want an engine for each.
    """
    placed = {teacher.name for teacher in config.teachers if teacher.device or teacher.quantization != "none"}
    for teacher in teachers:
        if teacher.name in placed:
            continue
        if accelerator.is_fsdp2 and accelerator.num_processes > 1:
            shard_frozen(teacher.model, accelerator)
            teacher.collective = True
        else:
            move_model(teacher.model, accelerator.device)


def whole_state(trainer: Any) -> dict[str, Any]:
    """All weights of a trainer's sharded model, on the CPU of the first process; a collective call."""
    # FSDP2 keeps its shards in the model, DeepSpeed in the engine around it.
    sharded = trainer.model if trainer.accelerator.is_fsdp2 else trainer.model_wrapped
    return trainer.accelerator.get_state_dict(sharded)


def shard_frozen(model: nn.Module, accelerator: Any) -> nn.Module:
    """Shard a frozen model in place over all processes, one unit per decoder block and one for the rest.

    Every forward pass is collective afterwards. Blocks go to the process's device one by one, so that no device ever
    holds the whole model.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return model


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks: items of the longest list of modules of one class."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [blocks for blocks in lists if len({type(block) for block in blocks}) == 1]
    return max(alike, key=len, default=[])
