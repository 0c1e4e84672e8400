"""What pytest must know before it collects, and what tests everywhere share."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# Modules whose optional dependency is missing have no doctests to run.
collect_ignore = [] if find_spec("triton") else ["gfviz/kernels/triton_kernels.py"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, so that sums have one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
