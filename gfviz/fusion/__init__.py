"""Fusing language models: losses, teachers, alignment, the trainer, evaluation, launching.

Names are loaded at first use: a configuration can be checked without importing torch or transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "Example": "gfviz.fusion.data",
    "read_examples": "gfviz.fusion.data",
    "write_examples": "gfviz.fusion.data",
    "FusionConfig": "gfviz.fusion.config",
    "load_config": "gfviz.fusion.config",
    "parse_config": "gfviz.fusion.config",
    "EvaluationReport": "gfviz.fusion.evaluation",
    "evaluate": "gfviz.fusion.evaluation",
    "FusionEvent": "gfviz.fusion.callback",
    "fuse": "gfviz.fusion.session",
    "resume": "gfviz.fusion.session",
    "launch_detached": "gfviz.fusion.launch",
    "launch_resume": "gfviz.fusion.launch",
    "stop": "gfviz.fusion.launch",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from gfviz.fusion.callback import FusionEvent as FusionEvent
    from gfviz.fusion.config import FusionConfig as FusionConfig
    from gfviz.fusion.config import load_config as load_config
    from gfviz.fusion.config import parse_config as parse_config
    from gfviz.fusion.data import Example as Example
    from gfviz.fusion.data import read_examples as read_examples
    from gfviz.fusion.data import write_examples as write_examples
    from gfviz.fusion.evaluation import EvaluationReport as EvaluationReport
    from gfviz.fusion.evaluation import evaluate as evaluate
    from gfviz.fusion.launch import launch_detached as launch_detached
    from gfviz.fusion.launch import launch_resume as launch_resume
    from gfviz.fusion.launch import stop as stop
    from gfviz.fusion.session import fuse as fuse
    from gfviz.fusion.session import resume as resume


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'gfviz.fusion' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
