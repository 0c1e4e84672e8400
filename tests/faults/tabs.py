"""The app without a browser: a server in a forked child, and tabs that speak Streamlit's own websocket protocol."""

import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from gfviz.app_options import OPTIONS
from gfviz.paths import app_dir


def serve(root: Path, port: int) -> None:
    """Be the app on `root`, as `gfviz app` starts it; never returns."""
    from streamlit.web import bootstrap

    script = str(app_dir() / "main.py")
    # What `app_command` passes as flags, in the form that Streamlit's own command line hands on.
    flags = {name.replace(".", "_"): value for name, value in {**OPTIONS, "server.port": port}.items()}
    sys.argv = [script, "--runs", str(root)]
    bootstrap.load_config_options(flag_options=flags)
    bootstrap.run(script, False, ["--runs", str(root)], flags)


def healthy(port: int, patience: float = 200.0) -> bool:
    """Whether the server answers within `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).status == 200:
                return True
        time.sleep(0.05)
    return False


class Tab:
    """One browser tab's connection; `open(page)` runs a page and returns what went wrong on it."""

    def __init__(self, port: int) -> None:
        self._socket = connect(
            f"ws://127.0.0.1:{port}/_stcore/stream", max_size=None, subprotocols=["streamlit"],  # type: ignore[list-item]
            origin=f"http://127.0.0.1:{port}",  # type: ignore[arg-type]
        )  # fmt: skip

        self.shown = ""

    def open(self, page: str = "", query: str = "", patience: float = 200.0) -> list[str]:
        """Exceptions that the page showed (its text is in `shown`); `TimeoutError` where it does not come to an end."""
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = page
        self._socket.send(message.SerializeToString())
        problems: list[str] = []
        self.shown = ""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            answer = ForwardMsg()
            answer.ParseFromString(self._socket.recv(timeout=patience))  # type: ignore[arg-type]
            element = answer.delta.new_element
            self.shown += str(element)
            if element.WhichOneof("type") == "exception":
                problems.append(f"{element.exception.type}: {element.exception.message}")
            if answer.WhichOneof("type") == "script_finished":
                return problems
        raise TimeoutError(f"the page {page or 'home'} did not come to an end")

    def close(self) -> None:
        """Close the tab."""
        self._socket.close()
