"""The process of the app: `python app/serve.py run app/server.py …` is `streamlit run app/server.py …`, warm."""

import threading

from gfvizui.warming import warm

if __name__ == "__main__":
    # Beside Streamlit's own start; the server answers when both are done.
    threading.Thread(target=warm, daemon=True, name="warm").start()
    from streamlit.web.cli import main

    main(prog_name="streamlit")
