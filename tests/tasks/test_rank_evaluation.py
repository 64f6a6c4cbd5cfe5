"""The `eval` command over a ranked task: SeqIO has the model score every label."""

import json

import numpy as np
import pytest

from prompt_tuning import cli
from tests import tiny_run

LENGTHS = {"inputs": 32, "targets": 16}


@pytest.mark.slow
def test_eval_scores_every_label_of_an_untuned_prompt(tmp_path):
    inputs = tiny_run.make_inputs(tmp_path, validation=10)
    np.save(tmp_path / "prompt.npy", np.ones((4, 32), np.float32))
    task = "taskless_super_glue_cb_v102_rank"
    settings = {
        "MIXTURE_OR_TASK_NAME": task,
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "EVAL_OUTPUT_DIR": str(tmp_path / "out"),
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
        "PROMPT_FILE": str(tmp_path / "prompt.npy"),
        "utils.DatasetConfig.split": "validation",
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_eval.gin")
    argv = ["eval", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
    assert cli.main(argv) == 0
    (path,) = (tmp_path / "out" / "inference_eval").glob(f"{task}-metrics.jsonl")
    metrics = json.loads(path.read_text().splitlines()[0])
    # Ten examples, and an answer that is always a label.
    assert metrics["accuracy"] in [10.0 * right for right in range(11)]
    assert 0.0 <= metrics["mean_3class_f1"] <= 100.0
