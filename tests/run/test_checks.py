"""What runs check alike, before anything is loaded."""

import types
from typing import Any, cast

import pytest

from prompt_tuning.data import batches
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.models.t5 import T5
from prompt_tuning.run import checks
from tests.tiny_run import run_config


def test_a_task_without_a_validation_split_is_told_how_to_train(monkeypatch):
    for name in ("_check_method", "split_paths", "check_microbatches", "check_data"):
        monkeypatch.setattr(checks, name, lambda *args, **kwargs: ([], []))
    monkeypatch.setattr(batches, "splits_of", lambda cfg: cfg.has)
    any_of: Any = types.SimpleNamespace
    trainer = any_of(check_paths=lambda paths: None)

    def check(split, has):
        cfg = any_of(split=split, has=has, mixture_or_task_name="a_task", batch_size=8)
        checks.check_training(any_of(), any_of(), trainer, [cfg, cfg], [".*"])

    with pytest.raises(DataError) as error:
        check("validation", ["train"])
    for name in ("infer_eval_dataset_cfg", "train_eval_dataset_cfg"):
        assert f"--gin.train.train.{name}=None" in str(error.value)
    # Where there is another split, `check_data` names it.
    check("validation", ["test", "train"])
    check("train", ["train"])


def test_a_method_without_a_place_is_told_before_that_nothing_is_trainable():
    method, unused = LoRA(targets=(".*/qeury",)), cast(Any, None)
    model = EncoderDecoderModel(T5(run_config(), method=method), None, None)
    with pytest.raises(ConfigError, match="targets matches no linear map .* got '.\\*/qeury'"):
        checks.check_training(model, unused, unused, [], [".*/lora_[ab]"])


def test_a_warning_is_said_once(caplog):
    checks.warn(["3 of 4 targets are cut", "b", "3 of 4 targets are cut"])
    assert caplog.text.count("3 of 4 targets are cut") == 1 and "b" in caplog.text
