"""The authors' three demo command lines, with only the program replaced, on a tiny model and local data.

Of their flags only paths, the number of steps and the submesh differ; sizes, vocabulary and data folder are added.
"""

import json

import numpy as np
import pytest

from prompt_tuning import cli
from tests.tiny_run import EMB_DIM, PROMPT_FILE, STEP

TASK = "taskless_glue_sst2_v200_examples"
CONFIGS = "prompt_tuning/configs"
COMMON = {
    "MIXTURE_OR_TASK_NAME": TASK,
    "MIXTURE_OR_TASK_MODULE": "prompt_tuning.data.glue",
    "TASK_FEATURE_LENGTHS": {"inputs": 512, "targets": 8},
    "USE_CACHED_TASKS": False,
}


def _argv(command, model, files, inputs, tmp_path, **macros):
    shrunk = {"TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16}}
    return [
        command,
        "--gin_search_paths=/a/flaxformer,/a/prompt-tuning,/a/t5x",
        f"--gin_file={CONFIGS}/models/t5_1_1_{model}_prompt.gin",
        *(f"--gin_file={CONFIGS}/{name}" for name in files),
        *inputs.flags(**{**COMMON, **macros, **shrunk}),
        f"--tfds_data_dir={tmp_path}",
    ]


def _train_macros(inputs, model_dir):
    return {
        "CLASS_LABELS": ["positive", "negative"],
        "MODEL_DIR": str(model_dir),
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS": STEP + 2,
    }


TRAIN_FILES = ("prompts/from_class_labels.gin", "runs/prompt_finetune.gin")


def _check_left(model_dir):
    for name in (
        "config.gin",
        "model-info.txt",
        "checkpoint_2",
        "train",
        f"training_eval/{TASK}",
        f"inference_eval/{TASK}",
        f"inference_eval/{TASK}-metrics.jsonl",
        f"inference_eval/{TASK}-000002.jsonl",
        f"numpy_checkpoints/checkpoint_2/{PROMPT_FILE}.json",
    ):
        assert (model_dir / name).exists(), name
    prompt = np.load(model_dir / "numpy_checkpoints/checkpoint_2" / PROMPT_FILE)
    assert prompt.shape == (100, EMB_DIM)


@pytest.fixture(scope="module")
def base_run(inputs, tmp_path_factory):
    """MODEL_DIR of sst2-demo."""
    model_dir = tmp_path_factory.mktemp("base") / "run"
    argv = _argv(
        "train", "base", TRAIN_FILES, inputs, model_dir, **_train_macros(inputs, model_dir)
    )
    assert cli.main(argv) == 0
    return model_dir


def test_sst2_demo_trains_and_leaves_its_files(base_run):
    _check_left(base_run)


def test_sst2_demo_xxl_trains_over_a_submesh(inputs, tmp_path):
    macros = {
        **_train_macros(inputs, tmp_path / "run"),
        "BATCH_SIZE": 32,
        "partitioning.PjitPartitioner.model_parallel_submesh": (2, 1, 1, 2),
    }
    assert cli.main(_argv("train", "xxl", TRAIN_FILES, inputs, tmp_path, **macros)) == 0
    _check_left(tmp_path / "run")


def test_a_submesh_that_does_not_fit_names_those_that_do(inputs, tmp_path, capsys):
    macros = {
        **_train_macros(inputs, tmp_path / "run"),
        "partitioning.PjitPartitioner.model_parallel_submesh": (4, 4, 1, 2),
    }
    assert cli.main(_argv("train", "xxl", TRAIN_FILES, inputs, tmp_path, **macros)) == 2
    error = capsys.readouterr().err
    assert "(4, 4, 1, 2)" in error and "(8, 1, 1, 1)" in error and "Fix: " in error


def test_sst2_demo_eval_evaluates_a_prompt_file(inputs, base_run, tmp_path):
    prompt = base_run / "numpy_checkpoints/checkpoint_2" / PROMPT_FILE
    macros = {
        "EVAL_OUTPUT_DIR": str(tmp_path / "eval"),
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "utils.DatasetConfig.split": "validation",
        "utils.DatasetConfig.batch_size": 128,
        "PROMPT_FILE": str(prompt),
    }
    files = ("runs/prompt_eval.gin",)
    assert cli.main(_argv("eval", "base", files, inputs, tmp_path, **macros)) == 0
    left = tmp_path / "eval/inference_eval"
    metrics = [
        json.loads(line) for line in (left / f"{TASK}-metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in metrics] == [STEP]
    during = (base_run / "inference_eval" / f"{TASK}-metrics.jsonl").read_text().splitlines()
    assert metrics[0]["accuracy"] == json.loads(during[-1])["accuracy"]
    predictions = (left / f"{TASK}-{STEP}.jsonl").read_text().splitlines()
    assert len(predictions) == 16
    assert (tmp_path / "eval/config.gin").exists()
