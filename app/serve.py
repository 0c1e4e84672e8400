"""The process of the app: `python app/serve.py run app/server.py …` is `streamlit run app/server.py …`, warm."""

import sys
import threading

from gfvizui.warming import warm

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
