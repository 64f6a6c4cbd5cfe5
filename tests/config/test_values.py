"""Values that mean nothing are refused before anything heavy is imported."""

import subprocess
import sys

import pytest

from prompt_tuning import infer
from prompt_tuning.config import files, flags, tables, values
from prompt_tuning.errors import ConfigError
from tests.gin_runs import DEMOS
from tests.helpers import REPO, tiny_config


def check(*bindings):
    values.check(files.read([], [(text, f"--gin.{text}") for text in bindings]))


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("utils.create_learning_rate_scheduler.base_learning_rate", "0", "0.3"),
        ("utils.create_learning_rate_scheduler.base_learning_rate", "-0.1", "1"),
        ("create_learning_rate_scheduler.base_learning_rate", "'0.3'", "1e-3"),
        ("create_learning_rate_scheduler.base_learning_rate", "1e999", "%RATE"),
        ("seqio.SentencePieceVocabulary.extra_ids", "-1", "0"),
        ("TRAIN_STEPS", f"{10**20}", "1_150_000"),
        ("TRAIN_STEPS", "2.5", "None"),
        ("TRAIN_STEPS_RELATIVE", "1e3", "1000"),
        ("EVAL_STEPS", "-1", "0"),
        ("PROMPT_LENGTH", f"{10**30}", "20"),
        ("DROPOUT_RATE", "-0.1", "0"),
        ("MODEL_DIR", "''", "'run'"),
        ("INFER_INPUT_FILE", "' '", "None"),
        ("train/utils.DatasetConfig.split", "''", "'train'"),
        ("CLASS_LABELS", "[]", "['a']"),
        ("CLASS_LABELS", "['a', '']", "('a', 'b')"),
        ("TRAINABLE_REGEX", "[]", "['.*']"),
        ("TASK_FEATURE_LENGTHS", "{}", "{'inputs': 8}"),
        ("utils.SaveCheckpointConfig.period", "0", "%gin.REQUIRED"),
        ("infer.num_shards", "0", "3"),
        ("train.train.trainer", "0", "@trainer.Trainer()"),
        ("utils.CheckpointConfig.save", "'x'", "None"),
        ("trainer.Trainer.num_microbatches", "0", "None"),
        ("LOSS_NORMALIZING_FACTOR", "0", "'NUM_REAL_TARGET_TOKENS'"),
        ("adafactor.Adafactor.decay_rate", "-1", "1"),
        ("tasks.from_files.label_map", "{}", "{0: 'a', 1: 'b'}"),
        ("tasks.from_files.inputs", "''", "'{text}'"),
    ],
)
def test_a_value_that_means_nothing_is_refused(name, bad, good):
    check(f"{name} = {good}")
    # A later binding is the one that counts.
    check(f"{name} = {bad}", f"{name} = {good}")
    with pytest.raises(ConfigError, match=f"{name} has a value of the wrong type .*Fix: correct"):
        check(f"{name} = {good}", f"{name} = {bad}")


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [("ACTIVATION_DTYPE", "'bfloat61'", "'bfloat16'"), ("infer.mode", "'predictt'", "'predict'")],
)
def test_what_is_none_of_a_few_texts_is_refused(name, bad, good):
    check(f"{name} = {bad}", f"{name} = {good}")
    with pytest.raises(ConfigError, match=f"{name} is unknown: .*Closest matches: {good[1:-1]}"):
        check(f"{name} = {bad}")


def test_the_few_texts_are_those_that_runs_take():
    assert tuple(tables.table("choices")["infer.mode"]) == infer.MODES
    for name in tables.table("choices")["ACTIVATION_DTYPE"]:
        assert tiny_config(dtype=name).dtype == name


@pytest.mark.parametrize("command", DEMOS)
def test_shipped_files_have_values_that_mean_something(command):
    gin_files, settings = DEMOS[command]
    bindings = [(f"{name} = {value}", name) for name, value in settings.items()]
    values.check(files.read(gin_files, bindings))
    assert len(tables.kinds()) > 60


def test_nothing_heavy_is_imported_before():
    code = "import sys; from prompt_tuning.config import values; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"jax", "tensorflow", "seqio", "flax"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "argv",
    [
        ["--process_count=0"],
        ["--process_index=-1"],
        ["--heartbeat_timeout=x"],
        ["--process_count=9999999999"],
    ],
)
def test_a_flag_that_counts_nothing_is_refused(argv, capsys):
    with pytest.raises(SystemExit) as error:
        flags.parse_run("train", argv)
    assert error.value.code == 2
    assert "is not a whole number >= " in capsys.readouterr().err
