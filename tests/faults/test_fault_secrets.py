"""Secrets of the environment stay there: nothing that is written, printed or shown holds one."""

import ast
import os
import re
from pathlib import Path

import pytest

from gfviz.app_options import app_command
from gfviz.errors import GfvizError
from gfviz.figures.report import html_report
from gfviz.fusion.cache import build_cache
from gfviz.fusion.config import parse_config
from gfviz.fusion.launch import worker_command
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
        import huggingface_hub.constants
        import torch

        torch.set_num_threads(1)
        # Where there is no network, each question to the hub takes half a minute of attempts.
        huggingface_hub.constants.HF_HUB_OFFLINE = True
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


SECRET = re.compile(r"TOKEN(?!IZ)|API_KEY|SECRET|PASSWORD|CREDENTIAL")


def secrets_read(source: str) -> list[str]:
    """Names of secret variables that a module asks the environment for, by whatever call or key."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript):
            place, names = ast.unparse(node.value), [node.slice]
        elif isinstance(node, ast.Call):
            place, names = ast.unparse(node.func), [*node.args, *(keyword.value for keyword in node.keywords)]
        else:
            continue
        if "environ" in place or "getenv" in place:
            words = [word.value for name in names for word in ast.walk(name) if isinstance(word, ast.Constant)]
            found += [word for word in words if isinstance(word, str) and SECRET.search(word.upper())]
    return found


@pytest.mark.parametrize("line", [
    'os.environ["HF_TOKEN"]', "os.environ['HF_TOKEN']", 'environ.get("WANDB_API_KEY", "")', 'os.getenv("MY_SECRET")',
    'os.environ["HF_" + "TOKEN"]', 'command += ["--token", os.environ.get(key="HF_TOKEN")]', 'getenv("PASSWORD")',
])  # fmt: skip
def test_the_search_for_secrets_finds_them(line: str) -> None:
    assert secrets_read(line)
    assert secrets_read('os.environ.setdefault("TOKENIZERS_PARALLELISM", "false"); words["TOKEN"]') == []


def test_no_module_asks_for_a_secret() -> None:
    root = Path(__file__).resolve().parents[2]
    sources = [*(root / "gfviz").rglob("*.py"), *(root / "app").rglob("*.py")]
    assert len(sources) > 100
    assert {str(path): found for path in sources if (found := secrets_read(path.read_text("utf-8")))} == {}


def test_no_argument_list_carries_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line can be read by every user of the machine."""
    planted = {name: f"planted{number}value" for number, name in enumerate((*NAMES, "ORDINARY"))}
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    run = create_run(parse_config({"pivot": {"model": "x"}, "training": {"steps": 1}, "runs": str(tmp_path)}))
    commands = [worker_command(run), worker_command(run, 2), worker_command(run, 2, "fsdp2"), app_command(tmp_path)]
    for command in commands:
        assert len(command) > 2
        assert not [value for value in planted.values() if value in " ".join(command)]
