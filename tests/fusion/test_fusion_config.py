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
        (changed(training={"steps": 10**23}), "training.steps"),
        (changed(training={"steps": 1 << 50_000}), "training.steps"),
        (changed(loss={"lambda": -(1 << 50_000)}), "loss.lambda"),
        (changed(training={"epochs": 1e300}), "training.epochs"),
        (changed(training={"steps": 5, "batch_size": 10**21}), "training.batch_size"),
        (changed(training={"steps": 5, "report_to": ["nonsense"]}), "training.report_to: 'nonsense' is unknown"),
        (changed(training={"steps": 5, "fsdp": "nonsense"}), "training.fsdp: 'nonsense' is unknown"),
        (changed(teachers=[{"name": "a", "model": "t", "weight": 1e308}]), "teachers.0.weight"),
        (changed(loss={"beta": 1e300}), "loss: beta must lie"),
        (changed(loss={"temperature": 1e-300}), "loss.temperature"),
        (changed(data={"train": ["a.jsonl", "a\0b"]}), "data.train: a text with a null byte"),
        (changed(runs="a\0b"), "runs: a text with a null byte"),
        (changed(runs="a\ud800"), "runs: Input should be a valid string"),
        (changed(pivot={"model": "a" * 5000}), "pivot.model: longer than any name is"),
        (changed(pivot={"model": f"models/{'é' * 128}/x"}), "pivot.model: longer than any name is"),
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


def test_every_number_has_an_end() -> None:
    """Without one a number overflows somewhere below: in SQLite, in float32, in a loop that never comes to its end."""
    schema = FusionConfig.model_json_schema()
    for name, model in [("", schema), *schema["$defs"].items()]:
        for key, field in model["properties"].items():
            for form in field.get("anyOf", [field]):
                if form.get("type") in ("integer", "number") and "const" not in form:
                    # The ranges of these are of a union, and checked by a validator.
                    checked = (name, key) in {("LossConfig", "lambda"), ("LossConfig", "beta")}
                    assert checked or {"maximum", "exclusiveMaximum"} & set(form), (name, key)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_shares_of_the_teachers_sum_to_one(weights: list[float]) -> None:
    teachers = [{"name": f"t{number}", "model": "t", "weight": weight} for number, weight in enumerate(weights)]
    shares = parse_config(changed(teachers=teachers)).teacher_weights()
    assert sum(shares.values()) == pytest.approx(1, rel=1e-12)
    for number, weight in enumerate(weights):
        assert shares[f"t{number}"] * sum(weights) == pytest.approx(weight, rel=1e-12)


def test_longest_names_are_taken() -> None:
    config = parse_config(changed(pivot={"model": f"/{'é' * 127}/{'a' * 255}"}, runs="/".join(["b" * 255] * 10)))
    assert len(config.runs) == 2559


def test_a_key_given_twice_is_refused_with_file_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: one\npivot: {model: x}\ntraining: {steps: 3}\nname: two\n")
    with pytest.raises(GfvizError, match=r"c\.yaml .*'name' stands in lines 1 and 4"):
        load_config(path)
