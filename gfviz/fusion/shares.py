"""Capture and caching by several processes, each its share: `python -m gfviz.fusion.shares JOB.json` is one of them.

A job is started as training is (torch's launcher on CPUs, `accelerate launch` on GPUs); each process knows its number
from the launcher's environment and its device from that number.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfviz.errors import GfvizError

if TYPE_CHECKING:
    from gfviz.fusion.cache import CacheReport
    from gfviz.graph import CoactivationGraph


def capture_shared(
    model: str, files: Sequence[Path], processes: int, *, limit: int | None = None, **options: Any
) -> "CoactivationGraph":
    """`gfviz.capture` over the texts of `files`, each process a stretch of them; the graphs are merged in their order.

    `options` are those of `capture` and `load_model` that are plain values. Equal to the graph of one process up to the
    rounding of the merge. Raises `GfvizError` as they do, and for a process that failed.
    """
    import gfviz as gv

    with tempfile.TemporaryDirectory(prefix="gfviz-capture-") as scratch:
        job = {"kind": "capture", "model": model, "files": [str(path) for path in files], "limit": limit}
        _run({**job, "options": options, "out": scratch}, processes)
        parts = [gv.load_graph(path) for path in sorted(Path(scratch).glob("part-*.safetensors"))]
        if not parts:
            raise GfvizError("no process captured anything: are there texts?")
        return parts[0].merge(*parts[1:])


def cache_shared(model: str, files: Sequence[Path], folder: Path, processes: int, **options: Any) -> "CacheReport":
    """`build_cache` over the examples of `files`, the shards dealt out to the processes; equal to that of one process.

    Raises `GfvizError` as it does, and for a process that failed: what the others wrote stays, the next call goes on.
    """
    from gfviz.fusion.cache import cache_report

    before = list(folder.glob("shard-*.safetensors")) if folder.is_dir() else []
    job = {"kind": "cache", "model": model, "files": [str(path) for path in files], "out": str(folder)}
    _run({**job, "options": options}, processes)
    found = cache_report(folder)
    return replace(found, reused_shards=len(before))


def _run(job: Mapping[str, Any], processes: int) -> None:
    from gfviz.fusion.launch import launch_command

    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="gfviz-job-") as spec:
        json.dump(job, spec)
        spec.flush()
        command = launch_command(["-m", "gfviz.fusion.shares", spec.name], processes)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("gfviz: ")]
        raise GfvizError(said[0].removeprefix("gfviz: ") if said else f"a process failed: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def share_of(count: int, number: int, processes: int) -> slice:
    """The stretch of `count` things that process `number` takes; the stretches follow each other.

    >>> [share_of(5, number, 3) for number in range(3)]
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(count * number // processes, count * (number + 1) // processes)


def work(job: Mapping[str, Any], number: int, processes: int) -> None:
    """Do one process's share of a job."""
    options = dict(job["options"])
    options["device"] = _device(options.pop("device", None))
    if job["kind"] == "cache":
        from gfviz.fusion.cache import build_cache
        from gfviz.fusion.data import read_examples

        build_cache(job["model"], read_examples(job["files"]), job["out"], part=(number, processes), **options)
        return
    from gfviz.capture import capture, load_model, read_texts

    texts = [text for file in job["files"] for text in read_texts(file)][: job["limit"]]
    mine = texts[share_of(len(texts), number, processes)]
    if mine:
        trust, revision = options.pop("trust_remote_code", False), options.pop("revision", None)
        loaded = load_model(job["model"], options.pop("device"), trust_remote_code=trust, revision=revision)
        capture(loaded, mine, **options).save(Path(job["out"]) / f"part-{number:05d}.safetensors")


def _device(asked: str | None) -> str | None:
    import torch

    if asked is not None or not torch.cuda.is_available():
        return asked
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def main(arguments: list[str]) -> int:
    """One process of a job. Exit codes: 0, and 2 for bad input."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        work(job, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    except GfvizError as error:
        print(f"gfviz: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
