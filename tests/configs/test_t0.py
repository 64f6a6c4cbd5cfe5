"""The gin files of T0: the recipe in full and in miniature, and sweeps whose cells resolve."""

import pytest

from prompt_tuning.commands.sweep import expansion
from prompt_tuning.launch.studies import t0
from tests.gin_runs import CHECKPOINT, CONFIGS, resolve

RUN = {"MODEL_DIR": "'/runs/t0'", "INITIAL_CHECKPOINT_PATH": f"'{CHECKPOINT}'"}
# A task in place of T0's mixture, whose templates do not come with the package.
TASK = {"MIXTURE_OR_TASK_NAME": "'synthetic_rte'"}


def test_training_is_t0s_recipe():
    files = [f"{CONFIGS}/models/t5_1_1_xl.gin", f"{CONFIGS}/runs/t0_finetune.gin"]
    resolved = resolve(files, {**RUN, **TASK})
    arguments = resolved.arguments()
    cfg, trainer = arguments["train_dataset_cfg"], arguments["trainer"]
    assert resolved.warnings == ()
    assert (cfg.batch_size, cfg.pack) == (1024, True)
    assert cfg.task_feature_lengths == {"inputs": 1024, "targets": 256}
    assert arguments["relative_steps"] == 12_200 and trainer.num_microbatches == 2
    assert trainer.learning_rate_fn(12_000) == pytest.approx(1e-3)
    assert trainer.optimizer.multiply_by_parameter_scale is True
    assert arguments["train_eval_dataset_cfg"] is arguments["infer_eval_dataset_cfg"] is None
    assert arguments["model"].prompt is None and arguments["model"].config.dtype == "bfloat16"
    assert arguments["model"].config.dropout_rate == 0.1


def test_evaluation_is_in_float32_on_validation():
    files = [f"{CONFIGS}/models/t5_1_1_xl.gin", f"{CONFIGS}/runs/t0_eval.gin"]
    settings = {"CHECKPOINT_PATH": f"'{CHECKPOINT}'", "EVAL_OUTPUT_DIR": "'/eval'", **TASK}
    resolved = resolve(files, settings, "eval")
    arguments = resolved.arguments()
    assert resolved.warnings == ()
    assert arguments["model"].config.dtype == arguments["restore_checkpoint_cfg"].dtype == "float32"
    cfg = arguments["dataset_cfg"]
    assert (cfg.split, cfg.task_feature_lengths["inputs"]) == ("validation", 1024)


def test_the_miniature_is_the_same_run_on_the_ladder():
    files = [f"{CONFIGS}/paper/sizes/micro.gin", f"{CONFIGS}/ladder/t0_finetune.gin"]
    resolved = resolve(files, {"MODEL_DIR": "'/runs/t0'", "RANDOM_SEED": "0"})
    arguments = resolved.arguments()
    assert resolved.warnings == () and arguments["model"].prompt is None
    assert arguments["train_dataset_cfg"].pack and arguments["train_dataset_cfg"].batch_size == 16
    assert arguments["checkpoint_cfg"].restore.path.endswith("micro/adapted/checkpoint_1200")
    assert arguments["relative_steps"] == 800


def test_the_sweeps_start_where_the_runs_end(tmp_path):
    """Before the training there is no seed; after it there is a checkpoint a seed."""
    flags = [(f"T0_DIR = '{tmp_path}'", f"--gin.T0_DIR='{tmp_path}'")]
    starts = {}
    for name in t0.SWEEPS:
        sweep, others = expansion.read_sweep(f"{CONFIGS}/ladder/{name}.gin", "mini", flags)
        cells = expansion.combine(sweep, "mini", others)
        of_task = [cell for cell in cells if cell.axes["task"] == "wsc"]
        assert len(of_task) == 6
        for cell in of_task:
            arguments = expansion.resolve(cell, "/out").arguments()
            is_eval = cell.command == "eval"
            restore = (
                arguments["restore_checkpoint_cfg"]
                if is_eval
                else arguments["checkpoint_cfg"].restore
            )
            starts.setdefault((name, cell.axes["start"]), set()).add(restore.path)
    for name in t0.SWEEPS:
        (adapted,) = starts[name, "adapted"]
        assert adapted.endswith("micro/adapted/checkpoint_1200")
        expected = {f"{tmp_path}/seed_{seed}/checkpoint_800" for seed in t0.SEEDS}
        assert starts[name, "prompted"] == expected
