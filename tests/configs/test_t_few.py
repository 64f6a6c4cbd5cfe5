"""The shipped runs of T-Few resolve to its recipe."""

import pytest

from tests.gin_runs import CONFIGS, resolve


def resolved(run, **settings):
    files = [f"{CONFIGS}/models/t5_1_1_xl.gin", f"{CONFIGS}/runs/{run}.gin"]
    needed = {"MODEL_DIR": "'/runs/x'", "INITIAL_CHECKPOINT_PATH": "'/T0_3B'", **settings}
    found = resolve(files, needed)
    assert found.warnings == ()
    return found.arguments()


def check_optimizer(arguments, *, rate, warmup, steps):
    learning_rate = arguments["trainer"].learning_rate_fn
    found = [float(learning_rate(step)) for step in (0, warmup // 2, warmup, steps)]
    assert found == pytest.approx([0.0, rate / 2, rate, 0.0])
    optimizer = arguments["trainer"].optimizer
    assert optimizer.multiply_by_parameter_scale and optimizer.weight_decay_rate is None
    assert (optimizer.restored_step, optimizer.clipping_threshold) == (0, 1.0)
    assert optimizer.global_norm_clip_threshold == 1.0
    assert arguments["relative_steps"] == steps
    assert arguments["trainable_regex"] == [".*/ia3_scaling"]
    loss = arguments["model"].loss_config
    assert (loss.z_loss, loss.loss_normalizing_factor) == (0.0, "NUM_REAL_TARGET_TOKENS")


def test_the_recipe_is_t_fews():
    arguments = resolved("t_few", MIXTURE_OR_TASK_NAME="'few_shot_copa'")
    check_optimizer(arguments, rate=3e-3, warmup=60, steps=1000)
    choices = arguments["model"].loss_config.choices
    assert (choices.unlikelihood, choices.length_normalized, choices.length_norm) == (1, 1, 1)
    assert arguments["train_dataset_cfg"].batch_size == 8
    assert arguments["train_dataset_cfg"].task_feature_lengths["inputs"] == 256
    assert arguments["train_eval_dataset_cfg"] is None
    assert arguments["infer_eval_dataset_cfg"].task_feature_lengths["inputs"] == 256


def test_pre_training_learns_targets_alone():
    task = "'t0_train'"
    arguments = resolved("t_few_pretrain", MIXTURE_OR_TASK_NAME=task)
    check_optimizer(arguments, rate=3e-4, warmup=6000, steps=100_000)
    assert arguments["model"].loss_config.choices is None
    assert arguments["train_dataset_cfg"].batch_size == 16
    assert arguments["infer_eval_dataset_cfg"] is None
