"""Nothing that a file says runs, and nothing is written where a link of a stranger's run leads."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from gfviz.cli import main
from gfviz.errors import GfvizError
from gfviz.fusion import fuse, load_config, resume, session, trust
from gfviz.fusion.config import parse_config
from gfviz.fusion.data import write_examples
from gfviz.fusion.launch import launch_resume
from gfviz.fusion.session import create_run, execute, training_arguments
from tests.fusion.test_fusion_trainer import settings
from tests.fusion.tiny import sums

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig
class Own(LlamaConfig):
    model_type = "own"
"""


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Registered first: what a test allows is undone at its end.
    monkeypatch.setenv(trust.VARIABLE, "0")


@pytest.fixture
def bringing_code(zoo: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A model folder with a configuration class of its own, and the file that its code makes when it runs."""
    model, mark = tmp_path / "own", tmp_path / "it-ran"
    shutil.copytree(zoo["pivot"], model)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(CODE.format(mark=str(mark)))
    return model, mark


def asking(zoo: dict[str, Path], tmp_path: Path, model: Path) -> dict:
    config = settings(zoo, tmp_path, teachers=())
    return config | {"pivot": {"model": str(model), "trust_remote_code": True}}


def test_a_file_cannot_have_a_models_code_run(zoo, tmp_path, bringing_code) -> None:
    model, mark = bringing_code
    path = tmp_path / "fusion.yaml"
    path.write_text(yaml.safe_dump(asking(zoo, tmp_path, model)))
    with pytest.raises(GfvizError, match=r"fusion\.yaml: pivot\.trust_remote_code: .* --trust-remote-code"):
        load_config(path)
    assert not mark.exists()
    # What is typed beside the file counts, in either form.
    path.write_text(yaml.safe_dump(asking(zoo, tmp_path, model) | {"pivot": {"model": str(model)}}))
    assert load_config(path, ["pivot.trust_remote_code=true"]).pivot.trust_remote_code
    path.write_text(yaml.safe_dump(asking(zoo, tmp_path, model)))
    trust.allow_code()
    assert load_config(path).pivot.trust_remote_code


def test_a_run_from_elsewhere_cannot_have_a_models_code_run(zoo, tmp_path, bringing_code) -> None:
    model, mark = bringing_code
    run = create_run(parse_config(asking(zoo, tmp_path, model)), sums())
    for start in (resume, launch_resume, execute):
        with pytest.raises(GfvizError, match=r"config\.yaml: pivot\.trust_remote_code: a file cannot"):
            start(run)
    assert not mark.exists()
    assert run.status().state == "queued"
    # With the word of whoever starts it the code does run: the test above could have failed.
    with pytest.raises(GfvizError):
        resume(run, trust_remote_code=True)
    assert mark.exists()


def test_an_attention_of_the_hub_is_code(zoo, tmp_path) -> None:
    config = settings(zoo, tmp_path)
    config["pivot"]["attention"] = "someone/kernel"
    with pytest.raises(GfvizError, match=r"pivot\.attention"):
        parse_config(config)


def test_shards_that_are_read_with_pickle_are_asked_about(tmp_path) -> None:
    for kind in ("FSDP", "DEEPSPEED"):
        with pytest.raises(GfvizError, match=rf"checkpoint-2: a checkpoint of {kind} is read with pickle"):
            trust.refuse_pickles(tmp_path / "checkpoint-2", kind)
        trust.refuse_pickles(tmp_path, kind, trusted=True)
    trust.refuse_pickles(tmp_path, "MULTI_CPU")


@pytest.mark.parametrize("name", [".model.new", ".model.old"])
def test_no_link_in_a_run_leads_the_model_elsewhere(zoo, tmp_path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "config.json").write_text("mine")
    run = create_run(parse_config(settings(zoo, tmp_path, teachers=(), training={"steps": 1})), sums())
    (run.path / name).symlink_to(victim)
    execute(run)
    assert (run.model_path / "model.safetensors").is_file()
    assert not run.model_path.is_symlink()
    assert {path.name: path.read_text() for path in victim.iterdir()} == {"config.json": "mine"}


def test_weights_that_are_not_finite_are_no_result(zoo, tmp_path, monkeypatch) -> None:
    def hot(config, run):
        arguments = training_arguments(config, run)
        arguments.learning_rate = 1e38
        return arguments

    monkeypatch.setattr(session, "training_arguments", hot)
    config = settings(zoo, tmp_path, teachers=(), training={"steps": 2, "max_bad_steps": 5})
    with pytest.raises(GfvizError, match="NaN or infinite"):
        fuse(config, train=sums())
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["state"] == "failed"
    assert not (run / "model").exists()
    assert not any((run / "checkpoints").iterdir())


@pytest.mark.parametrize("command", ["cache", "eval"])
def test_commands_run_a_models_code_where_it_is_typed(tmp_path, bringing_code, monkeypatch, capsys, command) -> None:
    model, mark = bringing_code
    write_examples(tmp_path / "e.jsonl", sums(2))
    out = ["--out", str(tmp_path / "c")] if command == "cache" else []
    monkeypatch.setattr(sys, "argv", ["gfviz", command, str(model), "--data", str(tmp_path / "e.jsonl"), *out])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "is not run unless you pass --trust-remote-code" in capsys.readouterr().err
    assert not mark.exists()
    # The class is a configuration's alone, so there is no model in the end; but its code has run.
    sys.argv.append("--trust-remote-code")
    with pytest.raises(SystemExit):
        main()
    assert mark.exists()
