"""The watch's measure of memory: garbage of any amount is not growth, and what a page keeps is."""

import pytest

from gfviz.bench.watch import Look, Watcher, growth
from tests.browsers import headless_chromium

pytestmark = pytest.mark.browser

# A page that needs 40 MB and 4 000 nodes makes 0.4 MB of numbers, some DOM and a buffer at every tick, and keeps what
# KEEP names.
PAGE = """<body><main></main><script>
for (let i = 0; i < 4000; i++) document.body.append(document.createElement('hr'))
const kept = [Array.from({length: 5000000}, Math.random)]
setInterval(() => {
  const numbers = Array.from({length: 50000}, Math.random)
  const list = document.createElement('ul')
  for (let i = 0; i < 100; i++) list.append(document.createElement('li'))
  const bytes = new Uint8Array(400000).fill(1)
  document.querySelector('main').replaceChildren(list)
  const made = {numbers, nodes: list, bytes}
  for (const kind of KEEP) kept.push(made[kind])
}, 50)
</script></body>"""


def grown(browser, keep: list[str]) -> dict[str, float]:
    context = browser.new_context()
    page = context.new_page()
    page.set_content(PAGE.replace("KEEP", str(keep)))
    watcher = Watcher(browser, page)
    looks: list[Look] = []
    for _ in range(8):
        page.wait_for_timeout(200)
        looks.append(watcher.look())
    context.close()
    return {name: growth([getattr(look, name) for look in looks]) for name in ("browser", "pages", "heap", "nodes")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def test_garbage_is_not_growth(browser) -> None:
    found = grown(browser, [])
    assert all(value <= 0.05 for value in found.values()), found


def test_what_a_page_keeps_is_growth(browser) -> None:
    found = grown(browser, ["numbers", "nodes", "bytes"])
    assert all(value > 0.05 for value in found.values()), found


@pytest.mark.long
@pytest.mark.parametrize(
    ("keep", "seen_in"),
    [("numbers", {"browser", "pages", "heap"}), ("nodes", {"nodes"}), ("bytes", {"browser", "pages"})],
)
def test_a_leak_of_one_kind_alone_is_seen(browser, keep: str, seen_in: set[str]) -> None:
    found = grown(browser, [keep])
    assert {name for name, value in found.items() if value > 0.05} >= seen_in, found
