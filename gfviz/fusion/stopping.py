"""How a run in the foreground is asked to stop: by signals, with a step in between."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and the first SIGINT ask for a stop; a second SIGINT interrupts at once."""
    asked = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if number == signal.SIGINT and asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        with suppress(OSError):
            print("gfviz: stopping after this step, with a checkpoint", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere (an app's thread) nothing asks for a stop.
        yield asked.is_set
        return
    earlier = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
