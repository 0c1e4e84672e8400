"""Comparison of two finished runs."""

from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import load_file

from gfviz.runs import RunDirectory


def assert_same_training(first: RunDirectory, second: RunDirectory, names: Sequence[str]) -> None:
    """The same curves and the same final weights, to the rounding of sums over processes."""
    for name in names:
        ours, theirs = (run.reader().series(name).values for run in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, err_msg=name)
    weights, others = (load_file(run.model_path / "model.safetensors") for run in (first, second))
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=1e-3, atol=2e-4)
