"""What is imported ahead of need waits until nobody waits for a page."""

import sys
import threading
import time

import pytest

from gfviz.paths import app_dir


def test_nothing_is_imported_while_a_page_is_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(app_dir()))
    from gfvizui import warming

    imported: list[str] = []
    monkeypatch.setattr(warming, "SOON", ("soon",))
    monkeypatch.setattr(warming, "LATER", ("later",))
    monkeypatch.setattr(warming, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(warming, "_import", imported.append)
    monkeypatch.setattr(warming, "_wanted", threading.Event())
    thread = threading.Thread(target=warming.warm)
    with warming.drawing():
        thread.start()
        time.sleep(0.4)
        assert imported == ["soon"]
    thread.join(10)
    assert imported == ["soon", "later"]


HEAVY = "import heavy_first\nheavy_first.begun.set()\nheavy_first.go.wait(20)\nimport heavy_second\n"


def executed() -> bool:
    return hasattr(sys.modules.get("heavy_second"), "done")


@pytest.mark.parametrize("wanted", [False, True])
def test_an_import_under_way_waits_for_a_page_but_not_for_ever(wanted, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(app_dir()))
    monkeypatch.syspath_prepend(str(tmp_path))
    from gfvizui import warming

    (tmp_path / "heavy_first.py").write_text("import threading\nbegun, go = threading.Event(), threading.Event()\n")
    (tmp_path / "heavy.py").write_text(HEAVY)
    (tmp_path / "heavy_second.py").write_text("done = True\n")
    (tmp_path / "light.py").write_text("")
    monkeypatch.setattr(warming, "SOON", ())
    monkeypatch.setattr(warming, "LATER", ("heavy",))
    monkeypatch.setattr(warming, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(warming, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(warming, "_wanted", threading.Event())
    finders = list(sys.meta_path)
    thread = threading.Thread(target=warming.warm)
    try:
        import heavy_first

        thread.start()
        assert heavy_first.begun.wait(10)
        monkeypatch.setattr(warming, "FIRST_SECONDS", 60.0 if wanted else 1.5)
        with warming.drawing():
            heavy_first.go.set()
            time.sleep(0.3)
            import light  # noqa: F401 - another thread's imports wait for nothing

            assert not executed()
            if wanted:
                warming.hurry()
            thread.join(10)
            assert executed()
        second = sys.modules["heavy_second"]
        assert type(second.__loader__) is type(second.__spec__.loader) is type(pytest.__loader__)
    finally:
        for name in ("heavy", "heavy_first", "heavy_second", "light"):
            sys.modules.pop(name, None)
    assert sys.meta_path == finders
