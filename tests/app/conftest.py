"""What the app's tests share: a folder of synthetic graphs and runs, a running server, a headless browser."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from gfviz.app_options import app_command
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.paths import app_dir
from gfviz.runs import RunDirectory
from gfviz.signals import TopKLogits
from tests.browsers import headless_chromium

HOSTILE = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\u202edesrever",
    "a\nb",
    "\u05d0\u05d1",
]


def make_graph(seed: int = 0, nodes: str = "token", n: int = 120, positions: int = 160, topics: int = 5):
    """A graph with planted topics and, among its strongest tokens, hostile ones; contexts included."""
    random = np.random.default_rng(seed)
    labels = HOSTILE + [f" word{k}" for k in range(n - len(HOSTILE))]
    topic, now = np.arange(n) % topics, random.integers(0, topics, positions)
    logits = -np.log(np.arange(1, n + 1)) + 2.5 * (topic[None] == now[:, None]) + random.gumbel(size=(positions, n))
    spans = np.array([(5 * (row % 8), 5 * (row % 8) + 4) for row in range(positions)])
    texts = tuple(f"t{k:02d} " + "text text text text text text text text" for k in range(positions // 8))
    record = TextRecord(np.arange(0, positions + 1, 8), texts, spans)
    signal = TopKLogits.from_logits(torch.tensor(logits, dtype=torch.float32)[None], k=12)
    return CoactivationGraph.from_signal(
        signal, nodes=nodes, labels=labels if nodes == "token" else None, record=record, source=f"synthetic {seed}"
    )


def make_run(root: Path, name: str, steps: int = 40, state: str = "finished") -> RunDirectory:
    """A run with losses, scores, a certified distance and two student graphs."""
    config = {
        "pivot": {"model": "nowhere/pivot"},
        "teachers": [{"name": "arith", "model": "nowhere/teacher"}],
        "loss": {"lambda": 0.25 if name == "one" else 0.5},
        "training": {"steps": steps},
    }
    run = RunDirectory.create(root, config, name=name)
    writer = run.writer()
    writer.beat(total_steps=steps)
    for step in range(steps):
        writer.log(step, {"loss/total": 2.0 - step / steps, "loss/arith/token": 0.1, "tokens_per_s": 1234.0})
        if step % 10 == 0:
            writer.log(step, {"eval/exact_match": step / steps, "graph/arith/lower": 0.1, "graph/arith/upper": 0.2})
    writer.event("something happened")
    for step in (0, steps - 1):
        make_graph(step, "rank").save(run.path / "graphs" / f"step-{step:06d}-student.safetensors")
    make_graph(99, "rank").save(run.path / "graphs" / "arith.safetensors")
    if state == "finished":
        writer.finish("finished")
    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A runs folder with two token graphs, two rank graphs and two runs."""
    root = tmp_path_factory.mktemp("runs")
    # More edges than the canvas draws afresh at every move of the slider.
    make_graph(5, n=300, positions=800).save(root / "graphs" / "z-dense-token.safetensors")
    for seed, name in enumerate(("one", "two")):
        make_graph(seed).save(root / "graphs" / f"{name}-token.safetensors")
        make_graph(seed, "rank").save(root / "graphs" / f"{name}-rank.safetensors")
        make_run(root, name)
    return root


@pytest.fixture
def opened(monkeypatch, home):
    """Opens a page of the app on the synthetic folder (or on `root`)."""

    monkeypatch.setenv("GFVIZ_RUNS", str(home))
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.syspath_prepend(str(app_dir()))

    def open_page(name: str, root: Path = home, **query: str | list[str]) -> AppTest:
        monkeypatch.setenv("GFVIZ_RUNS", str(root))
        page = AppTest.from_file(str(app_dir() / "views" / f"{name}.py"), default_timeout=60)
        for key, value in query.items():
            page.query_params[key] = value
        page.run()
        assert not page.exception, page.exception
        return page

    return open_page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(root: Path, log: Path):
    """The app on `root` as its own process; yields its address, and ends it afterwards."""
    with server_process(root, log) as (address, _):
        yield address


@contextlib.contextmanager
def server_process(root: Path, log: Path):
    """`serving`, with the process beside its address."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with open(log, "wb") as out:
        server = subprocess.Popen(
            app_command(root, port=port), stdout=out, stderr=subprocess.STDOUT, cwd=root, env=environment
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).status == 200:
                    break
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the app did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def app_url(home, tmp_path_factory):
    """Address of the app on the synthetic folder."""
    with serving(home, tmp_path_factory.mktemp("app") / "server.log") as address:
        yield address


@pytest.fixture(scope="package")
def chromium(tmp_path_factory):
    """A headless Chromium for all of the app's tests."""
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Tab:
    """A page of the browser with what every test asks of it."""

    def __init__(self, page, base: str) -> None:
        self.page, self.base = page, base
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: str) -> None:
        self.page.goto(f"{self.base}/{path}")
        self.calm()

    def calm(self, timeout: float = 120) -> None:
        """Wait until the script has run and nothing is a placeholder any more."""
        deadline, quiet = time.monotonic() + timeout, 0
        idle = "[data-testid=stApp][data-test-script-state=notRunning]"
        while quiet < 3:
            done = self.page.locator(idle).count() and not self.page.locator("[data-testid=stSkeleton]").count()
            quiet = quiet + 1 if done else 0
            assert time.monotonic() < deadline, "the page did not come to rest"
            self.page.wait_for_timeout(150)

    def canvas(self, attribute: str, timeout: float = 30) -> str:
        """An attribute of the drawn canvas, once it is drawn."""
        root = self.page.locator(".gfviz[data-ready]")
        root.wait_for(timeout=1000 * timeout)
        return root.get_attribute(f"data-{attribute}") or ""

    def outside(self) -> list[str]:
        """Requests that left this machine."""
        ours = (self.base, self.base.replace("http", "ws", 1), "data:", "blob:")
        return [url for url in self.requests if not url.startswith(ours)]


@pytest.fixture
def tab(chromium, app_url):
    """A fresh browser context on the app."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    made = Tab(context.new_page(), app_url)
    yield made
    context.close()
