"""Compiling at first use: cached by all it depends on, refused where it would be unsafe, silent where it fails."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys

import pytest

from gfviz import compiled

pytestmark = pytest.mark.skipif(
    os.name != "posix" or not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)
FLAGS = ("-O1",)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(compiled.FORBID, raising=False)
    compiled._load.cache_clear()
    path = tmp_path / "code" / "seven.c"
    path.parent.mkdir()
    path.write_text("int seven(void) { return 7; }\n")
    yield path
    compiled._load.cache_clear()


def test_builds_once_and_again_after_a_change(source):
    assert compiled.load_compiled((source,), FLAGS).seven() == 7
    folder = compiled.cache_folder()
    (library,) = folder.iterdir()
    assert stat.S_IMODE(library.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = library.stat().st_mtime_ns
    compiled._load.cache_clear()
    assert compiled.load_compiled((source,), FLAGS).seven() == 7
    assert library.stat().st_mtime_ns == made
    source.write_text("int seven(void) { return 8; }\n")
    compiled._load.cache_clear()
    assert compiled.load_compiled((source,), FLAGS).seven() == 8
    assert len(list(folder.iterdir())) == 2


def test_several_sources_are_one_library_and_a_changed_header_builds_it_anew(source):
    header, other = source.with_name("ten.h"), source.with_name("seventy.c")
    header.write_text("#define TEN 10\n")
    other.write_text('#include "ten.h"\nint seven(void);\nint seventy(void) { return TEN * seven(); }\n')
    assert compiled.load_compiled((source, other), FLAGS, (header,)).seventy() == 70
    header.write_text("#define TEN 100\n")
    compiled._load.cache_clear()
    assert compiled.load_compiled((source, other), FLAGS, (header,)).seventy() == 700


def test_code_that_does_not_compile_leaves_nothing_behind(source, capfd):
    source.write_text("this is not C\n")
    assert compiled.load_compiled((source,), FLAGS) is None
    assert list(compiled.cache_folder().iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_forbidden_by_the_environment(source, monkeypatch):
    monkeypatch.setenv(compiled.FORBID, "1")
    assert compiled.load_compiled((source,), FLAGS) is None
    assert not (source.parent.parent / "cache").exists()


def test_a_folder_that_others_may_write_is_not_used(source):
    compiled.cache_folder().chmod(0o777)
    assert compiled.load_compiled((source,), FLAGS) is None


def test_a_library_that_others_may_write_or_that_is_a_link_is_built_anew(source):
    compiled.load_compiled((source,), FLAGS)
    (library,) = compiled.cache_folder().iterdir()
    elsewhere = library.rename(source.with_name("other.so"))
    library.symlink_to(elsewhere)
    compiled._load.cache_clear()
    assert compiled.load_compiled((source,), FLAGS).seven() == 7
    assert not library.is_symlink()
    library.chmod(0o777)
    compiled._load.cache_clear()
    assert compiled.load_compiled((source,), FLAGS).seven() == 7
    assert stat.S_IMODE(library.stat().st_mode) == 0o700


def test_half_a_library_is_no_error(source):
    compiler = next(found for found in map(shutil.which, ("cc", "gcc", "clang")) if found)
    library = compiled.cache_folder() / f"code-{compiled._fingerprint((source,), FLAGS, compiler)}.so"
    library.write_bytes(b"\x7fELF")
    library.chmod(0o700)
    assert compiled.load_compiled((source,), FLAGS) is None


def test_a_home_that_cannot_be_written_is_no_error(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert compiled.load_compiled((source,), FLAGS) is None


def test_processes_that_build_at_the_same_time_all_get_it(source):
    # The module alone: importing the package would load torch three times.
    script = (
        "import importlib.util as u, pathlib, sys; s = u.spec_from_file_location('compiled', sys.argv[1]); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); "
        "print(m.load_compiled((pathlib.Path(sys.argv[2]),), ('-O1',)).seven())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, compiled.__file__, str(source)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in started] == ["7"] * 3
    assert ctypes.CDLL(str(next(compiled.cache_folder().iterdir()))).seven() == 7
