"""The same victims as real processes of the command line, from the interpreter's start on."""

import os
import socket
import subprocess
import sys
from abc import abstractmethod
from pathlib import Path

from tests.faults import tabs
from tests.faults.app_victim import App
from tests.faults.forks import Ended, run_command
from tests.faults.victims import Cache, Graphs, Trainer, Validate, Victim, fusion_mapping, only_run, zoo

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """One thread, so that sums have one order; no network."""
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": str(ROOT)}


class Command(Victim):
    """A victim whose job is a command line; it tells nothing, so what is on the disk is judged against the whole."""

    # Python and torch take seconds to start: much of a command's life, and little to kill in it.
    first_moment = 2.0
    most_kills = 1

    @abstractmethod
    def command(self) -> list[str]:
        """Arguments after the interpreter."""

    def fork(self, kill_after: float | None, slow: bool) -> Ended:
        log = self.broken.with_suffix(".log")
        code = run_command([sys.executable, *self.command()], log, kill_after, environment())
        return Ended(code, [], log.read_text("utf-8", "replace"))


class TrainerCommand(Command, Trainer):
    """`gfviz fuse`, and `gfviz runs resume` after it."""

    name = "trainer-command"
    seconds = 10.0

    def command(self) -> list[str]:
        run = only_run(self.broken / "runs")
        if run is not None and run.status().state != "finished":
            return ["-m", "gfviz.cli", "runs", "resume", str(run.path)]
        if run is not None:
            return ["-c", "pass"]
        import yaml

        path = self.broken / "config.yaml"
        path.write_text(yaml.safe_dump(fusion_mapping(zoo(self.shared), self.broken / "runs")))
        return ["-m", "gfviz.cli", "fuse", str(path)]


class CacheCommand(Command, Cache):
    """`gfviz cache`, in shards of its own size."""

    name = "cache-command"
    seconds = 6.0

    def command(self) -> list[str]:
        models = zoo(self.shared)
        where = ["--out", str(self.broken / "cache"), "-k", "16", "--device", "cpu"]
        return ["-m", "gfviz.cli", "cache", str(models["teacher"]), "--data", str(models["train"]), *where]

    def check(self) -> list[str]:
        return []

    def compare(self) -> list[str]:
        from gfviz.fusion.cache import read_meta, read_shard, shard_path

        mine, whole = (read_meta(folder / "cache") for folder in (self.broken, self.whole))
        rows = read_shard(shard_path(self.broken / "cache", 0), mine, 0)
        first = read_shard(shard_path(self.whole / "cache", 0), whole, 0)
        count = len(first["token_log_prob"])
        same = bool((rows["log_probs"][:count] == first["log_probs"]).all())
        return [] if same else ["the cache differs from the unbroken capture's"]


class GraphCommand(Command, Graphs):
    """`gfviz graph --force`."""

    name = "graph-command"
    seconds = 6.0

    def command(self) -> list[str]:
        texts = self.broken / "texts.jsonl"
        texts.write_text("".join(zoo(self.shared)["train"].read_text().splitlines(keepends=True)[:8]))
        where = ["--out", str(self.broken / "a.safetensors"), "-k", "16", "--device", "cpu", "--force"]
        return ["-m", "gfviz.cli", "graph", str(zoo(self.shared)["teacher"]), "--texts", str(texts), *where]

    def check(self) -> list[str]:
        from gfviz.errors import GfvizError
        from gfviz.graph import load_graph

        path = self.broken / "a.safetensors"
        if path.exists():
            try:
                load_graph(path)
            except GfvizError as error:
                return [f"half a graph: {error}"]
        return []

    def compare(self) -> list[str]:
        from gfviz.graph import load_graph

        return [] if load_graph(self.broken / "a.safetensors").positions > 0 else ["an empty graph"]


class ValidateCommand(Command, Validate):
    """`gfviz validate --size smoke`."""

    name = "validate-command"
    seconds = 6.0

    def command(self) -> list[str]:
        out = str(self.broken / "study")
        return ["-m", "gfviz.cli", "validate", "--size", "smoke", "--family", "token", "--out", out]


class AppCommand(Command, App):
    """`gfviz app`: killed, and served again."""

    name = "app-command"
    seconds = 6.0
    port = 0

    def command(self) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        runs = str(self.broken / "runs")
        return ["-m", "gfviz.cli", "app", "--runs", runs, "--port", str(self.port), "--no-browser"]

    def fork(self, kill_after: float | None, slow: bool) -> Ended:
        if kill_after is not None:
            return super().fork(kill_after, slow)
        command, log = [sys.executable, *self.command()], self.broken.with_suffix(".log")
        with open(log, "ab") as out:
            server = subprocess.Popen(command, stdout=out, stderr=out, env=environment(), start_new_session=True)
        try:
            problems = tabs.Tab(self.port).open() if tabs.healthy(self.port) else ["the app does not answer"]
        finally:
            server.terminate()
            server.wait(20)
        return Ended(1 if problems else 0, [], "; ".join(problems))

    def check(self) -> list[str]:
        return []

    def compare(self) -> list[str]:
        return []


COMMANDS: tuple[type[Command], ...] = (TrainerCommand, CacheCommand, GraphCommand, ValidateCommand, AppCommand)
