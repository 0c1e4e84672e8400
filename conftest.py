"""What pytest must know before it collects: modules whose optional dependency is missing have no doctests to run."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["gfviz/kernels/triton_kernels.py"]
