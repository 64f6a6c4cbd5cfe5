"""Checks of small settings, and the closest matches of a name."""

from typing import Any

import pytest

from prompt_tuning.checkpoints.config import (
    CheckpointConfig,
    RestoreCheckpointConfig,
    SaveCheckpointConfig,
)
from prompt_tuning.data.evaluation import EvaluatorConfig
from prompt_tuning.errors import ConfigError, closest_matches
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.trainer import Trainer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RestoreCheckpointConfig("/x", mode="lastest"), "mode.*Closest matches: latest"),
        (lambda: RestoreCheckpointConfig("/x", dtype="float16"), "dtype.*'bfloat16'"),
        (lambda: SaveCheckpointConfig(period=0), "SaveCheckpointConfig.period"),
        (lambda: SaveCheckpointConfig(keep=True), "SaveCheckpointConfig.keep.*or None"),
        (lambda: Trainer(Adafactor(), lambda step: step, num_microbatches=0), "num_microbatches"),
        (lambda: EvaluatorConfig(num_examples=-1), "num_examples"),
        (lambda: EvaluatorConfig(json_write_n_results=-1), "JSON_WRITE_N_RESULTS"),
    ],
)
def test_a_wrong_setting_names_itself(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_restore_none_is_a_restore_without_a_path():
    nothing: Any = None
    assert CheckpointConfig(restore=nothing).restore == RestoreCheckpointConfig(path=None)
    with pytest.raises(ConfigError, match=r"CheckpointConfig.save is not set"):
        CheckpointConfig(save=nothing)


def test_none_means_all():
    assert EvaluatorConfig(json_write_n_results=0).num_examples is None
    assert SaveCheckpointConfig(keep=None).keep is None


def test_a_name_in_the_wrong_case_is_still_the_same_name():
    names = ["decode_rate", "Adafactor", "BATCH_SIZE"]
    assert closest_matches("batch_size", names) == ["BATCH_SIZE"]
    assert closest_matches("adafactr", names) == ["Adafactor"]
    assert closest_matches("nothing like it", names) == []
