"""The configuration in the words of transformers: what that refuses is one line with our key."""

from pathlib import Path

import pytest

from gfviz.errors import GfvizError
from gfviz.fusion.arguments import training_arguments
from gfviz.fusion.config import parse_config
from gfviz.fusion.fields import REPORTERS, SHARDING
from gfviz.runs import RunDirectory


def arguments(tmp_path: Path, **training: object):
    config = parse_config({"pivot": {"model": "x"}, "training": {"steps": 3, "device": "cpu", **training}})
    return training_arguments(config, RunDirectory(tmp_path)), config


def test_words_that_the_schema_takes_are_those_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_utils import FSDPOption

    assert set(REPORTERS) == set(INTEGRATION_TO_CALLBACK)
    assert set(SHARDING) == {option.value for option in FSDPOption}


@pytest.mark.parametrize("training, key", [
    ({"deepspeed": "nowhere.json"}, "training.deepspeed"),
    ({"fsdp": "no_shard"}, "training.fsdp: "),
    ({"fsdp": "full_shard", "fsdp_config": {"version": [1]}}, "training.fsdp_config"),
    ({"fsdp": "full_shard", "fsdp_config": {"xla": True, "xla_fsdp_settings": 3}}, "training.fsdp_config"),
    ({"report_to": ["dagshub"]}, "training.report_to: not installed here: dagshub"),
])  # fmt: skip
def test_what_transformers_refuses_names_the_key(tmp_path: Path, training: dict, key: str) -> None:
    with pytest.raises(GfvizError) as caught:
        arguments(tmp_path, **training)
    assert str(caught.value).startswith(key)
    assert "\n" not in str(caught.value)


def test_a_refused_deepspeed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    with pytest.raises(GfvizError) as caught:
        arguments(tmp_path, deepspeed="nowhere.json")
    # Loading a model asks this; whoever keeps the error keeps what transformers had half made.
    assert not is_deepspeed_zero3_enabled(), caught


def test_the_configuration_is_not_written_into(tmp_path: Path) -> None:
    given = {"fsdp_transformer_layer_cls_to_wrap": ["Layer"], "version": 2}
    made, config = arguments(tmp_path, fsdp="full_shard", fsdp_config=given)
    assert made.fsdp_config["transformer_layer_cls_to_wrap"] == ["Layer"]
    assert config.training.fsdp_config == {"fsdp_transformer_layer_cls_to_wrap": ["Layer"], "version": 2}


def test_largest_numbers_reach_transformers_whole(tmp_path: Path) -> None:
    made, _ = arguments(tmp_path, steps=10**9, batch_size=2**20, accumulation=2**20, learning_rate=1e3)
    assert (made.max_steps, made.per_device_train_batch_size, made.learning_rate) == (10**9, 2**20, 1e3)
