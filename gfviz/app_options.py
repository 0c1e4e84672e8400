"""How the Streamlit server of the app is started: the one place where its options are listed.

A checkout also carries them in `.streamlit/config.toml` (for `streamlit run app/main.py` by hand); from a wheel that
file is not found, so `gfviz app` passes them as flags. A test keeps the two alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.paths import app_dir

OPTIONS: dict[str, object] = {
    # The app reads local files: nobody but this machine may reach it, under any name.
    "server.address": "127.0.0.1",
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    "server.headless": True,
    "server.showEmailPrompt": False,
    "server.maxUploadSize": 20,
    "server.fileWatcherType": "none",
    "server.enableXsrfProtection": True,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "theme.baseFontSize": 15,
    "theme.baseRadius": "6px",
    "theme.paddingTop": "1rem",
    "theme.paddingBottom": "2rem",
    "theme.metricValueFontSize": "1.45rem",
    "theme.headingFontSizes": ["1.6rem", "1.3rem", "1.1rem"],
    "theme.light.primaryColor": "#0072B2",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f5f6f8",
    "theme.light.textColor": "#1b1f24",
    "theme.light.borderColor": "#e0e4e8",
    "theme.dark.primaryColor": "#2F8FCC",
    "theme.dark.backgroundColor": "#12161c",
    "theme.dark.secondaryBackgroundColor": "#1b2129",
    "theme.dark.textColor": "#e8ebef",
    "theme.dark.borderColor": "#2b333d",
}


def app_command(
    runs: str | Path, graphs: str | Path | None = None, port: int | None = None, browser: bool = False
) -> list[str]:
    """Argument list that starts the app on the runs in `runs` and the graphs in `graphs`, on 127.0.0.1.

    `port` None lets Streamlit choose from 8501 on; `browser` opens a browser window. Raises `GfvizError` for a port
    outside 1..65535 or an installation without the app.

    >>> from pathlib import Path
    >>> [Path(part).name for part in app_command("runs")[1:4]]
    ['serve.py', 'run', 'server.py']
    """
    if port is not None and not 1 <= port <= 65535:
        raise GfvizError(f"port = {port}: choose one of 1 to 65535")
    options = {**OPTIONS, "server.headless": not browser}
    if port is not None:
        options["server.port"] = port
    command = [sys.executable, str(app_dir() / "serve.py"), "run", str(app_dir() / "server.py")]
    for name, value in options.items():
        # Streamlit takes a list as a repeated flag.
        for item in value if isinstance(value, list) else [value]:
            command.append(f"--{name}={str(item).lower() if isinstance(item, bool) else item}")
    command += ["--", "--runs", str(runs)]
    return command + (["--graphs", str(graphs)] if graphs is not None else [])
