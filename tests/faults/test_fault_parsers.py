"""Hostile files: only one line of reason comes out of any parser, and nothing that a file says is run or followed."""

import functools
import json
import os
import random
import shutil
import struct
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gfviz.capture import load_model
from gfviz.errors import GfvizError
from gfviz.fusion.cache import read_meta
from gfviz.fusion.config import load_config, parse_config
from gfviz.graph import load_graph
from gfviz.runs import RunDirectory, list_runs
from gfviz.runs.identity import ProcessIdentity
from gfviz.signals import Vocabulary, read_logits
from tests.faults.mutations import mutate
from tests.faults.parsers import META, PARSERS, give
from tests.fusion.tiny import save_tiny

SEEDS = functools.cache(lambda name: PARSERS[name].seeds())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all the inputs of a property: making a run costs more than reading one."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("name", PARSERS)
def test_disturbed_files_end_in_one_line(name: str, tmp_path: Path) -> None:
    parser, draw = PARSERS[name], random.Random(name)
    seeds = SEEDS(name)
    for content in [b"", b"\0" * 9, b"[" * 100_000, *seeds]:
        assert give(parser, content, tmp_path) is None
    for _ in range(3 if name == "tokenizer.json" else 60):
        content = mutate(draw.choice(seeds), parser.form, draw)
        assert give(parser, content, tmp_path) is None, content[:200]


@pytest.mark.parametrize("name", ["run.json", "cache.json", "cell.json", "study.json", "tags.json", "COMPLETE"])
@given(st.data())
@QUICK
def test_any_value_in_any_key_of_a_record(shared: Path, name: str, data) -> None:
    folder = shared
    record = json.loads(SEEDS(name)[-1])
    if isinstance(record, dict):
        key = data.draw(st.sampled_from(sorted(record)))
        record[key] = data.draw(VALUES)
        if name == "run.json" and data.draw(st.booleans()):
            record["process"] = {"pid": data.draw(VALUES), "created": data.draw(VALUES), "ticks": data.draw(VALUES)}
    else:
        record.append(data.draw(VALUES))
    try:
        content = json.dumps(record).encode()
    except ValueError:  # an integer too long to be written
        return
    assert give(PARSERS[name], content, folder) is None


@given(st.lists(st.text(max_size=6) | st.characters(), max_size=12), st.sampled_from(["byte-level", "plain", None]))
@QUICK
def test_any_vocabulary(pieces: list, convention) -> None:
    found = Vocabulary.from_tokens(pieces, frozenset([0]), convention)
    assert len(found) == len(pieces)
    assert all(isinstance(token, bytes) for token in found.tokens)


def claiming(header: dict, size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + b"\0" * 64


@pytest.mark.parametrize(
    "content",
    [
        claiming({"logits": {"dtype": "F32", "shape": [10**5, 25_000], "data_offsets": [0, 10**10]}}),
        claiming({"logits": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 64]}}),
        claiming({}, 10 * 2**30),
        claiming({}, 2**63),
        claiming({"logits": {"dtype": "F99", "shape": [4], "data_offsets": [0, 64]}}),
        claiming({"logits": {"dtype": "F32", "shape": [-4], "data_offsets": [64, 0]}}),
    ],
    ids=["10 GB", "overflow", "huge header", "header overflow", "odd dtype", "backwards"],
)
def test_claimed_sizes_take_no_memory(tmp_path: Path, content: bytes) -> None:
    import resource

    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_graph, read_logits):
        with pytest.raises(GfvizError):
            read(path)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 25000), }"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    with pytest.raises(GfvizError):
        read_logits(tmp_path / "a.npy")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB taken for a lie"


@pytest.mark.parametrize(
    "text",
    [
        "pivot: !!python/object/apply:os.system ['touch {trace}']",
        "pivot: !!python/name:os.system",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\npivot: *c",
        "training: {steps: 0x}",
        "name: 2001-99-99",
    ],
)
def test_yaml_runs_nothing_and_grows_nothing(tmp_path: Path, text: str) -> None:
    trace = tmp_path / "ran"
    (tmp_path / "c.yaml").write_text(text.replace("{trace}", str(trace)))
    with pytest.raises(GfvizError) as caught:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_billions_of_items_in_a_model_card_cost_nothing(tmp_path: Path) -> None:
    from gfviz.fusion.saving import _licence

    lines = ["---", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "README.md").write_text("\n".join([*lines, "license: *a11", "---"]))
    assert _licence(str(tmp_path)) == "not stated"


def model_with(folder: Path, **changes: object) -> Path:
    save_tiny(folder, width=16)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_remote_code_is_refused_with_the_reason(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    folder = model_with(
        tmp_path / "m",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\n")
    with pytest.raises(GfvizError, match="code of its own, which is not run"):
        load_model(folder, "cpu")
    with pytest.raises(GfvizError):
        load_model(model_with(tmp_path / "n", auto_map={"AutoTokenizer": "evil.T"}, vocab_size=10**13), "cpu")
    assert not trace.exists()


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    folder = save_tiny(tmp_path / "m", width=16)

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {trace}",))

    torch.save({"lm_head.weight": Evil()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(GfvizError, match="pickled, which can run code"):
        load_model(folder, "cpu")
    assert not trace.exists()


def test_a_pickle_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    from gfviz.fusion.session import create_run, execute
    from tests.faults.victims import fusion_mapping, zoo

    trace = tmp_path / "ran"
    mapping = fusion_mapping(zoo(tmp_path), tmp_path / "runs", checkpoint_every=2, steps=3)
    quick = {"evaluation": {"at_start": False, "at_end": False}, "graph": {"every": 0}}
    run = create_run(parse_config({**mapping, **quick}))
    execute(run)
    step, folder = run.checkpoints()[0]

    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {trace}",))

    for _, later in run.checkpoints()[1:]:
        shutil.rmtree(later)
    sealed = (folder / "COMPLETE").read_text()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        whole = (folder / name).read_bytes()
        torch.save(Evil(), folder / name)
        marker = json.loads(sealed)
        marker["files"][name] = (folder / name).stat().st_size
        (folder / "COMPLETE").write_text(json.dumps(marker))
        record = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps({**record, "state": "stopped"}))
        with pytest.raises(GfvizError, match="is damaged"):
            execute(run)
        assert run.status().state == "failed"
        (folder / name).write_bytes(whole)
        (folder / "COMPLETE").write_text(sealed)
    assert not trace.exists()
    assert step == 2


def test_a_tokenizer_that_makes_rust_panic_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m", width=16)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(GfvizError, match="cannot be loaded"):
        load_model(folder, "cpu")


def test_weights_of_nan_are_refused_not_measured(tmp_path: Path) -> None:
    from gfviz.capture import capture

    folder = save_tiny(tmp_path / "m", width=16)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.full_like(weights["lm_head.weight"], torch.nan)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(GfvizError, match="NaN"):
        capture(folder, ["one text"], device="cpu")


@pytest.mark.parametrize(
    "name", ["stdout.log", "metrics.db", "run.json", "config.yaml", "checkpoints", "graphs", "model"]
)
def test_a_run_whose_parts_are_links_is_not_opened(tmp_path: Path, name: str) -> None:
    run = RunDirectory.create(tmp_path / "runs", {"a": 1})
    victim = tmp_path / "victim"
    if (run.path / name).is_dir():
        (run.path / name).rmdir()
        victim.mkdir()
        (victim / "checkpoint-7").mkdir()
    else:
        victim.write_bytes((run.path / name).read_bytes() if (run.path / name).is_file() else b"")
        (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(victim)
    with pytest.raises(GfvizError, match="is a link"):
        RunDirectory.open(run.path)
    assert list_runs(tmp_path / "runs") == []
    assert victim.exists()


def test_names_in_files_lead_nowhere(tmp_path: Path) -> None:
    import sys

    from gfviz.paths import app_dir

    sys.path.insert(0, str(app_dir()))
    try:
        from gfvizui.places import import_graph
    finally:
        sys.path.remove(str(app_dir()))
    good = PARSERS["graph"].seeds()[0]
    os.environ["GFVIZ_GRAPHS"] = str(tmp_path / "graphs")
    try:
        for name in (
            "../../evil.safetensors",
            "/etc/evil.safetensors",
            "..",
            "a/../../b.safetensors",
            "\0x",
            "é" * 400,
        ):
            found = import_graph(name, good)
            assert found.parent == tmp_path / "graphs"
        with pytest.raises(GfvizError):
            import_graph("bad.safetensors", b"no graph")
        names = {path.name for path in (tmp_path / "graphs").iterdir()}
    finally:
        del os.environ["GFVIZ_GRAPHS"]
    assert not any(name.startswith(".") or "bad" in name for name in names)
    # A checkpoint's marker names files: those above its folder are not looked at.
    from gfviz.runs import checkpoint_is_whole

    (tmp_path / "outside").write_bytes(b"abc")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "COMPLETE").write_text(json.dumps({"version": 1, "files": {"../outside": 3}}))
    assert not checkpoint_is_whole(tmp_path / "c")


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**64, True, "1", None, 1.0])
def test_a_forged_process_is_nobody_to_be_stopped(tmp_path: Path, pid: object) -> None:
    """0 and −1 would be every process of a group, or of the machine, to `kill`."""
    mine = ProcessIdentity.of()._asdict()
    assert ProcessIdentity.from_json({**mine, "pid": pid}) is None


def test_a_cache_that_claims_more_examples_than_there_are(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({**asdict(META), "examples": 10**18, "shard_examples": 1}))
    with pytest.raises(GfvizError, match="cannot be right"):
        read_meta(tmp_path)


def test_nothing_is_run_from_text() -> None:
    """No shell, no eval, no exec, no pickle anywhere in the program."""
    import ast

    root = Path(__file__).resolve().parents[2]
    banned = {"eval", "exec", "compile", "__import__"}
    for path in [*(root / "gfviz").rglob("*.py"), *(root / "app").rglob("*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in banned, f"{path}:{node.lineno} calls {called}"
                assert called not in ("os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "torch.load"), path
                assert not called.startswith(("pickle.", "marshal.", "shelve.")), f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    assert not (keyword.arg == "shell" and ast.unparse(keyword.value) != "False"), path
                    assert not (keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"), path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "marshal", "shelve", "cPickle", "dill"} & set(names), path


def test_finite_values_only(tmp_path: Path) -> None:
    """Whatever a graph file holds that is read, is finite."""
    draw, read = random.Random(3), 0
    for _ in range(150):
        (tmp_path / "a.safetensors").write_bytes(mutate(draw.choice(SEEDS("graph")), "safetensors", draw))
        try:
            graph = load_graph(tmp_path / "a.safetensors")
            values = np.concatenate([graph.diagonal(), graph.weights])
        except GfvizError:
            continue
        read += 1
        assert np.isfinite(values).all()
    assert read
