"""The app as one ASGI application: Streamlit on `main.py`, with the browser's scripts served as `assets` has it."""

import asyncio
import threading
import webbrowser
from contextlib import asynccontextmanager
from pathlib import Path

from gfvizui import warming
from gfvizui.assets import Assets
from starlette.middleware import Middleware
from streamlit import config, file_util
from streamlit.starlette import App

here = Path(__file__).resolve().parent
PATIENCE = 20.0


@asynccontextmanager
async def started(_app: App):
    """Answer once the pages' imports are done, and open a browser where the command asks for one."""
    if any(thread.name == "warm" for thread in threading.enumerate()):
        await asyncio.to_thread(warming.ready.wait, PATIENCE)
    if not config.get_option("server.headless"):
        # Under `App` Streamlit leaves this to the application.
        address, port = config.get_option("server.address"), config.get_option("server.port")
        asyncio.get_running_loop().call_later(0.3, webbrowser.open, f"http://{address or 'localhost'}:{port}")
    yield {}


app = App(
    here / "main.py",
    lifespan=started,
    middleware=[Middleware(Assets, static=Path(file_util.get_static_dir()) / "static")],
)
