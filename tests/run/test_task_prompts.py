"""A run with a prompt for each task: what it trains and leaves, and what each task's prompt is alone."""

import dataclasses
import importlib
import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import cli, predict, tree
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.data import registry
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.models.methods.mpt import MPT
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run import checks, many_prompts
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.start import load_for_inference
from tests import tiny_run
from tests.data.local_data import write_jsonl
from tests.test_train import FILES, _builder

TASKS = ["super_glue_cb_v102", "super_glue_rte_v102"]
MIXTURE = "cb_and_rte"
METHOD = "--gin_file=prompt_tuning/configs/methods/mpt.gin"
MPT_FILES = (FILES[0], FILES[1], METHOD, FILES[2], "--gin.ACTIVATION_DTYPE='float32'")
TEXTS = ["hypothesis: the mill premise: a river", "She reads."]
TARGETS = ["neutral", "entailment"]

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    made = tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))
    importlib.import_module("prompt_tuning.tasks.super_glue")
    registry.replace_mixture(MIXTURE, dict.fromkeys(TASKS, 1.0))
    return made


def _run(inputs, model_dir, **macros):
    settings = {"MIXTURE_OR_TASK_NAME": MIXTURE, "METHOD_TASKS": TASKS, "EVAL_PERIOD": 4, **macros}
    return _builder(inputs, model_dir)(files=MPT_FILES, **settings)


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("finished") / "run"
    with tiny_run.frozen_stays():
        results = _run(inputs, model_dir).run()
    assert set(TASKS) <= set(results)
    return model_dir


def test_a_task_alone_is_a_plain_prompt_bit_for_bit(inputs, finished, tmp_path, capsys):
    found = read_set(finished)
    shared, _ = load_prompt(finished / "numpy_checkpoints/checkpoint_4")
    assert {p.rpartition("/")[2]: x.shape for p, x in found.params.items()} == {
        "task_columns": (2, 4, 1),
        "task_rows": (2, 1, 32),
    }
    assert not any(np.array_equal(x, np.ones_like(x)) for x in found.params.values())
    assert "Trainable parameters: 200 " in (finished / "model-info.txt").read_text()
    run = predict.load_run(str(finished))
    plain = run.model.module.clone(method=None)
    for number, task in enumerate(TASKS):
        target = tmp_path / f"{task}.npy"
        assert cli.main(["export", str(finished), str(target), f"--task={task}"]) == 0
        prompt, info = load_prompt(target)
        columns, rows = (
            found.params[f"encoder/task_{name}"][number] for name in ("columns", "rows")
        )
        np.testing.assert_array_equal(prompt, shared * (columns * rows))
        assert info is not None and info["task"] == task and "method" not in info
        alone = _with_prompt(run, plain, prompt)
        np.testing.assert_array_equal(
            alone.score(TEXTS, TARGETS), run.score(TEXTS, TARGETS, [task] * 2)
        )
    mixed = run.score(TEXTS * 2, TARGETS * 2, np.repeat(TASKS, 2).tolist())
    each = [run.score(TEXTS, TARGETS, [task] * 2) for task in TASKS]
    np.testing.assert_allclose(mixed, np.concatenate(each), rtol=1e-5)
    assert not np.allclose(each[0], each[1], rtol=1e-3)

    # PEFT's folder holds both parts, and what belongs to a task there has its number.
    adapter = tmp_path / "adapter"
    assert cli.main(["export", str(finished), str(adapter), "--format=peft"]) == 0
    again = read_set(adapter)
    for path, x in {**found.params, PROMPT_PATH: shared}.items():
        stored = load_prompt(adapter)[0] if path == PROMPT_PATH else again.params[path]
        np.testing.assert_array_equal(stored, x)
    (tmp_path / "unnamed").mkdir()
    _without_names(adapter, tmp_path / "unnamed")
    target = tmp_path / "second.npy"
    assert cli.main(["export", str(tmp_path / "unnamed"), str(target), "--task=1"]) == 0
    np.testing.assert_array_equal(load_prompt(target)[0], prompt)

    for argv, text in (
        (["--task=cb"], "no plain prompt of this task: got '--task=cb'"),
        (["--task=super_glue_cb_v103"], "Closest matches: super_glue_cb_v102"),
    ):
        assert cli.main(["export", str(finished), str(tmp_path / "no.npy"), *argv]) == 2
        assert text in capsys.readouterr().err
    with pytest.raises(ConfigError, match="tasks of the inputs.*got '0 tasks of 2 inputs'"):
        run.score(TEXTS, TARGETS)
    with pytest.raises(ConfigError, match="--prompts gives rows prompts .* so does methods.MPT"):
        many_prompts.read(str(finished), run.model)
    packed = DatasetConfig(MIXTURE, run.lengths, "train", 8, pack=True)
    with pytest.raises(ConfigError, match="cannot be packed: got .* with methods.MPT"):
        checks.with_tasks(run.model, packed)
    with pytest.raises(CheckpointError, match="is a part of what methods.MPT puts in front"):
        _loaded(run, finished, mode="latest", method=None)
    with pytest.raises(CheckpointError, match=r"bind methods.MPT.tasks = \['super_glue_cb_v102'"):
        _loaded(run, inputs.checkpoint, mode="specific", method=MPT(str(finished), ("a", "b")))


def _with_prompt(run, module, prompt):
    model = dataclasses.replace(run.model, module=module)
    flat = {p: x for p, x in tree.flatten(run.params).items() if "/task_" not in p}
    params = tree.unflatten({**flat, PROMPT_PATH: prompt})
    inference = Inference(model, PjitPartitioner(), 8)
    return dataclasses.replace(run, model=model, params=params, inference=inference)


def _loaded(run, path, *, mode, method):
    """The run's model with another method, with what a checkpoint has."""
    module = run.model.module.clone(prompt=PromptConfig(4), method=method)
    model = dataclasses.replace(run.model, module=module)
    restore = RestoreCheckpointConfig(path=str(path), mode=mode)
    return load_for_inference(model, PjitPartitioner(), restore)


def _without_names(adapter, target):
    """The adapter as PEFT itself writes it, without what is recorded here."""
    tensors = safetensors.numpy.load_file(adapter / "adapter_model.safetensors")
    safetensors.numpy.save_file(tensors, target / "adapter_model.safetensors")
    config = (adapter / "adapter_config.json").read_text()
    (target / "adapter_config.json").write_text(config)


@pytest.mark.slow
def test_lines_of_one_file_name_their_tasks(inputs, finished, tmp_path):
    rows = [
        {"inputs": text, "targets": target, "task": task}
        for text, target in zip(TEXTS, TARGETS, strict=True)
        for task in TASKS
    ]
    path = write_jsonl(tmp_path / "mixed.jsonl", rows)
    settings = {
        "CHECKPOINT_PATH": str(finished),
        "INFER_OUTPUT_DIR": str(tmp_path / "out"),
        "INFER_INPUT_FILE": str(path),
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
        "METHOD_TASKS": TASKS,
        "PROMPT_LENGTH": 4,
        "BATCH_SIZE": 8,
        "ACTIVATION_DTYPE": "float32",
        "utils.RestoreCheckpointConfig.dtype": "float32",
        "utils.RestoreCheckpointConfig.mode": "latest",
        "infer.mode": "score",
    }
    files = (FILES[0], METHOD, "--gin_file=prompt_tuning/configs/runs/prompt_infer.gin")
    assert cli.main(["infer", *files, *inputs.flags(**settings)]) == 0
    (written,) = (tmp_path / "out").glob("*.jsonl-00000-of-00001")
    scores = [json.loads(line)["score"] for line in written.read_text().splitlines()]
    run = predict.load_run(str(finished))
    expected = run.score(np.repeat(TEXTS, 2).tolist(), np.repeat(TARGETS, 2).tolist(), TASKS * 2)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.slow
def test_two_steps_and_two_more_equal_four(inputs, finished, tmp_path):
    _run(inputs, tmp_path / "run", TRAIN_STEPS_RELATIVE=2).run()
    _run(inputs, tmp_path / "run").run()
    for path, x in read_set(finished).params.items():
        np.testing.assert_array_equal(read_set(tmp_path / "run").params[path], x)


@pytest.mark.slow
def test_attempt_is_trained_from_prompts_of_others_goes_on_and_knows_them_by_content(
    inputs, finished, tmp_path
):
    sources = [tmp_path / f"{step}.npy" for step in (2, 4)]
    for path, step in zip(sources, (2, 4), strict=True):
        np.save(path, step * load_prompt(finished / "numpy_checkpoints/checkpoint_4")[0])
    files = (*MPT_FILES[:2], METHOD.replace("mpt.gin", "attempt.gin"), *MPT_FILES[3:])
    settings = {
        "SOURCE_PROMPTS": list(map(str, sources)),
        "methods.Attempt.bottleneck": 3,
        "train.train.train_eval_dataset_cfg": None,
        "train.train.infer_eval_dataset_cfg": None,
    }
    run = _builder(inputs, tmp_path / "run")
    run(files=files, TRAIN_STEPS_RELATIVE=2, **settings).run()
    moved = [path.rename(path.with_suffix(".moved.npy")) for path in sources]
    settings["SOURCE_PROMPTS"] = list(map(str, moved))
    run(files=files, **settings).run()
    found = read_set(tmp_path / "run")
    assert found.info["step"] == 4
    assert {p.rpartition("/")[2]: x.shape for p, x in found.params.items()} == {
        "attempt_down": (32, 3),
        "attempt_up": (3, 32),
        "attempt_norm_scale": (32,),
        "attempt_norm_bias": (32,),
    }
    loaded = predict.load_run(str(tmp_path / "run"))
    scores = loaded.score(TEXTS, TARGETS)
    # Each by itself, in batches of another width.
    alone = [loaded.score([text], [target])[0] for text, target in zip(TEXTS, TARGETS, strict=True)]
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    moved[0].write_bytes(moved[1].read_bytes())
    with pytest.raises(ConfigError, match="made from something else: METHOD"):
        run(files=files, TRAIN_STEPS_RELATIVE=5, **settings).run()
