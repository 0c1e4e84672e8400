"""The wheel, installed away from the checkout: one top-level package that runs the demo and serves the app."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder holding nothing but the installed wheel, and an environment that finds gfviz only there."""
    built, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    quiet = {"check": True, "capture_output": True}
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", built, ROOT], **quiet)
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], **quiet)
    return site, {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}


def test_only_gfviz_goes_into_site_packages(installed):
    site, _ = installed
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"gfviz", "bin"}
    for needed in ("app/main.py", "sample_data/README.md", "sample_data/models/task-pivot/config.json"):
        assert (site / "gfviz" / needed).is_file(), needed


@pytest.mark.long
def test_the_demo_runs_from_the_wheel(installed, tmp_path):
    _, environment = installed
    where = "import gfviz; print(gfviz.__file__)"
    found = subprocess.run([sys.executable, "-c", where], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert str(installed[0]) in found.stdout
    command = [sys.executable, "-m", "gfviz.cli", "demo", "--no-app", "--steps", "3", "--runs", "out"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ("sorted (the paper's form)", "POT", "certified interval", "plain SFT", "fused with"):
        assert words in done.stdout
    assert len(list((tmp_path / "out").glob("*/run.json"))) == 2


def test_the_app_is_served_from_the_wheel(installed, tmp_path):
    _, environment = installed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gfviz.cli", "app", "--no-browser", "--port", str(port), "--runs", "runs"]
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
        try:
            assert _healthy(f"http://127.0.0.1:{port}/_stcore/health"), (tmp_path / "log").read_text()
        finally:
            server.terminate()
            server.wait(20)


def _healthy(url: str, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read() == b"ok"
        except OSError:
            time.sleep(0.3)
    return False
