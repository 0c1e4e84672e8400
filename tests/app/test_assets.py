"""The browser's scripts: sent at once, kept for ever, named ahead of need; nothing else is reachable this way."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from gfviz.paths import app_dir


@pytest.fixture
def assets(monkeypatch):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import assets

    monkeypatch.setattr(assets.Assets, "served", False)
    return assets


def make_static(root: Path) -> Path:
    """Streamlit's folder in small: a page that names one chunk, and chunks that import each other."""
    scripts = root / "static" / "js"
    scripts.mkdir(parents=True)
    (root / "index.html").write_text('<script src="./static/js/index.a.js"></script>')
    for name, text in {
        "index.a": 'import"./Html.b.js"',
        "Html.b": 'import{x}from"./shared.c.js";export{x}',
        "shared.c": 'import{o}from"./Html.b.js";import"./gone.d.js"',
        "Button.e": 'import y from"./index.a.js"',
        "Unwanted.f": "",
    }.items():
        (scripts / f"{name}.js").write_text(text)
    return root / "static"


def ask(application, path: str, method: str = "GET", kind: str = "http", accept: str = "text/html,*/*") -> list[dict]:
    """What the application sends for one request."""
    headers = [(b"accept", accept.encode()), (b"accept-encoding", b"gzip, br")]
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    scope = {"type": kind, "path": path, "method": method, "headers": headers}
    asyncio.run(application(scope, receive, send))
    return sent


PAGE = b"<html><head>\n</head>page</html>"


async def page(scope, receive, send) -> None:
    """An application that answers every request with a page in two parts, compressed (as it says) if it may."""
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(PAGE)).encode())]
    if b"accept-encoding" in dict(scope["headers"]):
        headers.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE[:9], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[9:]})


def test_scripts_come_whole_and_for_ever(assets, tmp_path):
    application = assets.Assets(page, make_static(tmp_path))
    head, body = ask(application, "/static/js/Html.b.js")
    headers = dict(head["headers"])
    assert body["body"] == (tmp_path / "static/js/Html.b.js").read_bytes()
    assert headers[b"content-type"] == b"text/javascript"
    assert b"immutable" in headers[b"cache-control"]
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    ours = assets.address_of("canvas")
    assert ask(application, ours)[1]["body"] == (app_dir() / "canvas" / "build" / "canvas.js").read_bytes()


@pytest.mark.parametrize("path, ours", [("/explore", ["canvas"]), ("/runs", ["curves"]), ("/", []), ("/train", [])])
def test_a_page_names_what_it_will_want_and_nothing_else_changes(assets, tmp_path, monkeypatch, path, ours):
    monkeypatch.setattr(assets, "WANTED", ("Html", "Button"))
    application = assets.Assets(page, make_static(tmp_path))
    head, body = ask(application, path)
    headers = dict(head["headers"])
    assert body["body"] == PAGE.replace(b"<head>", b"<head>" + assets.HEAD)
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert b"content-encoding" not in headers
    links = dict(head["headers"])[b"link"].decode().split(", ")
    named = [link.split(">")[0].removeprefix("<") for link in links]
    # index.a is in the page already, gone.d does not exist, Unwanted.f is nobody's.
    chunks = [f"/static/js/{name}.js" for name in ("Html.b", "shared.c", "Button.e")]
    assert sorted(named) == sorted(chunks + [assets.address_of(name) for name in ours])
    assert all(link.endswith(">; rel=modulepreload") for link in links)


@pytest.mark.parametrize("path", ["/static/../index.html", "/static/js/../../x", "/gfviz/canvas.js", "/main.py"])
def test_other_addresses_go_to_streamlit(assets, tmp_path, path):
    assert b"page" in ask(assets.Assets(page, make_static(tmp_path)), path)[1]["body"]


def test_what_is_not_asked_for_as_a_page_comes_as_streamlit_sends_it(assets, tmp_path):
    head, *parts = ask(assets.Assets(page, make_static(tmp_path)), "/media/x", accept="*/*")
    assert dict(head["headers"])[b"content-encoding"] == b"gzip"
    assert b"".join(part["body"] for part in parts) == PAGE


def test_every_page_says_where_the_server_is(assets):
    assert {path.stem for path in (app_dir() / "views").glob("*.py")} == set(assets.PAGES)
    script = assets.HEAD.decode()
    pattern = re.search(r"replace\(/(.*)/,''\)", script)[1].replace(r"\/", "/")
    for path, base in [("/", "/"), ("/runs", "/"), ("/runs/", "/"), ("/proxy/8501/explore", "/proxy/8501/")]:
        assert re.sub(pattern, "", path) == base


def test_other_methods_and_sockets_go_to_streamlit(assets, tmp_path):
    application = assets.Assets(page, make_static(tmp_path))
    assert ask(application, "/static/js/Html.b.js", method="POST")[0]["headers"][0][1].startswith(b"text/html")
    assert len(ask(application, "/static/js/Html.b.js", kind="websocket")) == 3


def test_streamlit_still_has_the_chunks_that_are_named_ahead(assets):
    from streamlit import file_util

    scripts = Path(file_util.get_static_dir()) / "static" / "js"
    for name in assets.WANTED:
        assert assets.needed_for(scripts, [name]), f"Streamlit has no chunk {name}"


def test_without_the_server_a_component_is_whole(assets, monkeypatch):
    from gfvizui import canvas

    assert canvas.script("canvas") == (app_dir() / "canvas" / "build" / "canvas.js").read_text(encoding="utf-8")
    monkeypatch.setattr(assets.Assets, "served", True)
    assert assets.address_of("canvas") in canvas.script("canvas")
    assert "gfvizui.assets" in sys.modules
