"""Faults on purpose: `python -m tests.faults --kills N --inputs N [--json]`."""
