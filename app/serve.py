"""The process of the app: `python app/serve.py run app/server.py …` is `streamlit run app/server.py …`, warm."""

import sys
import threading
from pathlib import Path

# Python adds no script's folder by itself where PYTHONSAFEPATH is set.
here = str(Path(__file__).resolve().parent)
if here not in sys.path:
    sys.path.insert(0, here)

from gfvizui.warming import warm  # noqa: E402

if __name__ == "__main__":
    from click.exceptions import Abort, ClickException
    from streamlit.web.cli import main

    # Not beside Streamlit's own imports: Plotly, which is among them, takes a pandas that is half imported for whole.
    threading.Thread(target=warm, daemon=True, name="warm").start()
    try:
        main(prog_name="streamlit", standalone_mode=False)
    except Abort:  # Ctrl+C is how the app is ended, and no failure
        pass
    except ClickException as error:
        error.show()
        sys.exit(error.exit_code)
