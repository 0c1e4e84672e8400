"""What is imported ahead of need waits until nobody waits for a page."""

import threading
import time

from gfviz.paths import app_dir


def test_nothing_is_imported_while_a_page_is_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import warming

    imported: list[str] = []
    monkeypatch.setattr(warming, "SOON", ("soon",))
    monkeypatch.setattr(warming, "LATER", ("later",))
    monkeypatch.setattr(warming, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(warming, "_import", imported.append)
    thread = threading.Thread(target=warming.warm)
    with warming.drawing():
        thread.start()
        time.sleep(0.4)
        assert imported == ["soon"]
    thread.join(10)
    assert imported == ["soon", "later"]
