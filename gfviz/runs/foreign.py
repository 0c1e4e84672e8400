"""What lies in a folder of runs and may be half, dead or forged: how it is judged, read and cleared away."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gfviz.errors import GfvizError
from gfviz.files import claimed, read_small_text

# End of the year 9999: what calendars, and so every display, can hold.
_LAST_TIME = 253402300799.0
MAX_SMALL_FILE = 4 * 1024 * 1024


@contextlib.contextmanager
def made_and_held(folder: Path) -> Iterator[None]:
    """Make a folder and hold it: between the two, a sweep may take it for a dead one's, and it is made again."""
    while True:
        folder.mkdir(parents=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claimed(folder, wait=True))
            except FileNotFoundError:
                continue
            if folder.is_dir():
                yield
                return


def remove_dead_folders(root: Path) -> None:
    """Remove the runs that a killed process had half made, or half removed."""
    for path in [*root.glob(".new-*"), *root.glob(".removed-*")]:
        with contextlib.suppress(OSError):
            if path.is_symlink() or not path.is_dir():
                continue
            with claimed(path) as dead:
                if dead:
                    shutil.rmtree(path, ignore_errors=True)


def checkpoint_is_whole(folder: Path) -> bool:
    """Whether the checkpoint carries its marker, and every file that the marker lists has the size it lists."""
    try:
        files = read_json(folder / "COMPLETE").get("files")
    except GfvizError:
        return False
    if not isinstance(files, dict) or not files:
        return False
    try:
        # A size also names a file that was cut by a full or a broken disk after the marker had been written.
        return all(".." not in Path(name).parts and os.path.getsize(folder / name) == files[name] for name in files)
    except (OSError, ValueError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file of a run. Raises `GfvizError` in one line for anything else."""
    try:
        data = json.loads(read_small_text(path, MAX_SMALL_FILE, links=False))
    except GfvizError:
        raise
    except FileNotFoundError as error:
        raise GfvizError(f"no run at {path.parent}: it was removed, or never was one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise GfvizError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise GfvizError(f"{path} does not hold a JSON object")
    return data


def time_of(value: Any) -> float | None:
    """A time in seconds since 1970; None for anything that no clock shows."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LAST_TIME:
        return None
    return float(value)


def text_of(value: Any) -> str:
    """A text that can be shown, half characters in it replaced; nothing for anything else.

    >>> text_of("a\\ud800"), text_of(1)
    ('a?', '')
    """
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""
