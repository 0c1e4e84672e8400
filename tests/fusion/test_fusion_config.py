"""Mistakes in a configuration are told in one line that names the key."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gfviz.errors import GfvizError
from gfviz.fusion.config import FusionConfig, Schedule, load_config, parse_config

GOOD = {"pivot": {"model": "p"}, "training": {"steps": 5}, "teachers": [{"name": "a", "model": "t"}]}


def changed(**values) -> dict:
    return {**GOOD, **values}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (changed(training={"steps": 5, "batch_size": 0}), "training.batch_size"),
        (changed(training={"steps": 5, "bach_size": 4}), "training.bach_size: unknown key"),
        (changed(training={}), "training: give exactly one of steps and epochs"),
        (changed(training={"steps": "many"}), "training.steps"),
        (changed(pivot={}), "pivot.model: is missing"),
        (changed(loss={"lambda": 1.5}), "loss: lambda must lie"),
        (changed(loss={"lambda": float("nan")}), "loss.lambda"),
        (changed(loss={"token": "uuld"}), "loss.token"),
        (changed(teachers=[{"name": "../x", "model": "t"}]), "teachers.0.name"),
        (changed(teachers=[{"name": "a", "model": "t"}] * 2), "teachers: each needs a name"),
        (changed(mode="pairwise"), "pairwise needs at least two"),
        (changed(data={"answers_from": "b"}), "data.answers_from"),
        (changed(version=2), "version"),
        (changed(seed=-1), "seed"),
    ],
)
def test_errors_name_the_key(data: dict, key: str) -> None:
    with pytest.raises(GfvizError) as caught:
        parse_config(data)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    config = load_config(path, ["loss.lambda=0.25", "teachers.0.weight=3", "data.train=[a.jsonl]", "name=x y"])
    assert config.loss.lam == 0.25
    assert config.teachers[0].weight == 3
    assert config.data.train == ["a.jsonl"]
    assert parse_config(config.to_mapping()) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.to_mapping()))) == config


@pytest.mark.parametrize(
    "override", ["loss.lambda", "=1", "teachers.4.weight=1", "name.x=1", "teachers.a.weight=1", "loss.beta=[", "a..b=1"]
)
def test_bad_overrides(override: str) -> None:
    with pytest.raises(GfvizError):
        parse_config(GOOD, [override])


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "!!python/object/apply:os.system ['true']", "\x00", "a: &a [*a]"])
def test_unreadable_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(GfvizError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(GfvizError, match="cannot read"):
        load_config(tmp_path / "absent.yaml")


@given(st.floats(0, 1), st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 1))
@settings(max_examples=50, deadline=None)
def test_schedule_stays_between_its_ends(progress: float, start: float, end: float, over: float) -> None:
    for shape in ("linear", "cosine"):
        schedule = Schedule(start=start, end=end, over=over, shape=shape)
        low, high = min(start, end), max(start, end)
        assert low - 1e-9 <= schedule.at(progress) <= high + 1e-9
        assert schedule.at(0) == start
        assert schedule.at(1) == pytest.approx(end)


def test_schema_serves_a_form() -> None:
    schema = FusionConfig.model_json_schema()
    for name in ("TrainingConfig", "LossConfig", "TeacherConfig", "EvaluationConfig", "GraphConfig"):
        for key, field in schema["$defs"][name]["properties"].items():
            assert field.get("title"), key
            assert field.get("description"), key
