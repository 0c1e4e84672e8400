"""Everything that reads a file which a stranger may have written, as functions of the file's bytes.

`PARSERS` maps a name to a `Parser`: `seeds(folder)` makes good files, `read(content, folder)` gives one to the library.
Only `GfvizError` may come out of `read`.
"""

import contextlib
import functools
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save as save_tensors

from gfviz.capture import load_tokenizer, read_texts
from gfviz.errors import GfvizError
from gfviz.fusion.arguments import training_arguments
from gfviz.fusion.cache import CacheMeta, read_meta, shard_path
from gfviz.fusion.cached import CachedTeacher
from gfviz.fusion.config import FusionConfig, load_config, parse_config, value_at
from gfviz.fusion.data import read_examples
from gfviz.fusion.saving import _licence
from gfviz.graph import CoactivationGraph, TextRecord, load_graph
from gfviz.runs import RunDirectory, check_run_id, checkpoint_is_whole, list_runs
from gfviz.runs.yamlfile import dump_mapping, parse_yaml
from gfviz.signals import TopKLogits, Vocabulary, read_logits, read_served_logprobs
from gfviz.study.folder import claim_folder
from gfviz.study.tasks.base import read_jsonl
from gfviz.study.validate.runner import _kept
from tests.faults import foreign


@dataclass(frozen=True)
class Parser:
    """How one kind of file is made and read; `form` says how its bytes are best disturbed, `share` how often."""

    form: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], None]
    share: float = 1.0


def _graph_seeds() -> list[bytes]:
    import tempfile

    torch.manual_seed(0)
    signal = TopKLogits.from_logits(torch.randn(2, 3, 6), k=3)
    record = TextRecord(np.array([0, 3, 6]), ("one", "two"), np.array([[0, 1]] * 6))
    graphs = [
        CoactivationGraph.from_signal(signal, labels=list("abcdef"), record=record),
        CoactivationGraph.from_signal(signal, nodes="rank", weights="mass").accumulate(),
        CoactivationGraph.from_signal(signal, labels=Vocabulary((b"a", b"b", b"c", b"d", b"e", b"f"))),
    ]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for graph in graphs:
            graph.save(Path(folder) / "a.safetensors")
            found.append((Path(folder) / "a.safetensors").read_bytes())
    return found


def _read_graph(content: bytes, folder: Path) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(content)
    graph = load_graph(path)
    # What every page and command asks of a graph at once.
    with np.errstate(all="ignore"):
        _ = graph.weights, graph.diagonal(), graph.strength(), graph.edges(5), graph.content_hash, graph.row_means()


META = CacheMeta(1, "m", "h", "t", "p", "d", 3, 2, 9, "float16", 1.0, 2)


def _read_meta(content: bytes, folder: Path) -> None:
    (folder / "cache.json").write_bytes(content)
    meta = read_meta(folder)
    assert 0 < meta.shards < 2**31


def _shard_seeds() -> list[bytes]:
    tensors = {
        "log_probs": np.full((5, 2), -1.0, np.float16), "ids": np.ones((5, 2), np.int32),
        "token_log_prob": np.full(5, -1.0, np.float32), "boundaries": np.zeros(5, np.int32),
        "offsets": np.array([0, 2, 5]),
    }  # fmt: skip
    return [save_tensors(tensors, {"data_hash": "d", "version": "1"})]


def _read_shard(content: bytes, folder: Path) -> None:
    shard_path(folder, 0).write_bytes(content)
    CachedTeacher("t", folder, META).row(1)


@functools.cache
def _run(folder: Path) -> RunDirectory:
    run = RunDirectory.create(folder / "runs", {"a": 1}, name="x")
    with run.writer() as writer:
        writer.beat(total_steps=9)
        for step in range(5):
            writer.log(step, {"loss/total": 1.0 / (step + 1), "lr": float("nan")})
        writer.event("one")
    run.set_tags(["good"])
    return run


def _run_file(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory.create(folder, {"a": 1}, name="x")
            with run.writer() as writer:
                writer.log(3, {"loss/total": 1.0, "lr": float("nan")})
                writer.event("one")
                running = (run.path / "run.json").read_bytes()
            run.set_tags(["good"])
            return [(run.path / name).read_bytes(), *([running] if name == "run.json" else [])]

    return seeds


def _read_record(content: bytes, folder: Path) -> None:
    run = _run(folder)
    (run.path / "run.json").write_bytes(content)
    list_runs(folder / "runs")
    RunDirectory.open(run.path).status()


def _read_tags(content: bytes, folder: Path) -> None:
    run = _run(folder)
    (run.path / "tags.json").write_bytes(content)
    _ = run.tags


def _read_store(content: bytes, folder: Path) -> None:
    run = _run(folder)
    for suffix in ("-wal", "-shm"):
        (run.path / f"metrics.db{suffix}").unlink(missing_ok=True)
    run.metrics_path.write_bytes(content)
    with run.reader() as reader:
        for name in [*reader.names(), "loss/total"]:
            reader.series(name)
            reader.buckets(name, 3)
        reader.latest()
        reader.events()
        reader.status()


def _store_seeds() -> list[bytes]:
    import tempfile

    whole = _run_file("metrics.db")()[0]
    found = [whole]
    hostile = [
        "UPDATE state SET value = 'x'", "UPDATE state SET value = 1e300 WHERE key = 'step'",
        "UPDATE scalars SET value = x'00', time = 'never'", "UPDATE events SET step = 'a', kind = 5, time = 'x'",
        "INSERT INTO scalars VALUES ('a', 'b', 'c', 'd')", "INSERT INTO series VALUES (99, x'ff')",
        "DROP TABLE scalars; CREATE VIEW scalars AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT 1 AS series, i AS step, 1.0 AS value, 1.0 AS time FROM n",
        "CREATE TRIGGER t AFTER INSERT ON scalars BEGIN DELETE FROM scalars; END",
        "INSERT INTO scalars VALUES (1, 9223372036854775807, 1, 1), (1, -9223372036854775808, 1, 1)",
        "DELETE FROM scalars WHERE series > 1",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for number, script in enumerate(["", *hostile]):
            path = Path(folder) / f"{number}.db"
            path.write_bytes(whole)
            database = sqlite3.connect(path)
            # Small pages: a whole store must fit into what an input may be long.
            database.executescript("PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM;")
            database.executescript(f"{script}; PRAGMA journal_mode = WAL;")
            database.close()
            found.append(path.read_bytes())
    return [*found, *(foreign.endless(found[-1], table) for table in ("state", "scalars", "events"))]


CONFIG = {
    "pivot": {"model": "x"}, "teachers": [{"name": "t", "model": "y", "weight": 2}], "seed": 7,
    "loss": {"lambda": {"start": 0, "end": 1}, "beta": 1.5}, "training": {"steps": 3, "learning_rate": 1e-3},
}  # fmt: skip


def _config_seeds() -> list[bytes]:
    import yaml

    return [yaml.safe_dump(CONFIG).encode(), json.dumps(CONFIG).encode()]


def _read_config(content: bytes, folder: Path) -> None:
    path = folder / "c.yaml"
    path.write_bytes(content)
    use_config(load_config(path), folder)


def _read_override(content: bytes, folder: Path) -> None:
    use_config(parse_config(CONFIG, [content.decode("utf-8", "replace")]), folder)


def use_config(config: FusionConfig, folder: Path) -> None:
    """What a run makes of its configuration before it loads a model: the file it keeps, shares, arguments, counts."""
    written = dump_mapping(config.to_mapping())
    assert parse_config(parse_yaml(written)) == config, "the file that a run keeps says something else"
    if config.teachers:
        shares = config.teacher_weights().values()
        assert abs(sum(shares) - 1) < 1e-9, "shares do not sum to 1"
    for value in (config.loss.lam, config.loss.beta):
        assert np.isfinite(np.float32(value_at(value, 0.5)))
    training_arguments(config, RunDirectory(folder))
    for path in [*config.data.train, *config.data.evaluation, config.runs, config.pivot.model]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(path)
    database = sqlite3.connect(":memory:")
    whole = [value for value in config.training.model_dump().values() if isinstance(value, int | float)]
    for value in whole:
        assert database.execute("SELECT ?", (value,)).fetchone() == (value,)
    database.close()


def _jsonl(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], None]:
    def parse(content: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(content)
        read(path)

    return parse


EXAMPLES = b'{"prompt": "1+1=", "answer": "2", "target": "2", "family": "sum"}\n{"text": "a b c"}\n'
TASKS = b'{"prompt": "1", "answer": "2", "target": "2", "family": "s", "mistakes": [["a", "b"]]}\n'
SERVED = [
    b'{"choices": [{"logprobs": {"content": [{"token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": '
    b'[{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -2.5, "bytes": null}]}]}}]}\n',
    b'{"choices": [{"logprobs": {"tokens": ["a"], "top_logprobs": [null, {"a": -0.1, "b": -2}]}}]}\n',
]


def _npy_seeds() -> list[bytes]:
    import io

    found = []
    for array in (np.zeros((2, 3), np.float32), np.ones((2, 2, 3), ">f8"), np.zeros((2, 2), np.int8)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        found.append(buffer.getvalue())
    return found


def _tokenizer_seeds() -> list[bytes]:
    from tests.fusion.tiny import make_tokenizer

    return [make_tokenizer(kind, 60).backend_tokenizer.to_str().encode() for kind in ("characters", "wordpiece")]


def _read_tokenizer(content: bytes, folder: Path) -> None:
    (folder / "tok").mkdir(exist_ok=True)
    (folder / "tok" / "tokenizer.json").write_bytes(content)
    (folder / "tok" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    Vocabulary.from_tokenizer(load_tokenizer(folder / "tok")).labels([0, 1])


def _read_pieces(content: bytes, folder: Path) -> None:
    pieces = content.decode("utf-8", "surrogateescape").split("\n")
    for convention in (None, "byte-level", "metaspace", "wordpiece"):
        found = Vocabulary.from_tokens(pieces, frozenset([0]), convention)
        _ = found.identity, found.labels([0, len(pieces)])


def _read_study(content: bytes, folder: Path) -> None:
    (folder / "study.json").write_bytes(content)
    claim_folder(folder, {"version": 1})


def _read_cell(content: bytes, folder: Path) -> None:
    path = folder / "cell.json"
    path.write_bytes(content)
    _kept(path, list)


def _read_marker(content: bytes, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "COMPLETE").write_bytes(content)
    checkpoint_is_whole(folder)


def _read_card(content: bytes, folder: Path) -> None:
    (folder / "README.md").write_bytes(content)
    _licence(str(folder))


def _read_id(content: bytes, folder: Path) -> None:
    _run(folder)
    name = content.decode("utf-8", "replace")
    found = RunDirectory.find(folder / "runs", name)
    check_run_id(name)
    assert found.path.resolve().parent == (folder / "runs").resolve(), "an id led out of the folder"


def _safetensors_seeds() -> list[bytes]:
    return [save_tensors({"logits": np.zeros((2, 3), np.float32)}), save_tensors({"x": np.zeros((2, 3), np.float16)})]


def _read_logits(name: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        signal = TopKLogits.from_logits(read_logits(folder / name), 1)
        signal.require_finite()

    return read


PARSERS: dict[str, Parser] = {
    "graph": Parser("safetensors", _graph_seeds, _read_graph, 2.0),
    "cache.json": Parser("json", lambda: [json.dumps(asdict(META)).encode()], _read_meta),
    "cache shard": Parser("safetensors", _shard_seeds, _read_shard),
    "run.json": Parser("json", _run_file("run.json"), _read_record, 0.5),
    "tags.json": Parser("json", _run_file("tags.json"), _read_tags),
    "metrics.db": Parser("bytes", _store_seeds, _read_store, 0.5),
    "config.yaml": Parser("yaml", _config_seeds, _read_config, 0.5),
    "override": Parser("yaml", lambda: [b"training.steps=5", b"teachers.0.weight=2"], _read_override, 0.5),
    "examples.jsonl": Parser("jsonl", lambda: [EXAMPLES], _jsonl(lambda path: read_examples([path]), "e.jsonl"), 2.0),
    "texts.jsonl": Parser("jsonl", lambda: [EXAMPLES], _jsonl(read_texts, "t.jsonl"), 2.0),
    "texts.txt": Parser("bytes", lambda: [b"one\r\ntwo\n"], _jsonl(read_texts, "t.txt")),
    "tasks.jsonl": Parser("jsonl", lambda: [TASKS], _jsonl(read_jsonl, "k.jsonl"), 2.0),
    "served.jsonl": Parser("jsonl", lambda: SERVED, _jsonl(read_served_logprobs, "s.jsonl"), 2.0),
    "logits.npy": Parser("bytes", _npy_seeds, _read_logits("l.npy")),
    "logits.safetensors": Parser("safetensors", _safetensors_seeds, _read_logits("l.safetensors")),
    "tokenizer.json": Parser("json", _tokenizer_seeds, _read_tokenizer, 0.05),
    "vocabulary": Parser("bytes", lambda: ["Ġthe\n▁a\n##b\n<0x0A>".encode()], _read_pieces),
    "study.json": Parser("json", lambda: [b'{"version": 1, "seed": 0}'], _read_study),
    "cell.json": Parser("json", lambda: [b'[{"family": "token", "n": 6}]'], _read_cell),
    "COMPLETE": Parser("json", lambda: [b'{"version": 1, "step": 2, "files": {"a.bin": 3}}'], _read_marker),
    "model card": Parser("yaml", lambda: [b"---\nlicense: apache-2.0\ntags: [a]\n---\n# x"], _read_card),
    "run id": Parser("bytes", lambda: [b"20260101-120000-x-1a2b", b"../../etc", b"a/b"], _read_id),
    **{name: Parser(*reader) for name, reader in foreign.READERS.items()},
}


def give(parser: Parser, content: bytes, folder: Path) -> str | None:
    """Give one input to a parser; None where it was read or refused in one line, else what went wrong."""
    try:
        parser.read(content, folder)
    except GfvizError as error:
        return f"the message has several lines: {str(error)[:80]!r}" if "\n" in str(error).strip() else None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/gfviz/" in frame.filename]
        place = ours[-1] if ours else last
        text = " ".join(str(error).split())[:100]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {text}"
    return None
