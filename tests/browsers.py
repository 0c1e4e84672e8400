"""The headless Chromium of the tests that need one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gfviz.bench.app import chromium_on
from gfviz.bench.devtools import find_chromium


@contextlib.contextmanager
def headless_chromium(folder: Path) -> Iterator[Any]:
    """A headless Chromium with its files under `folder`; where it is missing the test is skipped, in CI it fails.

    Playwright's synchronous interface lives once in a process: end it before another package of tests begins its own.
    """
    if find_chromium() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing: apt-get install -y chromium")
        pytest.skip("no Chromium on PATH: apt-get install -y chromium")
    pytest.importorskip("playwright.sync_api")
    with chromium_on(folder) as browser:
        yield browser
