"""How the browser gets the scripts of the app: Streamlit's from memory, ours under their own addresses.

A first visit asks for a hundred files. Streamlit answers each through its whole stack and a thread (a quarter of a
second of the processor for a page, while the browser waits), and names those that a page needs beyond the first sixty
only once the page's elements have arrived. Here a file is read and sent at once, and the page itself says in a header
what it will want, and in a line where the server is. Our own scripts carry a hash in their address: the browser keeps
them, and what it compiled of them.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parent.parent / "canvas" / "build"
OURS = "/gfviz/"
FOREVER = b"public, immutable, max-age=31536000"
_IMPORTED = re.compile(r"""(?:from|import)\s*["']\./([A-Za-z0-9._-]+\.js)["']""")
# Streamlit's chunks to fetch with the page, by the name before the hash: what our components stand in, and no more.
# With others named too first draws come later (`gfviz bench app`), it seems because React shows what it waited for in
# turns, and theirs is then the first.
WANTED = ("BidiComponent",)
# Which of our scripts a page opens with.
OPENS_WITH = {"explore": ("canvas",), "compare": ("canvas",), "runs": ("curves",)}

PAGES = ("home", "explore", "compare", "distance", "train", "runs")
# Where the server is: Streamlit would guess "/explore" first, ask in vain and wait. And away with what it notes of each
# rerun in the browser's list of timings, which nobody reads and nothing bounds: `gfviz bench app --watch` shows what
# comes of it on a bare page.
FORGET_MS = 5_000
HEAD = (
    "<script>window.__streamlit={BACKEND_BASE_URL:location.origin+"
    rf"location.pathname.replace(/({'|'.join(PAGES)})\/?$/,'')}};"
    "setInterval(()=>{for(const mark of ['running','notRunning'])performance.clearMarks(mark);"
    f"performance.clearMeasures('script-run-cycle')}},{FORGET_MS})</script>"
).encode()

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


@cache
def our_scripts() -> dict[str, Path]:
    """Address → file of the built scripts; the address changes with the content."""
    found = {}
    for path in sorted(BUILD.glob("*.js")):
        mark = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        found[f"{OURS}{path.stem}.{mark}.js"] = path
    return found


def address_of(name: str) -> str:
    """Where the built script `name` (without .js) is served."""
    return next(address for address, path in our_scripts().items() if path.stem == name)


def needed_for(folder: Path, names: Iterable[str]) -> list[str]:
    """Files in `folder` with the chunks called `names` and all that they import, in the order in which they are met."""
    present = {path.name for path in folder.glob("*.js")}
    waiting = [file for name in names for file in sorted(present) if file.split(".")[0] == name]
    found: list[str] = []
    while waiting:
        file = waiting.pop(0)
        if file not in found:
            found.append(file)
            text = (folder / file).read_text(encoding="utf-8", errors="replace")
            waiting += [other for other in _IMPORTED.findall(text) if other in present]
    return found


class Assets:
    """ASGI middleware around Streamlit: static scripts at once, and the page with a list of what it will need."""

    served = False
    """Whether this process serves the scripts of `our_scripts`."""

    def __init__(self, app: Asgi, static: Path) -> None:
        self.app = app
        self.files = {f"/static/{path.relative_to(static).as_posix()}": path for path in static.rglob("*.*")}
        self.files |= our_scripts()
        page = (static.parent / "index.html").read_text(encoding="utf-8")
        chunks = [f"/static/js/{file}" for file in needed_for(static / "js", WANTED) if file not in page]
        self.links = {"": _links(chunks)} | {
            name: _links([*(address_of(script) for script in scripts), *chunks]) for name, scripts in OPENS_WITH.items()
        }
        type(self).served = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer for a script; hand on everything else."""
        path = self.files.get(scope.get("path", "")) if scope["type"] == "http" and scope["method"] == "GET" else None
        if path is not None:
            await _answer(path, send)
        elif scope["type"] == "http" and b"text/html" in dict(scope["headers"]).get(b"accept", b""):
            links = self.links.get(scope["path"].strip("/"), self.links[""])
            # To a compressed page nothing can be added.
            plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
            await self.app({**scope, "headers": plain}, receive, _as_page(send, links))
        else:
            await self.app(scope, receive, send)


def _links(addresses: Iterable[str]) -> bytes:
    return ", ".join(f"<{address}>; rel=modulepreload" for address in addresses).encode()


def _as_page(send: Send, links: bytes) -> Send:
    """A `send` that adds `links` and `HEAD` to a page and leaves everything else as it is."""
    start: Message | None = None
    body = b""

    async def adding(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start" and message["status"] == 200 and _is_page(message):
            start = message
        elif start is not None and message["type"] == "http.response.body":
            body += message.get("body", b"")
            if not message.get("more_body"):
                body = body.replace(b"<head>", b"<head>" + HEAD, 1)
                kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
                length = (b"content-length", str(len(body)).encode())
                await send({**start, "headers": [*kept, length, (b"link", links)]})
                await send({"type": "http.response.body", "body": body})
        else:
            await send(message)

    return adding


def _is_page(start: Message) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in start["headers"])


async def _answer(path: Path, send: Send) -> None:
    # From the system's cache in well under a millisecond: a thread would take longer.
    body = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if path.suffix == ".js":
        kind = "text/javascript"
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", FOREVER),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
