"""Secrets of the environment stay there: nothing that is written, printed or shown holds one."""

import os
from pathlib import Path

import pytest

from gfviz.errors import GfvizError
from gfviz.figures.report import html_report
from gfviz.fusion.cache import build_cache
from gfviz.fusion.config import parse_config
from gfviz.fusion.session import create_run, execute
from gfviz.fusion.worker import print_event
from gfviz.study.validate.runner import machine
from tests.faults.forks import run_child
from tests.faults.victims import fusion_mapping, zoo
from tests.fusion.tiny import sums

NAMES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN",
    "PASSWORD", "MY_SECRET",
)  # fmt: skip


def test_no_secret_reaches_a_file_or_a_log(tmp_path: Path) -> None:
    planted = {name: f"hf_planted{number}Secret{name.lower()}" for number, name in enumerate(NAMES)}
    models = zoo(tmp_path)

    def body(tell) -> None:
        import torch

        torch.set_num_threads(1)
        os.environ.update(planted)
        mapping = fusion_mapping(models, tmp_path / "runs", steps=2, checkpoint_every=1)
        run = create_run(parse_config(mapping))
        execute(run, print_event)
        broken = create_run(parse_config({**mapping, "pivot": {"model": "nobody/nothing"}}))
        try:
            execute(broken, print_event)
        except GfvizError as error:
            print(error)
        build_cache(str(models["teacher"]), sums(4), tmp_path / "cache", k=4)
        page = html_report(run.id, [("reason", broken.status().reason)], {}, {"c": str(run.record().facts)})
        (tmp_path / "report.html").write_text(page)
        (tmp_path / "machine.txt").write_text(repr(machine()))
        raise RuntimeError("a traceback at the end, as of a crash")

    ended = run_child(body, tmp_path / "out.log", limit=250)
    assert ended.code == 1
    assert "a traceback at the end" in ended.printed
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.json", "metrics.db", "out.log", "report.html", "cache.json", "training_args.bin"} <= {
        path.name for path in written
    }
    for path in written:
        content = path.read_bytes()
        for name, secret in planted.items():
            assert secret.encode() not in content, f"{name} is in {path}"
            assert name.encode() not in content or name in ("PASSWORD",), f"the name {name} is in {path}"


@pytest.mark.parametrize("name", ["launch", "app_options", "cli"])
def test_no_argument_list_carries_the_environment(name: str) -> None:
    """A command line can be read by every user of the machine: no module puts a variable's value into one."""
    source = (Path(__file__).resolve().parents[2] / "gfviz").rglob(f"{name}.py")
    for path in source:
        text = path.read_text("utf-8")
        for word in ("TOKEN", "API_KEY", "SECRET", "PASSWORD"):
            assert f'environ["{word}' not in text
            assert f'getenv("{word}' not in text
