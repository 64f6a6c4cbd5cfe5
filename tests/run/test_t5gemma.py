"""A tiny T5Gemma, end to end: tuned by the shipped gin files, resumed, decoded, scored and exported."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning import cli, predict
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.params.names import PROMPT_PATH
from tests import tiny_run
from tests.models.t5gemma.tiny import tiny_t5gemma, write_t5gemma
from tests.test_train import FILES, _builder, _prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays"),
]
# Those of `tiny_t5gemma`.
SETTINGS = {
    **{"NUM_KV_HEADS": 2, "NUM_ENCODER_LAYERS": 2, "NUM_DECODER_LAYERS": 2, "MLP_DIM": 48},
    **{"WINDOW": 4, "WINDOW_AHEAD": 3, "QUERY_SCALAR": 6, "ACTIVATION_DTYPE": "float32"},
    "network.T5GemmaStack.attention_softcap": 5.0,
    "network.T5GemmaConfig.logits_softcap": 6.0,
}


def test_a_prompt_is_tuned_resumed_used_and_exported(tmp_path):
    inputs = tiny_run.make_inputs(tmp_path)
    base = write_t5gemma(tmp_path / "t5gemma-tiny", tiny_t5gemma())
    files = ("--gin_file=prompt_tuning/configs/models/t5gemma_prompt.gin", *FILES[1:])
    settings = {
        **{**SETTINGS, "INITIAL_CHECKPOINT_PATH": str(base)},
        "train.train.train_eval_dataset_cfg": None,
        "utils.SaveCheckpointConfig.period": 2,
    }
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    _builder(inputs, whole)(files=files, **settings).run()
    for steps in (2, 4):
        _builder(inputs, parted)(files=files, TRAIN_STEPS_RELATIVE=steps, **settings).run()
    prompt = _prompt(whole, 4)
    np.testing.assert_array_equal(prompt, _prompt(parted, 4))
    assert not np.array_equal(prompt, _prompt(whole, 2))
    stored = run_format.trainable_shapes(run_format.open_state(whole / "checkpoint_4"))
    assert set(stored) == {PROMPT_PATH}

    run = predict.load_run(str(whole))
    assert jax.tree.map(type, run.model.config.ids) and run.model.config.ids.start == 2
    texts = ["the river runs past the old mill", "a good book"]
    answers = run.predict(texts)
    assert len(answers) == 2 and np.isfinite(run.score(texts, ["true", "false"])).all()

    adapter = tmp_path / "adapter"
    assert cli.main(["export", str(whole), str(adapter), "--format=peft"]) == 0
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and config["token_dim"] == 32
    (rows,) = load_file(adapter / "adapter_model.safetensors").values()
    np.testing.assert_allclose(rows * np.sqrt(32), prompt, rtol=1e-6)
    np.testing.assert_allclose(load_prompt(adapter)[0], prompt, rtol=1e-6)
