"""The app's process: how it ends."""

import os
import signal

import pytest

from tests.app.conftest import server_process


@pytest.mark.skipif(os.name != "posix", reason="Ctrl+C is no signal there")
def test_ctrl_c_ends_the_app_as_no_failure(tmp_path):
    log = tmp_path / "server.log"
    with server_process(tmp_path, log) as (_, server):
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    said = log.read_text()
    assert "Aborted" not in said
    assert "Traceback" not in said
