"""The commands as a user types them: what they print, what they write, and what they refuse."""

import errno
import json
import os
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


def _gfviz(*args, cwd=None, limit=None):
    found = subprocess.run(
        [sys.executable, "-m", "gfviz.cli", *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=limit
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


LONG = "a" * 300


@pytest.mark.parametrize("args", [
    ["runs", "show", LONG],
    ["runs", "list", "--runs", LONG],
    ["runs", "import", LONG],
    ["export", LONG, "--to", "csv"],
    ["fuse", LONG],
    ["eval", LONG, "--data", "x.jsonl"],
], ids=lambda args: " ".join(args[:2])[:12])  # fmt: skip
def test_a_name_that_no_file_can_have_is_one_line(args, tmp_path):
    code, out, said = _gfviz(*args, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert said.startswith("error: ")
    assert "File name too long" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("error, shown", [
    (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a\x1b[2Jb"), "error: a\\x1b[2Jb: No such file"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), "error: x: Permission denied\n"),
])  # fmt: skip
def test_the_systems_refusal_is_one_line(monkeypatch, capsys, error, shown):
    from gfviz import cli

    monkeypatch.setattr(cli, "app", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(shown)


@pytest.mark.parametrize(
    "error", [OSError("a fault of ours"), OSError(errno.EBADF, "Bad file descriptor"), KeyError("x")]
)
def test_faults_of_our_own_are_not_hidden(monkeypatch, error):
    from gfviz import cli

    monkeypatch.setattr(cli, "app", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        cli.main()


def test_nothing_in_an_error_acts_on_the_terminal(tmp_path):
    (tmp_path / "c.yaml").write_text('pivot: {model: x}\ntraining: {steps: 1}\n"\\e]0;title\\a\\e[2Jkey\u202e": 1\n')
    code, _, said = _gfviz("fuse", "c.yaml", cwd=tmp_path)
    assert code == 2
    assert "\\x1b]0;title\\x07\\x1b[2Jkey\\u202e: unknown key" in said
    assert all(letter.isprintable() for letter in said.rstrip("\n"))


def test_runs_list_shows_a_damaged_run_among_the_others(tmp_path):
    from gfviz.runs import RunDirectory

    good, bad = (RunDirectory.create(tmp_path, {"a": 1}, name=name) for name in ("good", "bad"))
    for run in (good, bad):
        with run.writer() as writer:
            writer.log(7, {"loss/total": 1.0})
    bad.metrics_path.write_bytes(b"?" * 5000)
    done = runner.invoke(app, ["runs", "list", "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    lines = {run.id: next(line for line in done.output.splitlines() if run.id in line) for run in (good, bad)}
    assert "finished" in lines[good.id]
    assert "damaged" in lines[bad.id]
    assert "metrics store" in " ".join(done.output.split())


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_pipe_in_the_place_of_a_runs_files_is_not_waited_for(tmp_path):
    from gfviz.runs import RunDirectory

    one, two = (RunDirectory.create(tmp_path / "runs", {"a": number}) for number in (1, 2))
    (one.path / "config.yaml").unlink()
    os.mkfifo(one.path / "config.yaml")
    (two.path / "run.json").unlink()
    os.mkfifo(two.path / "run.json")
    for args in (["compare", one.path.name, one.path.name], ["show", two.path.name]):
        code, _, said = _gfviz("runs", *args, "--runs", tmp_path / "runs", limit=60)
        assert code == 2
        assert "no ordinary file" in said


def test_an_import_says_what_it_left_out(tmp_path):
    from tests.runs.test_runs_imports import nested, trackio

    row = ("1", "one", "2026-01-02T03:04:05", 1, '{"loss": 1}')
    trackio(tmp_path / "p.db", [row], configs=[("1", nested(400))])
    done = runner.invoke(app, ["runs", "import", str(tmp_path / "p.db"), "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert "the configuration was left out: it is nested more than 32 deep" in done.output
