"""The watch's measure of memory: garbage of any amount is not growth, and what a page keeps is."""

import time
from pathlib import Path

import pytest

from gfviz.bench.devtools import Chromium
from gfviz.bench.watch import Look, growth, look

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


def grown(root: Path, keep: list[str]) -> dict[str, float]:
    page = root / "page.html"
    page.write_text(PAGE.replace("KEEP", str(keep)), encoding="utf-8")
    looks: list[Look] = []
    with Chromium(root, page.as_uri()) as browser:
        browser.wait_for("document.querySelector('li') !== null")
        for _ in range(8):
            time.sleep(0.2)
            looks.append(look(browser))
    return {name: growth([getattr(one, name) for one in looks]) for name in ("browser", "pages", "heap", "nodes")}


def test_garbage_is_not_growth(tmp_path: Path) -> None:
    found = grown(tmp_path, [])
    assert all(value <= 0.05 for value in found.values()), found


def test_what_a_page_keeps_is_growth(tmp_path: Path) -> None:
    found = grown(tmp_path, ["numbers", "nodes", "bytes"])
    assert all(value > 0.05 for value in found.values()), found


@pytest.mark.long
@pytest.mark.parametrize(
    ("keep", "seen_in"),
    [("numbers", {"browser", "pages", "heap"}), ("nodes", {"nodes"}), ("bytes", {"browser", "pages"})],
)
def test_a_leak_of_one_kind_alone_is_seen(tmp_path: Path, keep: str, seen_in: set[str]) -> None:
    found = grown(tmp_path, [keep])
    assert {name for name, value in found.items() if value > 0.05} >= seen_in, found
