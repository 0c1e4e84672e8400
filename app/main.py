"""Entry of the app: `gfviz app`, or `streamlit run app/main.py -- --runs DIR`."""

import sys
from pathlib import Path

# In a checkout this folder lies beside the library, in a wheel inside it; either way it is nobody's top-level package.
here = Path(__file__).resolve().parent
if str(here) not in sys.path:
    sys.path.insert(0, str(here))

import streamlit as st  # noqa: E402
from gfvizui import parts, warming  # noqa: E402

PAGES = (
    ("home", "Home", ":material/home:"),
    ("explore", "Explore", ":material/hub:"),
    ("compare", "Compare", ":material/compare_arrows:"),
    ("distance", "Distance", ":material/straighten:"),
    ("train", "Train", ":material/play_circle:"),
    ("runs", "Runs", ":material/monitoring:"),
)

st.set_page_config(page_title="gfviz", page_icon=str(here / "icon.png"), layout="wide")
chosen = st.navigation(
    [
        st.Page(str(here / "views" / f"{name}.py"), title=title, icon=icon, url_path=name, default=name == "home")
        for name, title, icon in PAGES
    ],
    position="top",
)
if chosen.url_path in warming.HURRIED:
    warming.hurry()
parts.warn_if_exposed()
chosen.run()
