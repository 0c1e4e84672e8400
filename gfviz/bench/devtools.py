"""A headless Chromium that nothing is attached to while nobody looks: as a person has it who watches a page.

What drives a browser has it tell every request, every frame of a socket and every script, from the beginning to the
end. Here a look connects to the browser's DevTools port, asks and leaves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WINDOW = "--window-size=1440,1043"  # of which the page has 1440 by 900
_STARTING_SECONDS = 60.0
_ANSWER_SECONDS = 120.0


def find_chromium() -> str | None:
    """The program, where it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Devtools:
    """One connection to a browser by the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to `method`, of the page attached as `session` or of the browser; `GfvizError` for a refusal."""
        number = next(self._numbers)
        asked: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(asked if session is None else asked | {"sessionId": session}))
        while True:
            told = json.loads(self._socket.recv(timeout=_ANSWER_SECONDS))
            if told.get("id") == number:
                break
        if "error" in told:
            raise GfvizError(f"Chromium refused {method}: {told['error'].get('message')}")
        return told["result"]

    def page(self) -> str:
        """The session of the browser's first page."""
        listed = self.ask("Target.getTargets")["targetInfos"]
        page = next((target["targetId"] for target in listed if target["type"] == "page"), None)
        if page is None:
            raise GfvizError("Chromium has no page")
        return self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def evaluate(self, page: str, expression: str) -> Any:
        """The value of a JavaScript expression in a page; None where it throws."""
        return self.ask("Runtime.evaluate", page, expression=expression, returnByValue=True)["result"].get("value")


class Chromium:
    """A headless Chromium with one page on `address`, its own files in `root`; use as a context.

    Raises `GfvizError` where Chromium is missing or does not start.
    """

    def __init__(self, root: Path, address: str) -> None:
        program = find_chromium()
        if program is None:
            raise GfvizError("the app's benchmark needs Chromium: apt-get install -y chromium")
        profile = root / "profile"
        options = ("--remote-debugging-port=0", f"--user-data-dir={profile}", _WINDOW)
        self._told = profile / "DevToolsActivePort"
        self._process = subprocess.Popen(
            [program, *FLAGS, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    @contextlib.contextmanager
    def attached(self) -> Iterator[Devtools]:
        """A connection that ends with the context: between two of them nothing watches the browser."""
        from websockets.sync.client import connect

        with connect(self._endpoint(), max_size=None, compression=None) as socket:
            yield Devtools(socket)

    def wait_for(self, expression: str, seconds: float = _STARTING_SECONDS) -> Any:
        """The first value of a JavaScript expression in the page that is neither false nor nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # Between its start and its first page, and between two pages, there is nothing to ask.
            with contextlib.suppress(GfvizError), self.attached() as devtools:
                if value := devtools.evaluate(devtools.page(), expression):
                    return value
            time.sleep(0.25)
        raise GfvizError(f"Chromium did not come to {expression} in {seconds:g} s")

    def _endpoint(self) -> str:
        deadline = time.monotonic() + _STARTING_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                port, path, *_ = self._told.read_text().splitlines()
                return f"ws://127.0.0.1:{port}{path}"
            time.sleep(0.05)
        raise GfvizError("Chromium did not start")
