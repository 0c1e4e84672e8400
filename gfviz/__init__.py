"""gfviz: build, compare, certify, visualise and use logit co-activation graphs of language models.

    import gfviz as gv
    graph = gv.capture("path-or-hub-id", texts, nodes="rank")
    result = gv.gromov_wasserstein(graph, other)        # result.lower <= GW_2 <= result.upper

Names are loaded when they are first used, so that importing the package costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "TopKLogits": "gfviz.signals",
    "read_logits": "gfviz.signals",
    "read_served_logprobs": "gfviz.signals",
    "CoactivationGraph": "gfviz.graph",
    "load_graph": "gfviz.graph",
    "export_graph": "gfviz.graph",
    "capture": "gfviz.capture",
    "gromov_wasserstein": "gfviz.gromov",
    "sorted_gw": "gfviz.gromov",
    "GromovResult": "gfviz.gromov",
    "fuse": "gfviz.fusion",
    "GfvizError": "gfviz.errors",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from gfviz.capture import capture
    from gfviz.errors import GfvizError
    from gfviz.fusion import fuse
    from gfviz.graph import CoactivationGraph, export_graph, load_graph
    from gfviz.gromov import GromovResult, gromov_wasserstein, sorted_gw
    from gfviz.signals import TopKLogits, read_logits, read_served_logprobs


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'gfviz' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    # `gfviz.capture` is a package and, being callable, the function too: importing it must not change what it means.
    value = home if _HOMES[name] == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
