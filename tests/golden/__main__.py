"""`python -m tests.golden FOLDER`: write the files anew, for a format of another version (never to please a test)."""

import json
import shutil
import sys
from pathlib import Path

import torch
import yaml

from gfviz.files import atomic_write_text
from gfviz.fusion.cache import build_cache
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.graph import CoactivationGraph, TextRecord
from gfviz.runs import RunDirectory
from gfviz.signals import TopKLogits, Vocabulary
from tests.fusion.tiny import save_tiny, sums

CONFIG = {
    "name": "golden", "seed": 5, "pivot": {"model": "p", "lora": {"rank": 4}},
    "teachers": [{"name": "a", "model": "m", "weight": 3, "token": "alm"}, {"name": "b", "model": "n", "cache": "c"}],
    "data": {"train": ["t.jsonl"], "too_long": "drop"},
    "loss": {"lambda": {"start": 0.1, "end": 0.9, "shape": "cosine"}, "structure": "spectral", "k": 8},
    "training": {"steps": 7, "checkpoint_every": 2}, "graph": {"every": 3}, "store": {"on_failure": "stop"},
}  # fmt: skip
LOGITS = [[[2.0, 1.0, 0.0, -1.0], [0.0, 0.5, 1.5, 1.0]], [[1.0, 1.0, -2.0, 0.25], [3.0, -3.0, 0.0, 0.125]]]


def signal() -> TopKLogits:
    """Four positions of two texts over four tokens."""
    return TopKLogits.from_logits(torch.tensor(LOGITS), k=3)


def graphs() -> dict[str, CoactivationGraph]:
    """One graph of each form that a file can hold."""
    import numpy as np

    record = TextRecord(np.array([0, 2, 4]), ("one", "two"), np.array([[0, 1], [1, 2], [0, 1], [1, 3]]))
    names = ["a", " b", "<c>", "ď"]
    return {
        "factors": CoactivationGraph.from_signal(signal(), labels=names, record=record, source="golden"),
        "accumulated": CoactivationGraph.from_signal(signal(), nodes="rank", weights="mass").accumulate(),
        "bytes": CoactivationGraph.from_signal(signal(), labels=Vocabulary((b"a", b"\xff", b"c", b"d"))),
    }


def write(folder: Path) -> None:
    """All files under `folder`."""
    for name, graph in graphs().items():
        graph.save(folder / f"graph-{name}-v1.safetensors")
    atomic_write_text(folder / "config-v1.yaml", yaml.safe_dump(CONFIG, sort_keys=False, allow_unicode=True))
    write_examples(folder / "examples.jsonl", sums(6))
    _write_run(folder)
    model = save_tiny(folder / "model", "llama", "characters", width=8)
    build_cache(str(model), sums(6), folder / "cache-v1", k=4, shard_examples=4)
    shutil.rmtree(model)


def _write_run(folder: Path) -> None:
    run = RunDirectory.create(folder / "runs", parse_config(CONFIG).to_mapping(), name="golden")
    with run.writer() as writer:
        writer.beat(total_steps=7)
        for step in range(8):
            values = {"loss/total": 1.0 / (1 + step), "lr": float("nan") if step == 3 else 1e-3}
            writer.log(step, values, time=1_700_000_000.0 + step)
        writer.event("checkpoint at step 6", kind="checkpoint", step=6)
        run.add_facts({"seed": 5, "versions": {"gfviz": "0.1.0"}})
    run.set_tags(["golden"])
    graphs()["accumulated"].save(run.path / "graphs" / "step-000003-student.safetensors")
    checkpoint = run.checkpoints_path / "checkpoint-6"
    atomic_write_text(checkpoint / "fusion.json", json.dumps({"bad_steps": 1, "scales": {}, "world_size": 1}) + "\n")
    sizes = {"fusion.json": (checkpoint / "fusion.json").stat().st_size}
    atomic_write_text(checkpoint / "COMPLETE", json.dumps({"version": 1, "step": 6, "files": sizes}) + "\n")
    (run.path / ".lock").unlink()
    run.path.rename(folder / "run-v1")
    (folder / "runs").rmdir()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
