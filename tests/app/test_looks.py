"""Canvas, inspector and address hold one view: whichever of them changes it, and whichever way the visitor came."""

import re

import pytest
from playwright.sync_api import expect

from tests.app.conftest import make_graph
from tests.app.test_browser import slide

pytestmark = [pytest.mark.browser, pytest.mark.long]


def find(tab, token: str) -> None:
    tab.page.locator(".search").fill(token)
    tab.page.locator(".search").press("Enter")


def shows(tab, node: int | None, edges: int, slid: bool = False, graph: str = "one-token") -> None:
    """Wait until canvas, inspector and address agree (the five hostile tokens come before word0)."""
    selected = "" if node is None else f"0:{node}"
    canvas = tab.page.locator(f".gfviz[data-selected='{selected}'][data-edges='{edges}']")
    expect(canvas).to_have_count(1, timeout=20_000)
    told = [] if node is None else [re.compile(rf"word{node - 5}\s+\(id {node}\)")]
    expect(tab.page.get_by_test_id("stText")).to_have_text(told, timeout=20_000)
    wanted = f"graph={graph}" + ("" if node is None else f"&node={node}") + ("&min_weight=[^&]+" if slid else "")
    expect(tab.page).to_have_url(re.compile(f"/explore.{wanted}$"), timeout=20_000)
    tab.calm()


def choose_graph(tab, name: str) -> None:
    tab.page.get_by_role("combobox", name="Graph").click()
    tab.page.get_by_role("option", name=name, exact=True).click()


def leave(tab) -> None:
    tab.page.get_by_role("link", name="Home", exact=True).click()
    expect(tab.page.get_by_test_id("stFileUploader")).to_have_count(1, timeout=20_000)
    tab.calm()


def test_canvas_inspector_and_address_agree(tab):
    tab.open("explore?graph=one-token")
    every, other = (len(make_graph(seed).edges().weight) for seed in (0, 1))
    find(tab, "word12")
    shows(tab, 17, every)
    tab.page.get_by_role("button", name="Clear").click()
    shows(tab, None, every)
    # The same node again, after the page and not the canvas let go of it, or went on to another.
    find(tab, "word12")
    shows(tab, 17, every)
    table = tab.page.get_by_test_id("stDataFrame").first.bounding_box()
    tab.page.mouse.click(table["x"] + 18, table["y"] + 52)
    expect(tab.page.get_by_text("word12 (id 17)")).to_have_count(0, timeout=20_000)
    tab.calm()
    find(tab, "word12")
    shows(tab, 17, every)
    slide(tab, 700)
    fewer = int(tab.canvas("edges"))
    assert fewer < every
    shows(tab, 17, fewer, slid=True)
    # Another graph has neither; each keeps its own, also while another page is open.
    choose_graph(tab, "two-token")
    shows(tab, None, other, graph="two-token")
    choose_graph(tab, "one-token")
    shows(tab, 17, fewer, slid=True)
    leave(tab)
    tab.page.get_by_role("link", name="Explore", exact=True).click()
    shows(tab, 17, fewer, slid=True)
    # And so does the browser's way back, from this page and from another.
    choose_graph(tab, "two-token")
    shows(tab, None, other, graph="two-token")
    tab.page.go_back()
    shows(tab, 17, fewer, slid=True)
    find(tab, "word30")
    shows(tab, 35, fewer, slid=True)
    leave(tab)
    tab.page.go_back()
    shows(tab, 35, fewer, slid=True)
    tab.page.go_back()
    shows(tab, 17, fewer, slid=True)
    assert tab.errors == []
