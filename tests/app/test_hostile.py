"""Text from outside (tokens, names, tags, logs, metrics, configurations) is text in every place that shows it."""

import pytest
from playwright.sync_api import expect

from gfviz.runs import RunDirectory, list_runs
from tests.app.conftest import HOSTILE, Tab, make_graph, serving

pytestmark = [pytest.mark.browser, pytest.mark.long]

SCRIPT, IMAGE = HOSTILE[0], HOSTILE[1]
MARKS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200e\u200f"
EVIL = f"{IMAGE}{SCRIPT}\u202edesrever **bold** [x](javascript:window.hacked=1) :red[r] $x$"

# Every element, through shadow roots too: nothing may have been made from the text, and no mark may turn what follows.
_PROBE = """() => {
  const found = []
  const walk = (root) => root.querySelectorAll('*').forEach((item) => {
    if (item.matches('img[src="x"], a[href^="javascript"]')) found.push(item.outerHTML.slice(0, 80))
    if (item.tagName === 'SCRIPT' && item.textContent.includes('hacked')) found.push('script')
    if (item.shadowRoot) walk(item.shadowRoot)
  })
  walk(document)
  return {hacked: window.hacked ?? null, made: found}
}"""


@pytest.fixture(scope="module")
def hostile_root(tmp_path_factory):
    """Graphs whose strongest tokens are hostile, and a run in which everything a stranger can write is."""
    root = tmp_path_factory.mktemp("hostile")
    for seed, name in enumerate(("one", "two")):
        make_graph(seed).save(root / "graphs" / f"{name}-token.safetensors")
    config = {
        "name": EVIL,
        "pivot": {"model": EVIL},
        "teachers": [{"name": "t", "model": EVIL, EVIL: EVIL}],
        EVIL: [EVIL],
    }
    for number in range(2):
        run = RunDirectory.create(root, {**config, "seed": number}, name="evil")
        run.log_path.write_text(f"{EVIL}\n\x1b[31m{SCRIPT}\n")
        run.set_tags([SCRIPT, "\u202etag"])
        writer = run.writer()
        for step in range(4):
            names = ("loss/total", f"loss/{IMAGE}/token", f"eval/{SCRIPT}/exact_match", f"graph/{IMAGE}/lower")
            writer.log(step, dict.fromkeys((*names, f"graph/{IMAGE}/upper", EVIL), 0.5))
        writer.event(EVIL, kind=SCRIPT, step=1)
        make_graph(number).save(run.path / "graphs" / "step-000003-student.safetensors")
        writer.finish("failed", EVIL)
    return root


def test_nothing_that_a_stranger_wrote_acts_anywhere(chromium, hostile_root, tmp_path_factory):
    runs = sorted(path.name for path in hostile_root.iterdir() if (path / "run.json").is_file())
    pages = (
        "",
        "explore?graph=one-token&node=0",
        "compare?a=one-token&b=two-token&match=token",
        "distance?a=one-token&b=two-token",
        f"train?start={runs[0]}",
        f"runs?run={runs[0]}",
        f"runs?compare={','.join(runs)}",
        f"explore?graph={SCRIPT}",
        f"runs?run={SCRIPT}&filter={IMAGE}",
    )
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    with serving(hostile_root, tmp_path_factory.mktemp("hostile-log") / "server.log") as address:
        tab = Tab(context.new_page(), address)
        for page in pages:
            tab.open(page)
            assert tab.page.evaluate(_PROBE) == {"hacked": None, "made": []}, page
            if page.startswith("explore?graph=one"):
                tab.canvas("ready")
                expect(tab.page.locator("[data-testid=stText]").first).to_contain_text(SCRIPT)
                shown = tab.page.locator("[data-testid=stMain]").inner_text()
                assert not set(MARKS) & set(shown), "a mark of direction reached the page"
            if page.startswith("runs?run=2"):
                expect(tab.page.get_by_text("**bold**").first).to_be_visible()
                for name in ("Events", "Configuration"):
                    tab.page.get_by_role("tab", name=name).click()
                    tab.calm()
                    assert tab.page.evaluate(_PROBE) == {"hacked": None, "made": []}
        tab.open(f"runs?run={runs[0]}")
        tab.page.get_by_role("button", name="Delete").click()
        sure = tab.page.get_by_role("button", name="Delete for good")
        sure.click()
        expect(sure).to_have_count(0, timeout=20_000)
        tab.calm()
        assert sure.count() == 0, "the question stayed open, about another run"
        assert [run.id for run in list_runs(hostile_root)] == runs[1:]
        assert tab.errors == []
        assert tab.outside() == []
    context.close()
