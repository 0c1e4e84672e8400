"""The app in a real headless browser: the canvas, navigation, both themes, and nothing that leaves this machine."""

import csv
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gfviz.figures.palette import DARK, LIGHT
from gfviz.runs import list_runs
from tests.app.conftest import HOSTILE, make_graph

pytestmark = pytest.mark.browser


def pixels(tab, layer: str) -> int:
    """How many pixels of a canvas layer are not empty (read back in the frame that draws them)."""
    return tab.page.evaluate(
        """async (layer) => {
          const root = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.gfviz')).find(Boolean)
          const canvas = root.querySelector(layer)
          const copy = document.createElement('canvas')
          copy.width = canvas.width; copy.height = canvas.height
          const context = copy.getContext('2d')
          let most = 0
          // WebGL buffers are gone after compositing: wheel events make new frames, and each is read as it is drawn.
          for (let k = 0; k < 8; k++) {
            root.querySelector('.stage canvas:last-child').dispatchEvent(
              new WheelEvent('wheel', {deltaY: k % 2 ? 4 : -4, clientX: 300, clientY: 500, bubbles: true}))
            await new Promise(requestAnimationFrame)
            context.drawImage(canvas, 0, 0)
            const data = context.getImageData(0, 0, copy.width, copy.height).data
            let count = 0
            for (let i = 3; i < data.length; i += 4) count += data[i] > 0
            most = Math.max(most, count)
          }
          return most
        }""",
        layer,
    )


def camera(tab) -> list[float]:
    return [float(value) for value in tab.canvas("camera").split(",")]


def settled_camera(tab) -> list[float]:
    before = None
    while (now := camera(tab)) != before:
        before = now
        tab.page.wait_for_timeout(250)
    return now


def slide(tab, position: int) -> None:
    slider = tab.page.locator(".threshold")
    slider.fill(str(position))
    slider.dispatch_event("change")


def test_canvas_draws_and_the_threshold_hides_edges(tab):
    tab.open("explore?graph=one-token")
    graph = make_graph(0)
    assert int(tab.canvas("nodes")) == graph.n
    edges = int(tab.canvas("edges"))
    assert edges == len(graph.edges().weight)
    assert pixels(tab, "canvas.sigma-nodes") > 500
    assert pixels(tab, "canvas.sigma-edges") > 2000
    assert pixels(tab, ".layer") > 500
    slide(tab, 700)
    fewer = int(tab.canvas("edges"))
    assert 0 < fewer < edges
    tab.calm()
    # The URL holds the view: the same address shows the same edges.
    expect(tab.page).to_have_url(re.compile("min_weight="), timeout=15_000)
    tab.page.reload()
    tab.calm()
    expect(tab.page.locator(f".gfviz[data-edges='{fewer}']")).to_have_count(1)
    assert tab.errors == []


def edge_picture(tab, *positions: int) -> list[int]:
    """Bytes of the edges' layer, summed by a prime's residues, after the slider was at `positions` in turn."""
    return tab.page.evaluate(
        """async (positions) => {
          const root = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.gfviz')).find(Boolean)
          const canvas = root.querySelector('canvas.sigma-edges')
          const copy = document.createElement('canvas')
          copy.width = canvas.width; copy.height = canvas.height
          const context = copy.getContext('2d')
          const slider = root.querySelector('.threshold')
          for (const position of positions) {
            slider.value = position
            slider.dispatchEvent(new Event('input', {bubbles: true}))
            await new Promise(requestAnimationFrame)
            context.clearRect(0, 0, copy.width, copy.height)
            context.drawImage(canvas, 0, 0)
          }
          const sums = new Array(97).fill(0)
          context.getImageData(0, 0, copy.width, copy.height).data.forEach((value, i) => (sums[i % 97] += value))
          return sums
        }""",
        list(positions),
    )


def test_the_edges_look_the_same_however_the_slider_came_there(tab):
    tab.open("explore?graph=z-dense-token")
    assert int(tab.canvas("edges")) > 4000
    everything, some, few = (edge_picture(tab, 1, position) for position in (0, 500, 900))
    assert sum(everything) > sum(some) > sum(few) > 0
    # Down from all, up from few: drawn from the images that were kept on the way, or from nothing.
    for before in (0, 300, 700, 1000):
        assert edge_picture(tab, before, 500) == some
        assert edge_picture(tab, before, 900) == few
        assert edge_picture(tab, before, 0) == everything
    # Another frame keeps none of them.
    tab.page.get_by_role("button", name="Zoom in (+)").click()
    settled_camera(tab)
    assert edge_picture(tab, 0, 500) not in (some, everything)
    assert tab.errors == []


def saved(tab, form: str) -> tuple[str, bytes]:
    """Name and content of the file that the canvas saves as PNG or SVG."""
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name=re.compile(f"Save this view as an? {form}")).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def place_of(tab, label: str) -> list[float]:
    """Where on the screen a node is."""
    found = re.search(rf'cx="([^"]+)" cy="([^"]+)"[^>]*><title>{label}</title>', saved(tab, "SVG")[1].decode())
    assert found, label
    return [float(found[1]), float(found[2])]


def test_camera_survives_a_rerun_and_a_change_of_data(tab):
    tab.open("explore?graph=one-token")
    tab.canvas("ready")
    for _ in range(3):
        tab.page.get_by_role("button", name="Zoom in (+)").click()
        tab.page.wait_for_timeout(250)
    zoomed = settled_camera(tab)
    assert zoomed[2] < 0.5
    # A node that was moved stays there as well.
    tab.page.locator(".search").fill("word12")
    tab.page.locator(".search").press("Enter")
    before = place_of(tab, "␣word12")
    for _ in range(5):
        tab.page.locator(".gfviz").press("Alt+ArrowRight")
    zoomed = settled_camera(tab)
    moved = place_of(tab, "␣word12")
    assert moved[0] > before[0] + 20
    tab.page.get_by_role("tab", name="Edges").click()
    tab.calm()
    assert camera(tab) == zoomed
    # Another graph has a camera of its own; coming back, the first one's is as it was left.
    tab.page.get_by_role("combobox", name="Graph").click()
    tab.page.get_by_role("option", name="two-token").click()
    tab.calm()
    assert settled_camera(tab)[2] == 1.0
    tab.page.get_by_role("combobox", name="Graph").click()
    tab.page.get_by_role("option", name="one-token").click()
    tab.calm()
    assert settled_camera(tab) == zoomed
    assert place_of(tab, "␣word12") == pytest.approx(moved, abs=0.2)


def test_keyboard_alone_walks_zooms_and_clears(tab):
    tab.open("explore?graph=one-token")
    tab.canvas("ready")
    root = tab.page.locator(".gfviz")
    root.focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator(".gfviz:not([data-selected=''])")).to_have_count(1)
    first = tab.canvas("selected")
    tab.calm()
    root.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        tab.page.keyboard.press(key)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_timeout(300)
    assert tab.canvas("selected") != ""
    pin = tab.page.get_by_role("button", name="Keep this node's label and place (P)")
    expect(pin).to_have_attribute("aria-pressed", "false")
    root.focus()
    tab.page.keyboard.press("Alt+ArrowRight")
    expect(pin).to_have_attribute("aria-pressed", "true")
    tab.page.keyboard.press("?")
    expect(tab.page.locator(".status")).to_contain_text("O other graph")
    tab.page.keyboard.press("e")
    tab.page.wait_for_timeout(300)
    assert int(tab.canvas("visible")) < int(tab.canvas("nodes"))
    before = settled_camera(tab)[2]
    tab.page.keyboard.press("+")
    assert settled_camera(tab)[2] < before
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator(".gfviz[data-selected='']")).to_have_count(1)
    assert first
    tab.page.keyboard.press("/")
    expect(tab.page.locator(".search")).to_be_focused()


def test_hostile_tokens_are_text_everywhere(tab):
    tab.open("explore?graph=one-token")
    tab.canvas("ready")
    for typed, shown in (("script", HOSTILE[0]), ("onerror", HOSTILE[1]), ("desrever", "⟨RLO⟩desrever")):
        tab.page.locator(".search").fill(typed)
        expect(tab.page.locator(".matches li bdi").first).to_have_text(shown)
        tab.page.locator(".search").press("Enter")
        expect(tab.page.locator("[data-testid=stText]").first).to_contain_text(shown, timeout=20_000)
        tab.page.locator(".frame").hover()
    assert tab.page.evaluate("window.hacked") is None
    assert tab.errors == []


def test_compare_cameras_move_together_and_partners_are_told(tab):
    tab.open("compare?a=one-token&b=two-token&match=token")
    assert int(tab.canvas("nodes")) == make_graph(0).n + make_graph(1).n
    tab.page.locator(".search").fill("word3")
    tab.page.locator(".search").press("Enter")
    expect(tab.page.get_by_text("Where does it go?")).to_have_count(0, timeout=20_000)
    assert pixels(tab, ".over") > 50
    # The same from the keyboard: to the partner in the other graph and back; one legend names both graphs' groups.
    root = tab.page.locator(".gfviz")
    root.focus()
    here = tab.canvas("selected")
    tab.page.keyboard.press("o")
    there = tab.canvas("selected")
    assert (here[0], there[0]) in (("0", "1"), ("1", "0"))
    tab.page.keyboard.press("o")
    assert tab.canvas("selected") == here
    # The files hold both graphs and the links that are shown: of this node now, of the heaviest without one.
    assert [saved(tab, form)[0] for form in ("PNG", "SVG")] == ["graphs.png", "graphs.svg"]
    assert saved(tab, "SVG")[1].count(b"<path") == 1
    expect(tab.page).to_have_url(re.compile(f"node=a{here[2:]}$"), timeout=20_000)
    tab.page.reload()
    expect(tab.page.locator(f".gfviz[data-selected='{here}']")).to_have_count(1, timeout=20_000)
    settled_camera(tab)
    # In the middle of its pane, the first of the file.
    assert place_of(tab, "␣word3")[1] == pytest.approx(236, abs=30)
    root.press("Escape")
    root.press("0")
    settled_camera(tab)
    assert saved(tab, "SVG")[1].count(b"<path") > 50
    tab.page.get_by_role("button", name="Draw the coupling").click()
    assert b"<path" not in saved(tab, "SVG")[1]
    sizes = [text.split("|") for text in tab.page.locator(".legend .quiet").all_inner_texts()]
    for side, seed in enumerate((0, 1)):
        assert sum(int(pair[side]) for pair in sizes) == make_graph(seed).n
    # The page's theme is followed while it is open.
    for scheme, theme in (("light", LIGHT), ("dark", DARK)):
        tab.page.emulate_media(color_scheme=scheme)
        expect(tab.page.locator(".legend .dot").first).to_have_css("background-color", rgb(theme.groups[0]))
        assert theme.groups[0] in saved(tab, "SVG")[1].decode()
    assert tab.errors == []


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[k : k + 2], 16)) for k in (1, 3, 5))})"


CUT_LABELS = """() => [...document.querySelectorAll('[data-testid=stWidgetLabel]')].filter((label) =>
  [label, ...label.querySelectorAll('*')].some((part) =>
    part.scrollWidth > part.clientWidth + 1 && getComputedStyle(part).overflow !== 'visible')
).map((label) => label.innerText)"""


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_every_page_in_both_themes_and_nothing_leaves_the_machine(chromium, app_url, theme):
    from tests.app.conftest import Tab

    context = chromium.new_context(viewport={"width": 1024, "height": 768}, color_scheme=theme)
    tab = Tab(context.new_page(), app_url)
    tab.open("train")
    # What Streamlit asks for when it does not know where the server is, and then waits.
    assert not [url for url in tab.requests if "/train/_stcore" in url]
    tab.open("")
    background = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    assert tab.page.evaluate(background) == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[theme]
    for name in ("Explore", "Compare", "Distance", "Train", "Runs", "Home"):
        tab.page.get_by_role("link", name=name, exact=True).click()
        tab.calm()
        assert tab.page.locator("[data-testid=stException]").count() == 0
        wide = tab.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert wide, f"{name} is wider than the window"
        if name == "Train" and theme == "light":
            tab.page.get_by_text("Everything else").click()
            tab.calm()
            assert tab.page.get_by_text("Evaluate at the end").is_visible()
            assert tab.page.evaluate(CUT_LABELS) == []
    if theme == "light":
        # The way back leads to the view that was left.
        view = {"a=two-rank", "b=one-rank", "budget=standard", "p=1"}
        tab.open("distance?" + "&".join(sorted(view)))
        tab.page.get_by_role("link", name="Home", exact=True).click()
        tab.calm()
        tab.page.go_back()
        expect(tab.page.get_by_text("GW_1 is at least")).to_be_visible(timeout=20_000)
        assert view <= set(tab.page.url.split("?")[1].split("&"))
    assert tab.outside() == []
    assert tab.errors == []
    assert tab.page.evaluate("window.hacked") is None
    context.close()


def test_curves_are_read_zoomed_and_hidden_by_keys_and_pointer(tab, home):
    run = next(run for run in list_runs(home) if run.record().name == "one")
    tab.open(f"runs?run={run.id}")
    loss, band = tab.page.locator(".curves .chart").nth(0), tab.page.locator(".curves .chart").nth(1)
    plot = loss.locator(".plot")
    raw, smooth = (loss.locator("path.line").nth(k).get_attribute("d") for k in range(2))
    assert raw.count("L") == smooth.count("L") == 39
    assert raw != smooth
    plot.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowRight"):
        tab.page.keyboard.press(key)
    # The last of forty steps, two to the left; the loss is smoothed, the raw one is 2 − 38/40.
    assert loss.locator(".tip .step").inner_text() == "step 38"
    assert loss.locator(".said").inner_text().startswith("step 38: total 1.0")
    along = loss.locator("text.along")
    whole = along.all_text_contents()
    tab.page.keyboard.press("+")
    assert float(along.all_text_contents()[0]) > float(whole[0])
    tab.page.get_by_label("Filter").click()
    tab.page.keyboard.type("on")
    tab.page.keyboard.press("Enter")
    tab.calm()
    assert along.all_text_contents() != whole, "a rerun lost the zoom"
    loss.get_by_role("button", name="Show all").click()
    assert along.all_text_contents() == whole
    box = plot.bounding_box()
    tab.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 60, steps=4)
    tab.page.mouse.up()
    assert along.all_text_contents() != whole
    assert loss.locator(".tip").is_visible()
    tab.page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 60)
    assert along.all_text_contents() == whole
    assert band.locator("path.band").count() == 1
    band.get_by_role("button", name="arith").click()
    assert band.locator("path").count() == 0
    assert tab.page.locator(".js-plotly-plot").count() == 0
    assert tab.errors == []


def test_without_webgl_the_canvas_says_so(chromium, app_url):
    from tests.app.conftest import Tab

    context = chromium.new_context()
    context.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind.includes('webgl') ? null : real.call(this, kind, ...rest) }"
    )
    tab = Tab(context.new_page(), app_url)
    tab.open("explore?graph=one-token")
    expect(tab.page.get_by_text("This browser offers no WebGL")).to_be_visible()
    context.close()


def test_files_for_other_programs(tab, tmp_path):
    tab.open("explore?graph=one-token")
    tab.canvas("ready")
    kept = {name: saved(tab, name)[1] for name in ("PNG", "SVG")}
    assert kept["PNG"].startswith(b"\x89PNG")
    drawing = kept["SVG"].decode()
    assert drawing.count("<circle") == make_graph(0).n
    assert "<script>window" not in drawing
    tab.page.get_by_role("tab", name="Files").click()
    tab.calm()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "graph.csv")
    with open(tmp_path / "graph.csv", newline="") as file:
        assert len(list(csv.reader(file))) == len(make_graph(0).edges().weight) + 1
    assert json.dumps(tab.outside()) == "[]"
