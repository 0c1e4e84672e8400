"""The process of the app: `python app/serve.py run app/server.py …` is `streamlit run app/server.py …`, warm."""

import threading

from gfvizui.warming import warm

if __name__ == "__main__":
    from streamlit.web.cli import main

    # Not beside Streamlit's own imports: Plotly, which is among them, takes a pandas that is half imported for whole.
    threading.Thread(target=warm, daemon=True, name="warm").start()
    main(prog_name="streamlit")
