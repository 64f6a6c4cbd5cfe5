"""A run that starts from the source that `similarity` names, by the flags that it prints."""

import shlex

import numpy as np
import pytest

from prompt_tuning import cli, train
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.params.names import PROMPT_PATH
from tests.tiny_run import EMB_DIM

LENGTH = 4


@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_the_printed_flags_start_a_run_from_the_best_source(inputs, tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(LENGTH, EMB_DIM)).astype(np.float32)
    tuned = target + 0.1 * rng.normal(size=target.shape).astype(np.float32)
    prompts = {"target": target, "mnli": tuned, "other": -target}
    for name, prompt in prompts.items():
        write.save_prompts(tmp_path / name, 9, {PROMPT_PATH: prompt}, {"task": name})
    named = [f"{name}={tmp_path / name}" for name in prompts]
    assert cli.main(["similarity", *named, "--target=target"]) == 0
    printed = capsys.readouterr().out
    text = printed[printed.index("start from mnli: ") :].replace("\\\n", " ")
    flags = [word for word in shlex.split(text) if word.startswith("--")]
    assert len(flags) == 3
    macros = inputs.flags(
        MODEL_DIR=str(tmp_path / "run"),
        MIXTURE_OR_TASK_NAME="taskless_super_glue_cb_v102",
        MIXTURE_OR_TASK_MODULE="prompt_tuning.tasks.super_glue",
        TASK_FEATURE_LENGTHS={"inputs": 32, "targets": 16},
        INITIAL_CHECKPOINT_PATH=str(inputs.checkpoint),
        TRAIN_STEPS_RELATIVE=1,
        EVAL_STEPS=1,
        BATCH_SIZE=8,
        RANDOM_SEED=3,
    )
    files = [
        f"--gin_file=prompt_tuning/configs/{name}.gin"
        for name in ("models/t5_1_1_small_prompt", "runs/prompt_finetune")
    ]
    parsed = parse_run("train", [files[0], flags[0], files[1], *flags[1:], *macros])
    started = []
    monkeypatch.setattr(train, "loop", lambda run, *args, **kwargs: started.append(run))
    resolve.resolve(
        config_files.read(parsed.gin_file, parsed.bindings, []), train.train, command="train"
    ).run()
    (run,) = started
    prompt = run.state.trainable["encoder"]["prompt"]["prompt"]["prompt"]
    np.testing.assert_array_equal(np.asarray(prompt), tuned)
    recorded = run.metadata["initial_prompt"]
    assert recorded["path"] == str(tmp_path / "mnli" / "numpy_checkpoints" / "checkpoint_9")
    assert (recorded["task"], recorded["step"]) == ("mnli", 9)
    assert str(recorded["path"]) in (tmp_path / "run" / "config.gin").read_text()
