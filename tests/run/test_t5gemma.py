"""A tiny T5Gemma on the ladder's vocabulary, end to end: made, tuned, killed and resumed, evaluated, used, exported."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_tuning import cli, train
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from tests.models.t5gemma.tiny import tiny_t5gemma, write_t5gemma
from tests.test_train import _prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays"),
]
MODEL = "ladder/t5gemma_nano.gin"
# Of `tiny_t5gemma`.
SIZES = {
    **{"NUM_ENCODER_LAYERS": 2, "NUM_DECODER_LAYERS": 2, "NUM_HEADS": 4, "NUM_KV_HEADS": 2},
    **{"HEAD_DIM": 8, "EMBED_DIM": 32, "MLP_DIM": 48, "WINDOW": 4, "QUERY_SCALAR": 6},
    "network.T5GemmaConfig.logits_softcap": 6.0,
}
FAMILIES = {
    "t5gemma": {"WINDOW_AHEAD": 3, "network.T5GemmaStack.attention_softcap": 5.0},
    "t5gemma2": {
        **{"ENCODER_WINDOW": 2, "WINDOW_AHEAD": 2},
        **{"network.T5GemmaConfig.merges_attention": True, "network.T5GemmaConfig.eoi_token": 200},
        **{"network.T5GemmaStack.attention_softcap": None},
        **{"network.T5GemmaStack.rope_theta": 1e6, "network.T5GemmaStack.rope_factor": 4.0},
    },
}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(params=FAMILIES)
def command(request):
    """Returns a function that runs `prompt-tuning COMMAND` with a gin file and bindings on a model of the family."""

    def run(command: str, file: str, **settings: object) -> None:
        settings = {"BATCH_SIZE": 8, **SIZES, **FAMILIES[request.param], **settings}
        flags = [f"--gin.{name}={value!r}" for name, value in settings.items()]
        argv = [command, f"--gin_file={MODEL}", f"--gin_file={file}", *flags]
        assert cli.main(argv) == 0

    run.family = request.param
    return run


def _base(command, tmp_path) -> str:
    """Weights to start from: pre-trained here, or of T5Gemma 2 as Hugging Face saves them."""
    if command.family == "t5gemma2":
        config = tiny_t5gemma(merges_attention=True, vocab_size=2048)
        return str(write_t5gemma(tmp_path / "t5gemma2", config))
    text = tmp_path / "text.txt"
    text.write_text("Ann has a dog, and the dog runs home to the house by the river.\n" * 200)
    settings = {"TRAIN_TEXT": [str(text)], "VALIDATION_TEXT": [str(text)], "TRAIN_STEPS": 3}
    command(
        "train",
        "ladder/pretrain.gin",
        **{**settings, "MODEL_DIR": str(tmp_path / "base"), "EVAL_STEPS": 1, "EVAL_PERIOD": 3},
    )
    return str(tmp_path / "base" / "checkpoint_3")


def test_a_model_is_made_tuned_killed_resumed_used_and_exported(command, tmp_path, monkeypatch):
    base = _base(command, tmp_path)
    task = {"MIXTURE_OR_TASK_NAME": "synthetic_sentiment", "PROMPT_LENGTH": 4}
    tuning = {
        **{**task, "INITIAL_CHECKPOINT_PATH": base, "CLASS_LABELS": ["negative", "positive"]},
        **{"TRAIN_STEPS_RELATIVE": 4, "EVAL_PERIOD": 4, "utils.SaveCheckpointConfig.period": 2},
        "train.train.train_eval_dataset_cfg": None,
        "train.train.infer_eval_dataset_cfg": None,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command("train", "ladder/prompt.gin", MODEL_DIR=str(whole), **tuning)

    def add(self, step, metrics):
        if step == 3:
            raise Killed
        return added(self, step, metrics)

    added = train.RunLog.add
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.RunLog, "add", add)
        command("train", "ladder/prompt.gin", MODEL_DIR=str(killed), **tuning)
    assert [path.name for path in killed.glob("checkpoint_*")] == ["checkpoint_2"]
    command("train", "ladder/prompt.gin", MODEL_DIR=str(killed), **tuning)
    prompt = _prompt(whole, 4)
    np.testing.assert_array_equal(prompt, _prompt(killed, 4))
    assert not np.array_equal(prompt, _prompt(whole, 2))

    # Used by the other commands, float32 as it was tuned.
    used = {
        **{"CHECKPOINT_PATH": str(whole / "checkpoint_4"), "PROMPT_LENGTH": 4},
        "utils.RestoreCheckpointConfig.dtype": "float32",
        "TASK_FEATURE_LENGTHS": {"inputs": 80, "targets": 4},
    }
    split = {
        **{"MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.synthetic", "EVALUATOR_NUM_EXAMPLES": 8},
        **{"utils.DatasetConfig.split": "validation", "EVAL_OUTPUT_DIR": str(tmp_path / "eval")},
    }
    command("eval", "runs/prompt_eval.gin", **{**used, **task, **split})
    metrics = (tmp_path / "eval/inference_eval/synthetic_sentiment-metrics.jsonl").read_text()
    assert 0 <= json.loads(metrics)["accuracy"] <= 100
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"inputs": "the song was good"}\n{"inputs": "a cold river"}\n')
    files = {"INFER_INPUT_FILE": str(lines), "INFER_OUTPUT_DIR": str(tmp_path / "infer")}
    command("infer", "runs/prompt_infer.gin", **used, **files)
    written = (tmp_path / "infer/lines-predict.jsonl-00000-of-00001").read_text().splitlines()
    assert [type(json.loads(line)["prediction"]) for line in written] == [str, str]

    # In a PEFT folder rows are what transformers takes: T5Gemma 1 scales them itself.
    adapter = tmp_path / "adapter"
    assert cli.main(["export", str(whole), str(adapter), "--format=peft"]) == 0
    (rows,) = load_file(adapter / "adapter_model.safetensors").values()
    scale = 32**0.5 if command.family == "t5gemma" else 1.0
    np.testing.assert_allclose(rows * scale, prompt, rtol=1e-6)
    np.testing.assert_allclose(load_prompt(adapter)[0], prompt, rtol=1e-6)
