"""The process behind a detached run: `python -m gfviz.fusion.worker RUN`."""

import contextlib
import sys
import time

from gfviz.errors import GfvizError
from gfviz.fusion.callback import FusionEvent
from gfviz.fusion.session import execute
from gfviz.runs import RunDirectory


def print_event(event: FusionEvent) -> None:
    """One line per event that says something, for `stdout.log`."""
    if event.kind == "step" and not event.values:
        return
    values = " ".join(f"{name}={value:.6g}" for name, value in event.values.items())
    of = f"/{event.total}" if event.total else ""
    # The log may lie on a disk that is full, which is no reason to stop training.
    with contextlib.suppress(OSError):
        print(time.strftime("%H:%M:%S"), event.kind, f"{event.step}{of}", event.text, values, flush=True)


def main(arguments: list[str]) -> int:
    """Run the run whose directory is the one argument. Exit codes: 0 ended or stopped, 2 bad input, 1 anything else."""
    if len(arguments) != 1:
        print("usage: python -m gfviz.fusion.worker RUN", file=sys.stderr)
        return 2
    try:
        execute(RunDirectory.open(arguments[0]), print_event)
    except GfvizError as error:
        print(f"gfviz: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
