"""What holds of a run of every method: what it leaves alone, what it saves, that it goes on as it was, and its files.

`test_method_start.py` looks closer at one of them; a new method gets a line in `CASES`.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest

from prompt_tuning import cli, predict
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.params.names import is_added, is_prompt
from tests import tiny_run
from tests.run.test_method_start import TARGETS, TEXTS, over
from tests.test_train import FILES, _builder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays"),
]

WITHOUT_EVALUATION = {
    "train.train.train_eval_dataset_cfg": None,
    "train.train.infer_eval_dataset_cfg": None,
}
# Gin file of `configs/methods` -> bindings.
CASES: dict[str, dict[str, Any]] = {
    "lora": {
        "methods.LoRA.targets": ("encoder/.*/query", ".*/wo"),
        "methods.LoRA.rank": 2,
        "methods.LoRA.alpha_pattern": ((".*/wo", 3.0),),
        "methods.LoRA.dropout": 0.1,
    },
    "prefix": {
        "methods.Prefix.length": 3,
        "methods.Prefix.hidden": 4,
        "methods.Prefix.places": ("decoder",),
    },
    "deep_prompt": {"PROMPT_LENGTH": 3},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.parametrize("name", CASES)
def test_a_run_leaves_the_weights_saves_its_own_goes_on_and_is_used_alike(inputs, tmp_path, name):
    method = f"--gin_file=prompt_tuning/configs/methods/{name}.gin"
    files = (FILES[0], method, FILES[2], "--gin.ACTIVATION_DTYPE='float32'")
    settings = {**CASES[name], **WITHOUT_EVALUATION, "utils.SaveCheckpointConfig.period": 2}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    with tiny_run.frozen_stays():
        _builder(inputs, whole)(files=files, **settings).run()
        for steps in (2, 4):
            _builder(inputs, parted)(files=files, TRAIN_STEPS_RELATIVE=steps, **settings).run()
    states = [run_format.open_state(folder / "checkpoint_4") for folder in (whole, parted)]
    stored = run_format.trainable_shapes(states[0])
    assert stored and all(map(is_added, stored))
    before = read_set(whole / "numpy_checkpoints/checkpoint_2").params
    for path in stored:
        here, there = (state.read(run_format.TRAINABLE + path) for state in states)
        np.testing.assert_array_equal(here, there)
        assert path not in before or not np.array_equal(before[path], here), path
    assert " trainable " in (whole / "model-info.txt").read_text()

    run = predict.load_run(str(whole))
    expected = run.score(TEXTS, TARGETS)
    kind = kinds.of_set(read_set(whole)) or kinds.Kind(name)
    set_file, adapter = tmp_path / "set.safetensors", tmp_path / "adapter"
    has_prompt = any(map(is_prompt, stored))
    # Of a run that tuned a prompt too, its folder is the prompt.
    saved = "numpy_checkpoints/checkpoint_4/method.safetensors" if has_prompt else ""
    assert cli.main(["export", str(whole / saved), str(set_file)]) == 0
    if kind.encode_adapter:
        assert cli.main(["export", str(whole / saved), str(adapter), "--format=peft"]) == 0
        for path, x in read_set(set_file).params.items():
            np.testing.assert_array_equal(read_set(adapter).params[path], x)
    assert run.model.method is not None
    # What only training needs is not in the file.
    used = {key: x for key, x in read_set(set_file).info[METHOD].items() if key != "name"}
    tuned = dataclasses.replace(run.model.method, path=str(set_file), **used)
    weights = whole / "checkpoint_4" if has_prompt else inputs.checkpoint
    runs = [over(weights, run, tuned, scan_layers=True)]
    if kind.change_kernel:
        merged = ["convert", str(whole / "checkpoint_4"), str(tmp_path / "merged"), "--merge"]
        assert cli.main([*merged, "--scan_layers"]) == 0
        runs.append(over(tmp_path / "merged", run))
    for other in runs:
        np.testing.assert_allclose(other.score(TEXTS, TARGETS), expected, rtol=0, atol=1e-4)
