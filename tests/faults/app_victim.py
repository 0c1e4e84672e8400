"""The app as a victim: a server with a tab that goes through its pages, killed in between."""

import os
import socket
import sys
import threading
from pathlib import Path

from gfviz.errors import GfvizError
from gfviz.graph import load_graph
from gfviz.paths import app_dir
from gfviz.runs import RunDirectory, list_runs
from tests.faults import tabs
from tests.faults.forks import Tell
from tests.faults.victims import Cache, Graphs, Store, Trainer, Validate, Victim


class App(Victim):
    """The app with a tab that goes through the pages and imports graphs: an import is acknowledged on its return."""

    name = "app"
    most_kills = 10
    PAGES = (("", ""), ("runs", "run={run}"), ("explore", ""))

    @classmethod
    def reference(cls, shared: Path) -> Path:
        Graphs.reference(shared)  # which makes the graph to import
        return super().reference(shared)

    def work(self, tell: Tell) -> None:
        run = only_run_named(self.broken / "runs", "watched")
        if run is None or run.status().state != "finished":
            run = self._stage(run)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        threading.Thread(target=self._client, args=(run.id, port, tell), daemon=True).start()
        tabs.serve(self.broken / "runs", port)

    def _stage(self, begun: RunDirectory | None) -> RunDirectory:
        run = begun or RunDirectory.create(self.broken / "runs", {"training": {"steps": 50}}, name="watched")
        with run.writer() as writer:
            for step in range(50):
                writer.log(step, {"loss/total": 1.0 / (1 + step)})
        return run

    def _client(self, run: str, port: int, tell: Tell) -> None:
        code = 1
        try:
            sys.path.insert(0, str(app_dir()))
            sys.argv = ["main.py", "--runs", str(self.broken / "runs")]
            from gfvizui.places import import_graph

            content = tiny_graph_file(self.shared)
            if tabs.healthy(port):
                tab = tabs.Tab(port)
                for page, query in self.PAGES:
                    problems = tab.open(page, query.format(run=run))
                    tell("page", page, problems)
                    tell("import", import_graph("imported", content).name)
                code = 0
        finally:
            os._exit(code)

    def check(self) -> list[str]:
        problems = [f"the page {told[1]!r} failed: {told[2]}" for told in self.acknowledged if told[2:] and told[2]]
        run = only_run_named(self.broken / "runs", "watched")
        if run is not None and run.status().state == "finished":
            with run.reader() as reader:
                if len(reader.series("loss/total").steps) != 50:
                    problems.append("rows of the watched run are missing")
        folder = self.broken / "runs" / "graphs"
        names = {told[1] for told in self.acknowledged if told[0] == "import"}
        problems += [f"the imported graph {name} is missing" for name in names if not (folder / name).is_file()]
        for path in folder.glob("[!.]*.safetensors"):
            try:
                load_graph(path)
            except GfvizError as error:
                problems.append(f"half a graph: {error}")
        return problems

    def compare(self) -> list[str]:
        return self.check()


def only_run_named(root: Path, name: str) -> RunDirectory | None:
    """The run of that name."""
    return next((run for run in list_runs(root) if run.record().name == name), None)


def tiny_graph_file(shared: Path) -> bytes:
    """Content of a graph file to import."""
    return (shared / "graph" / "a.safetensors").read_bytes()


KINDS: tuple[type[Victim], ...] = (Trainer, Store, Cache, Graphs, Validate, App)
