"""The server of the app: `python app/serve.py run app/main.py …` is `streamlit run app/main.py …`, warm.

While the browser fetches the page, a thread imports what the pages need, so that the first visitor does not wait for
it; torch last, and after a pause, because only measuring and training want it and importing it takes the processor for
seconds.
"""

import contextlib
import importlib
import threading
import time

SOON = ("pandas", "pyarrow", "gfviz.figures.compare", "plotly.graph_objects", "gfviz.graph", "gfviz.runs.imports")
LATER = ("gfviz.gromov", "gfviz.fusion.launch")
PAUSE = 5.0


def warm() -> None:
    """Import ahead of need; what cannot be imported is left for the page that needs it, which says so."""
    for names, pause in ((SOON, 0.0), (LATER, PAUSE)):
        time.sleep(pause)
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


if __name__ == "__main__":
    from streamlit.web.cli import main

    threading.Thread(target=warm, daemon=True, name="warm").start()
    main(prog_name="streamlit")
