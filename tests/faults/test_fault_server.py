"""The app as its own process, asked over the network as a stranger would: who is let in, and who is not."""

import contextlib
import http.client
from collections.abc import Iterator

import psutil
import pytest

from gfviz.bench.app import serving
from tests.browsers import headless_chromium


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, psutil.Process]]:
    with serving(tmp_path_factory.mktemp("app")) as (address, process):
        yield int(address.rsplit(":", 1)[1]), psutil.Process(process.pid)


def status(port: int, path: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None) -> int:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        asked.request(method, path, body, headers)
        return asked.getresponse().status
    finally:
        asked.close()


def stream(port: int, host: str, origin: str) -> int:
    """The answer to a page that wants the connection over which all content and all input go."""
    handshake = {
        "Host": host, "Origin": origin, "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
    }  # fmt: skip
    return status(port, "/_stcore/stream", handshake)


def test_the_app_listens_to_this_machine_alone(server) -> None:
    port, process = server
    heard = []
    for one in [process, *process.children(recursive=True)]:
        # The compiler that the app starts may end in between; were it the app, nothing would be heard.
        with contextlib.suppress(psutil.NoSuchProcess):
            heard += [c.laddr for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert [(place.ip, place.port) for place in heard] == [("127.0.0.1", port)]


def test_a_page_under_another_name_gets_no_content(server) -> None:
    """A name that a stranger's page points at 127.0.0.1 (rebinding), and a stranger's page that asks by our name."""
    port, _ = server
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert stream(port, own, f"http://{own}") == 101
        assert stream(port, own, "http://evil.example") == 403
    for other in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"):
        assert stream(port, other, f"http://{other}") == 403


def test_a_file_from_another_page_is_refused(server) -> None:
    port, _ = server
    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="g.safetensors"\r\n\r\n0\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Cookie": "_streamlit_xsrf=forged"}
    assert status(port, "/_stcore/upload_file/session/file", headers, "PUT", body) == 403


@pytest.mark.browser
@pytest.mark.long
def test_a_file_over_the_limit_is_refused(server, tmp_path) -> None:
    port, _ = server
    large = tmp_path / "large.safetensors"
    large.write_bytes(b"0" * (21 * 2**20))
    with headless_chromium(tmp_path) as browser:
        page = browser.new_page()
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if request.method in ("PUT", "POST") else None)
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("input[type=file]").first.set_input_files(str(large), timeout=60_000)
        page.get_by_text("must be 20").first.wait_for(timeout=30_000)
        assert [url for url in sent if "upload_file" in url] == []
