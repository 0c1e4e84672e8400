"""What is killed, what it must have kept, and what must come of it in the end: one class per kind of process.

`start(kill_after, slow)` runs it to its end or its death; `check()` looks at the disk between death and restart;
`finish()` restarts it for good and compares with a run that was never broken. Problems come back as sentences.
"""

import functools
import sqlite3
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from gfviz.capture import capture, load_model
from gfviz.errors import GfvizError
from gfviz.fusion.cache import build_cache, read_meta, read_shard, shard_path
from gfviz.fusion.callback import FusionEvent
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.session import create_run, execute
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory
from gfviz.runs.identity import ProcessIdentity
from gfviz.study.validate.runner import run_validation
from tests.faults.disks import slow_disk
from tests.faults.forks import Ended, Tell, run_child
from tests.fusion.tiny import save_tiny, sums

STEPS, LAST_ROW = 10, 10**9


def leftovers(*folders: Path) -> list[str]:
    """Names of temporary files and folders that no restart has cleared away."""
    found: list[str] = []
    for folder in folders:
        for path in folder.rglob("*"):
            name = path.name
            temporary = name.endswith((".tmp", ".new", ".old")) or name.startswith((".new-", ".removed-"))
            half = name.startswith("checkpoint-") and path.is_dir() and not (path / "COMPLETE").is_file()
            if temporary or half:
                found.append(f"left behind: {path.relative_to(folder)}")
    return found


class Victim(ABC):
    """Base of all; `root` is a folder of its own, `whole` that of the unbroken job, which all of a kind share."""

    name = ""
    seconds = 1.0
    first_moment = 0.0
    # Kills of one victim, and the share of the whole job within which each moment is drawn.
    most_kills, reach = 7, 0.9

    def __init__(self, root: Path, whole: Path) -> None:
        self.broken = root
        self.whole = whole
        self.shared = whole.parent
        self.acknowledged: list[Any] = []
        root.mkdir(parents=True, exist_ok=True)

    @classmethod
    def reference(cls, shared: Path) -> Path:
        """Run the unbroken job once; sets how long it takes."""
        whole = shared / cls.name
        if not whole.is_dir():
            victim = cls(whole, whole)
            began = time.monotonic()
            ended = victim.fork(None, False)
            cls.seconds = time.monotonic() - began
            if ended.code != 0:
                raise RuntimeError(f"{cls.name}: the unbroken job failed: {ended.printed[-2000:]}")
        return whole

    def start(self, kill_after: float | None, slow: bool) -> Ended:
        """Run the job, or go on with it, to its end or its death."""
        ended = self.fork(kill_after, slow)
        self.acknowledged += ended.told
        return ended

    def fork(self, kill_after: float | None, slow: bool) -> Ended:
        """Run `work` in a forked child."""

        def body(tell: Tell) -> None:
            torch.set_num_threads(1)
            if slow:
                slow_disk()
            self.work(tell)

        return run_child(body, self.broken.with_suffix(".log"), kill_after)

    @abstractmethod
    def work(self, tell: Tell) -> None:
        """The job, in the child, in the folder `broken`."""

    def check(self) -> list[str]:
        """Problems of what lies on the disk after a kill."""
        return []

    @abstractmethod
    def compare(self) -> list[str]:
        """Problems of the finished job, beside the unbroken one."""

    def finish(self) -> list[str]:
        """Restart for good; problems of what came of it."""
        ended = self.start(None, False)
        if ended.code != 0:
            return [f"the restart failed: {' '.join(ended.printed[-600:].split())}"]
        return [*self.compare(), *leftovers(self.broken)]


@functools.cache
def zoo(root: Path) -> dict[str, Path]:
    """Two tiny models and the examples, under `root`."""
    folder = root / "zoo"
    made = {
        "pivot": save_tiny(folder / "pivot", "llama", "byte-level", width=16, dropout=0.1),
        "teacher": save_tiny(folder / "teacher", "gpt2", "metaspace-bpe", seed=1, width=16),
        "train": folder / "train.jsonl",
    }
    write_examples(made["train"], sums())
    return made


def fusion_mapping(models: dict[str, Path], runs: Path, **training: Any) -> dict[str, Any]:
    """The configuration of a small fusion with checkpoints, evaluations and graphs."""
    return {
        "runs": str(runs),
        "pivot": {"model": str(models["pivot"])},
        "teachers": [{"name": "t", "model": str(models["teacher"])}],
        "data": {"train": [str(models["train"])], "evaluation": [str(models["train"])]},
        "training": {
            "steps": STEPS, "batch_size": 4, "learning_rate": 3e-3, "log_every": 2, "device": "cpu",
            "checkpoint_every": 2, **training,
        },
        "loss": {"k": 16},
        "graph": {"every": 5, "examples": 4},
        "evaluation": {"at_start": True, "at_end": True, "max_new_tokens": 3, "limit": 4},
    }  # fmt: skip


def only_run(root: Path) -> RunDirectory | None:
    """The one run under `root`, once it is there."""
    found = sorted(root.glob("[!.]*")) if root.is_dir() else []
    return RunDirectory.open(found[0]) if found else None


def curves(run: RunDirectory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of everything that a resume must repeat to the last digit."""
    with run.reader() as reader:
        names = [name for name in reader.names() if name.startswith(("loss/", "grad_norm", "lr", "graph/", "eval/"))]
        found = {name: reader.series(name) for name in names}
    return {name: (series.steps, series.values) for name, series in found.items()}


def differing(first: dict, second: dict, up_to: int = LAST_ROW) -> list[str]:
    """Series of `first` that `second` has not, or has otherwise, at steps up to `up_to`."""
    problems = []
    for name, (steps, values) in first.items():
        others = second.get(name, (np.empty(0, np.int64), np.empty(0)))
        mine, yours = steps <= up_to, others[0] <= up_to
        same_steps = np.array_equal(steps[mine], others[0][yours])
        if not same_steps or not np.array_equal(values[mine], others[1][yours], equal_nan=True):
            problems.append(f"the curve {name} differs up to step {up_to}")
    return problems


def whole_checkpoint(folder: Path) -> list[str]:
    """Whether every file of a checkpoint that counts as whole can be read."""
    try:
        for path in folder.rglob("*"):
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix in (".pt", ".pth") and path.name != "rng_state.pth":
                torch.load(path, weights_only=True)
    except Exception as error:
        return [f"{folder.name} counts as whole and cannot be read: {type(error).__name__}"]
    return []


class Trainer(Victim):
    """A fusion: steps are acknowledged by checkpoints, rows by a flush."""

    name = "trainer"

    def work(self, tell: Tell) -> None:
        run = only_run(self.broken / "runs")
        if run is not None and run.status().state == "finished":
            return
        if run is None:
            config = parse_config(fusion_mapping(zoo(self.shared), self.broken / "runs"))
            run = create_run(config, process=ProcessIdentity.of())

        def hook(event: FusionEvent) -> None:
            if event.kind == "checkpoint" or (event.kind == "step" and event.values):
                tell(event.kind, event.step)

        execute(run, hook)

    def check(self) -> list[str]:
        run, whole = only_run(self.broken / "runs"), only_run(self.whole / "runs")
        if run is None:
            return ["acknowledged steps of a run that is not there"] if self.acknowledged else []
        assert whole is not None
        problems = []
        status = run.status()
        if status.alive:
            problems.append(f"the dead run counts as {status.state}")
        steps = [step for step, _ in run.checkpoints()]
        sealed = max((step for kind, step in self.acknowledged if kind == "checkpoint"), default=0)
        if sealed > max(steps, default=0):
            problems.append(f"checkpoint {sealed} was acknowledged, the newest is {max(steps, default=0)}")
        for _, folder in run.checkpoints():
            problems += whole_checkpoint(folder)
        if run.metrics_path.is_file():
            database = sqlite3.connect(run.metrics_path)
            if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                problems.append("the metrics store is corrupt")
            database.close()
        # Rows up to the newest checkpoint are acknowledged for good; later ones until a resume computes them again.
        expected = {name: found for name, found in curves(whole).items() if not name.startswith("eval/")}
        problems += differing(expected, curves(run), max(steps, default=-1))
        return problems

    def compare(self) -> list[str]:
        run, whole = only_run(self.broken / "runs"), only_run(self.whole / "runs")
        assert run is not None
        assert whole is not None
        problems = differing(curves(whole), curves(run)) + differing(curves(run), curves(whole))
        weights = [load_file(each.model_path / "model.safetensors") for each in (whole, run)]
        if any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items()):
            problems.append("the fused weights differ from the unbroken run's")
        if run.status().state != "finished":
            problems.append(f"the run ended as {run.status().state}")
        return problems


class Store(Victim):
    """A writer of nothing but rows: a row is acknowledged when `flush` has returned."""

    name = "store"
    most_kills, reach = 8, 0.15
    ROWS = 8000

    def work(self, tell: Tell) -> None:
        run = only_run(self.broken / "runs") or RunDirectory.create(self.broken / "runs", {}, name="store")
        with run.writer() as writer:
            begin = int(run.status().step) + 1
            for step in range(begin, self.ROWS):
                writer.log(step, {"a": step * 0.5, "b": -float(step)})
                if step % 7 == 0:
                    writer.flush()
                    tell(step)

    def check(self) -> list[str]:
        run = only_run(self.broken / "runs")
        if run is None:
            return ["acknowledged rows of a run that is not there"] if self.acknowledged else []
        with run.reader() as reader:
            last = max(self.acknowledged, default=-1)
            for name, factor in (("a", 0.5), ("b", -1.0)):
                series = reader.series(name)
                kept = series.steps[: last + 1]
                if len(kept) < last + 1 or not np.array_equal(kept, np.arange(last + 1)):
                    return [f"rows up to {last} were acknowledged, some are missing"]
                if not np.array_equal(series.values, factor * series.steps):
                    return ["rows hold other values than were written"]
        return []

    def compare(self) -> list[str]:
        self.acknowledged.append(self.ROWS - 1)
        return self.check()


class Cache(Victim):
    """An offline cache: a shard is acknowledged when the progress says so, and never written again."""

    name = "cache"
    most_kills, reach = 8, 0.5

    def __init__(self, root: Path, whole: Path) -> None:
        super().__init__(root, whole)
        self.kept: dict[int, bytes] = {}

    def work(self, tell: Tell) -> None:
        build_cache(
            str(zoo(self.shared)["teacher"]), sums(), self.broken / "cache", k=16, shard_examples=2,
            on_progress=lambda done, total: tell(done),
        )  # fmt: skip

    def check(self) -> list[str]:
        count = max(self.acknowledged, default=0) // 2
        problems = []
        for number in range(12):
            path = shard_path(self.broken / "cache", number)
            if not path.is_file():
                if number < count:
                    problems.append(f"shard {number} was acknowledged and is missing")
                continue
            content = path.read_bytes()
            if self.kept.setdefault(number, content) != content:
                problems.append(f"shard {number} was written again")
            try:
                mine = read_shard(path, read_meta(self.broken / "cache"), number)
            except GfvizError as error:
                problems.append(str(error))
                continue
            whole = load_file(shard_path(self.whole / "cache", number))
            if any(not torch.equal(value, whole[name]) for name, value in mine.items()):
                problems.append(f"shard {number} holds other values than the unbroken capture's")
        return problems

    def compare(self) -> list[str]:
        problems = self.check()
        tops = (self.broken / "cache", self.whole / "cache")
        files = [{str(path.relative_to(top)) for path in top.rglob("*")} for top in tops]
        if files[0] != files[1]:
            problems.append(f"the cache's files differ: {sorted(files[0] ^ files[1])[:4]}")
        return problems


class Graphs(Victim):
    """Captures a graph over a model, saves it over an older one, many times."""

    name = "graph"
    most_kills, reach = 8, 0.9

    def work(self, tell: Tell) -> None:
        loaded = load_model(zoo(self.shared)["teacher"], "cpu")
        texts = [example.prompt + example.answer for example in sums(8)]
        for k in (4, 8, 16):
            graph = capture(loaded, texts, k=k)
            for _ in range(8):
                graph.save(self.broken / "a.safetensors")
                tell(k, graph.content_hash)

    def check(self) -> list[str]:
        path = self.broken / "a.safetensors"
        if not path.is_file():
            return ["a saved graph is missing"] if self.acknowledged else []
        try:
            found = load_graph(path).content_hash
        except GfvizError as error:
            return [f"half a graph: {error}"]
        whole = self.whole / "a.safetensors"
        known = {pair[1] for pair in self.acknowledged} | {load_graph(whole).content_hash}
        # The newest save may have come before its word; any graph of the unbroken run will do then.
        return [] if found in known or not self.acknowledged or self._is_known(found) else ["another graph than saved"]

    def _is_known(self, content_hash: str) -> bool:
        loaded = load_model(zoo(self.shared)["teacher"], "cpu")
        texts = [example.prompt + example.answer for example in sums(8)]
        return any(capture(loaded, texts, k=k).content_hash == content_hash for k in (4, 8, 16))

    def compare(self) -> list[str]:
        hashes = [load_graph(folder / "a.safetensors").content_hash for folder in (self.whole, self.broken)]
        return [] if hashes[0] == hashes[1] else ["the graph differs from the unbroken one"]


class Validate(Victim):
    """The error study: a cell is acknowledged when the progress counts it, and never computed again."""

    name = "validate"
    most_kills = 10

    def __init__(self, root: Path, whole: Path) -> None:
        super().__init__(root, whole)
        self.kept: dict[str, bytes] = {}

    def work(self, tell: Tell) -> None:
        run_validation(self.broken / "study", "smoke", families=["token"], progress=lambda done, total: tell(done))

    def check(self) -> list[str]:
        cells = self.broken / "study" / "cells"
        found = {path.name: path.read_bytes() for path in cells.glob("*.json") if not path.name.startswith(".")}
        problems = [f"cell {name} was computed again" for name, content in self.kept.items() if found[name] != content]
        self.kept = found
        told = max(self.acknowledged, default=0)
        if len(found) < told:
            problems.append(f"{told} cells were acknowledged, {len(found)} are kept")
        return problems

    def compare(self) -> list[str]:
        import pandas as pd

        tables = [pd.read_parquet(folder / "study" / "table.parquet") for folder in (self.whole, self.broken)]
        # Rungs alone are given seconds and may be left out on a busy machine; budgets never are.
        exact = ["family", "size", "pair", "p", "method", "lower", "upper"]
        budgets = [table[table["group"] == "budget"][exact].reset_index(drop=True) for table in tables]
        problems = self.check()
        if len(tables[0]) != len(tables[1]) or not budgets[0].equals(budgets[1]):
            problems.append("the table differs from the unbroken study's")
        return problems
