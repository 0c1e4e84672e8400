"""The commands as a user types them: what they print, what they write, and what they refuse."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import gfviz as gv
from gfviz.cli import app
from gfviz.signals import TopKLogits

runner = CliRunner()


def _logits(rows, vocabulary, seed):
    return (np.random.default_rng(seed).normal(size=(rows, vocabulary)) * 3).astype(np.float32)


@pytest.fixture
def graphs(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        signal = TopKLogits.from_logits(torch.from_numpy(_logits(30, 60, seed)), 6)
        gv.CoactivationGraph.from_signal(signal, nodes="rank", source=name).save(tmp_path / f"{name}.safetensors")
    return tmp_path / "a.safetensors", tmp_path / "b.safetensors"


def _gfviz(*args, cwd=None):
    found = subprocess.run(
        [sys.executable, "-m", "gfviz.cli", *map(str, args)], capture_output=True, text=True, cwd=cwd
    )
    return found.returncode, found.stdout, found.stderr


def test_graph_of_logits_is_saved_and_described(tmp_path):
    np.save(tmp_path / "x.npy", _logits(20, 50, 0))
    out = tmp_path / "x.safetensors"
    done = runner.invoke(app, ["graph", str(tmp_path / "x.npy"), "-o", str(out), "-k", "5", "--nodes", "rank"])
    assert done.exit_code == 0, done.output
    graph = gv.load_graph(out)
    expected = torch.softmax(torch.from_numpy(np.load(tmp_path / "x.npy")).double(), 1).topk(5).values.numpy()
    np.testing.assert_allclose(graph.dense(), expected.T @ expected / 20, rtol=1e-5)
    assert "5 rank nodes from 20 positions" in done.output


def test_graph_of_served_logprobs(tmp_path):
    line = {
        "content": [{"token": "a", "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "[b]", "logprob": -1}]}]
    }
    (tmp_path / "served.jsonl").write_text(json.dumps(line))
    out = tmp_path / "s.safetensors"
    done = runner.invoke(app, ["graph", str(tmp_path / "served.jsonl"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    graph = gv.load_graph(out)
    assert list(graph.keys) == [b"[b]", b"a"]
    assert graph.edges().weight[0] == pytest.approx(np.exp(-1.5))
    assert "'[b]'" in done.output


def test_compare_prints_the_interval_and_json_holds_it(graphs):
    a, b = map(gv.load_graph, graphs)
    truth = gv.gromov_wasserstein(a, b, budget="standard")
    done = runner.invoke(app, ["compare", *map(str, graphs), "--json"])
    found = json.loads(done.output)
    assert (found["lower"], found["upper"], found["proof"]) == (truth.lower, truth.upper, truth.proof)
    assert found["proof"] is not None
    table = runner.invoke(app, ["compare", *map(str, graphs)]).output
    assert f"proven by {truth.proof}" in table
    assert f"{truth.upper:.6g}" in table


@pytest.mark.parametrize("form", ["graphml", "gexf", "csv", "png"])
def test_export_writes_and_does_not_overwrite(graphs, tmp_path, form):
    out = tmp_path / f"out.{form}"
    assert runner.invoke(app, ["export", str(graphs[0]), "--to", form, "-o", str(out)]).exit_code == 0
    assert out.stat().st_size > 100
    code, _, said = _gfviz("export", graphs[0], "--to", form, "-o", out)
    assert code == 2
    assert "exists: pass --force" in said


@pytest.mark.parametrize("args,words", [
    (["graph", "nowhere/at/all", "--texts", "x.txt"], "x.txt: no such file"),
    (["graph", "nowhere/at/all"], "--texts FILE"),
    (["graph", "missing.npy"], "missing.npy: no such file"),
    (["graph", "x.npy", "-k", "51"], "k = 51 exceeds the vocabulary of 50"),
    (["graph", "x.npy", "-o", "x.json"], "saved as .safetensors"),
    (["compare", "none.safetensors", "none.safetensors"], "none.safetensors: no such file"),
    (["compare", "x.npy", "x.npy"], "x.npy"),
    (["export", "none.safetensors", "--to", "csv"], "no such file"),
    (["fuse", "none.yaml"], "none.yaml"),
    (["fuse", "broken.yaml"], "broken.yaml"),
    (["eval", "nowhere/at/all", "--data", "none.jsonl"], "none.jsonl"),
    (["runs", "show", "../evil"], "evil"),
    (["runs", "compare", "one"], "two runs"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(args, words, tmp_path):
    np.save(tmp_path / "x.npy", _logits(4, 50, 0))
    (tmp_path / "broken.yaml").write_text("pivot: [")
    before = sorted(tmp_path.iterdir())
    code, out, said = _gfviz(*args, cwd=tmp_path)
    assert code == 2, (out, said)
    assert words in said
    assert said.startswith("error: ")
    assert len(said.strip().splitlines()) == 1
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_budget_that_is_none_is_named(graphs):
    code, _, said = _gfviz("compare", *graphs, "--budget", "quick")
    assert code == 2
    assert "budget = 'quick'" in said


def test_help_reads_well_for_every_command():
    listed = runner.invoke(app, ["--help"]).output
    for command in ("demo", "graph", "compare", "export", "fuse", "eval", "runs", "app"):
        assert command in listed
        own = runner.invoke(app, [command, "--help"])
        assert own.exit_code == 0
        assert "Usage" in own.output
