"""A page's choices in its address: to be shared, reloaded, and come back to.

Streamlit's own `bind="query-params"` takes its parameters out of the address before it leaves the page: the browser's
way back then leads to a page without them. Here an address stays what it was when the page was left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

_TOLD, _KEPT, _WRITTEN = "address_told", "address_kept", "address_written"
_PAGE, _TURNED = "address_page", "address_turned"
# Seconds in which a browser, also a busy one, has turned to another page.
TURNING = 0.4


def hold(key: str, default: Any, read: Callable[[str], Any], again: bool = True) -> None:
    """Before the widget `key`: on arrival it shows what the address says, else what it showed before, else `default`.

    `read` makes a value from a parameter's text, None where there is no such choice (any more). A list as `default` is
    a choice of several. What it showed before counts if `again`. The widget itself must be given no default.
    """
    if key in st.session_state and not came_by_history():
        now = st.session_state[key]
        if (there := _readable(now, read)) != now:
            st.session_state[key] = there or default
        return
    texts = st.query_params.get_all(key)
    forget = came_by_history() or not again
    kept = default if forget else st.session_state.get(_KEPT, {}).get(key, default)
    if texts:
        kept = texts if isinstance(default, list) else texts[-1]
    there = _readable(kept, read)
    st.session_state[key] = default if there is None or (texts and not there) else there


def _readable(value: Any, read: Callable[[str], Any]) -> Any:
    """What there is of `value`: None, or of a list what is left."""
    if isinstance(value, list):
        return [item for text in value if (item := read(str(text))) is not None]
    return read(str(value))


def tell(key: str, value: Any, default: Any = None) -> None:
    """After the widget `key`: `settle` puts its value into the address, where it is not the default."""
    st.session_state.setdefault(_KEPT, {})[key] = value
    texts = [] if value == default else [str(item) for item in (value if isinstance(value, list) else [value])]
    st.session_state.setdefault(_TOLD, {})[key] = texts


def drop(*keys: str) -> None:
    """In place of widgets that are not there now: the address needs not name them."""
    st.session_state.setdefault(_TOLD, {}).update({key: [] for key in keys})


def turn_to(page: str) -> None:
    """At the begin of a whole run: note which page it draws, and whether the visitor came to it from another one."""
    before, st.session_state[_PAGE] = st.session_state.get(_PAGE), page
    st.session_state[_TURNED] = -math.inf if before in (None, page) else time.monotonic()
    if before != page:
        st.session_state[_WRITTEN] = {}


def settle() -> None:
    """Write what was told, in one step of the browser's history."""
    told = st.session_state.pop(_TOLD, {})
    before = st.session_state.get(_WRITTEN, {})
    st.session_state[_WRITTEN] = before | told
    if came_by_history():
        return  # a step written now would be in the way of whoever goes further back
    # What a browser says of its address may be older than what was written last and is still on its way there.
    changed = {
        key: texts for key, texts in told.items() if not texts == st.query_params.get_all(key) == before.get(key, texts)
    }
    if changed:
        # A browser that has not yet put the page's name into its address would put this beside the name of the last.
        time.sleep(max(0.0, st.session_state.get(_TURNED, -math.inf) + TURNING - time.monotonic()))
        # Taken out one by one, each would be a step of its own.
        named = {key: st.query_params.get_all(key) for key in st.query_params} | changed
        st.query_params.from_dict({key: texts for key, texts in named.items() if texts})


def settle_alone() -> None:
    """`settle` in a fragment that runs by itself; in a whole run the page does that at its end."""
    if getattr(get_script_run_ctx(), "fragment_ids_this_run", None):
        settle()


def came_by_history() -> bool:
    """Whether the browser's way back or forward led here: then the address says all."""
    return bool(getattr(get_script_run_ctx(), "is_history_navigation", False))


def among(choices: Iterable[Any]) -> Callable[[str], Any]:
    """Reads one of `choices` from its text.

    >>> among([1, "two"])("1"), among([1, "two"])("three")
    (1, None)
    """
    return {str(choice): choice for choice in choices}.get


def between(low: float, high: float) -> Callable[[str], float | None]:
    """Reads a number of that range.

    >>> between(0, 1)("0.5"), between(0, 1)("2"), between(0, 1)("nan"), between(0, 1)("x")
    (0.5, None, None, None)
    """

    def read(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) and low <= value <= high else None

    return read
