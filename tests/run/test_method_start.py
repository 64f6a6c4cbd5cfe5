"""A run that tunes a method: what it trains, leaves, goes on from, and how what it leaves is used."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import cli, predict, tree
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import is_added
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.method_start import arrays_of
from prompt_tuning.run.start import load_for_inference
from tests import tiny_run
from tests.data.local_data import write_jsonl
from tests.test_train import FILES, _builder

METHOD = "--gin_file=prompt_tuning/configs/methods/ia3.gin"
# The model, the method where a prompt's start would stand, and the run.
# In float32, so that what is merged can be compared with what is not.
IA3_FILES = (FILES[0], METHOD, FILES[2], "--gin.ACTIVATION_DTYPE='float32'")
LENGTHS = {"inputs": 32, "targets": 16}

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """MODEL_DIR of four steps."""
    model_dir = tmp_path_factory.mktemp("finished") / "run"
    with tiny_run.frozen_stays():
        _builder(inputs, model_dir)(files=IA3_FILES).run()
    return model_dir


def _saved(model_dir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    file = model_dir / "numpy_checkpoints" / f"checkpoint_{step}" / "method.safetensors"
    return safetensors.numpy.load_file(file)


def test_factors_are_trained_and_saved_and_nothing_else_is(finished):
    model_dir = finished
    names = {name for name in _saved(model_dir, 4)}
    assert len(names) == 8 and all(name.endswith(".ia3_scaling") for name in names)
    for name, x in _saved(model_dir, 4).items():
        assert not np.array_equal(x, np.ones_like(x)), name
    checkpoint = model_dir / "checkpoint_4"
    stored = run_format.trainable_shapes(run_format.open_state(checkpoint))
    assert {path.replace("/", ".") for path in stored} == names
    # Nearly all of it is what Orbax says of each array.
    assert sum(p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()) < 128 * 2**10
    info = (model_dir / "model-info.txt").read_text()
    assert info.count(" trainable ") == 8 and "Trainable parameters: 320 " in info
    recorded = read_set(model_dir).info
    assert recorded["step"] == 4 and recorded["metric"]["name"]
    assert recorded["method"] == {"name": "IA3", "outputs": ["key", "value"], "inputs": ["wo"]}


@pytest.mark.slow
def test_two_steps_and_two_more_equal_four(inputs, finished, tmp_path):
    run = _builder(inputs, tmp_path / "run")
    run(files=IA3_FILES, TRAIN_STEPS_RELATIVE=2).run()
    run(files=IA3_FILES).run()
    for name, x in _saved(finished, 4).items():
        np.testing.assert_array_equal(_saved(tmp_path / "run", 4)[name], x)


@pytest.mark.parametrize(
    ("recorded", "width", "text"),
    [
        (LoRA(rank=4).describe(), 32, "bind methods.LoRA.rank = 4"),
        (LoRA(alpha=2.0).describe(), 32, "bind methods.LoRA.alpha = 2.0"),
        (LoRA().describe(), 16, "of another model: 2 of 12 parameters differ"),
        (IA3().describe(), 32, "bind METHOD = @methods.IA3"),
    ],
)
def test_matrices_of_another_rank_scale_width_or_method_are_refused(recorded, width, text):
    module = T5(tiny_run.run_config(), method=LoRA())
    model = EncoderDecoderModel(module, None, None)
    params = {
        path: np.zeros((width, *x.shape[1:]) if "encoder/" in path else x.shape, np.float32)
        for path, x in model.param_shapes.items()
        if path.endswith("lora_a") or "lora_b" in path
    }
    params |= {p: np.zeros(model.param_shapes[p].shape, np.float32) for p in params if "_b" in p}
    with pytest.raises(CheckpointError, match=text):
        arrays_of(model, MethodSet(params, {"method": recorded}), "METHOD_FILE")


TEXTS = ["hypothesis: the mill premise: a river", "She reads."]
TARGETS = ["neutral", "entailment"]


def _added(run):
    return {p: np.asarray(x) for p, x in tree.flatten(run.params).items() if is_added(p)}


def over(folder, run, method=None, **config):
    """The run's model over the weights in another folder, with another method or architecture."""
    config = dataclasses.replace(run.model.config, **config)
    module = run.model.module.clone(method=method, config=config)
    model = dataclasses.replace(run.model, module=module)
    loaded = load_for_inference(model, PjitPartitioner(), RestoreCheckpointConfig(path=str(folder)))
    return dataclasses.replace(
        run,
        model=model,
        params=loaded.params,
        inference=Inference(model, PjitPartitioner(), 8),
    )


def test_what_it_left_answers_alike_exported_merged_and_in_the_other_layout(
    inputs, finished, tmp_path, capsys
):
    model_dir = finished
    run = predict.load_run(str(model_dir))
    expected = run.score(TEXTS, TARGETS)
    saved = {name.replace(".", "/"): x for name, x in _saved(model_dir, 4).items()}
    for path, x in _added(run).items():
        np.testing.assert_array_equal(x, saved[path])
    for target, flags in (("set.safetensors", []), ("adapter", ["--format=peft"])):
        assert cli.main(["export", str(model_dir), str(tmp_path / target), *flags]) == 0
        for path, x in read_set(tmp_path / target).params.items():
            np.testing.assert_array_equal(x, saved[path])
    source, base = str(model_dir / "checkpoint_4"), str(inputs.checkpoint)
    adapter = f"--merge={tmp_path / 'adapter'}"
    for name, argv in (("own", [source, "--merge", "--scan_layers"]), ("file", [base, adapter])):
        assert cli.main(["convert", argv[0], str(tmp_path / name), *argv[1:]]) == 0
        assert not [path for path in open_source(tmp_path / name).shapes() if is_added(path)]
    runs = [
        over(tmp_path / "own", run),
        over(tmp_path / "file", run),
        over(source, run, IA3(), scan_layers=True),
        over(base, run, IA3(path=str(tmp_path / "set.safetensors")), scan_layers=True),
    ]
    for other in runs:
        np.testing.assert_allclose(other.score(TEXTS, TARGETS), expected, rtol=0, atol=1e-4)
    untuned = over(base, run, IA3()).score(TEXTS, TARGETS)
    assert np.abs(np.subtract(untuned, expected)).max() > 0.01

    # What does not fit is refused, by name.
    set_file = str(tmp_path / "set.safetensors")
    with pytest.raises(CheckpointError, match="not those that method file .*set.safetensors"):
        over(tmp_path / "file", run, IA3(path=set_file))
    with pytest.raises(CheckpointError, match=r"bind methods.IA3.outputs = \['key', 'value'\]"):
        over(base, run, IA3(path=set_file, outputs=("key",)))
    assert cli.main(["convert", base, str(tmp_path / "int8"), "--dtype=int8"]) == 0
    for argv, text in (
        (["export", str(model_dir), str(tmp_path / "set.npy")], "A .npy file holds one array"),
        (["convert", str(tmp_path / "int8"), str(tmp_path / "no"), adapter], "got 'int8'"),
        (["convert", base, str(tmp_path / "no"), "--merge"], "No file of a method"),
    ):
        assert cli.main(argv) == 2
        assert text in capsys.readouterr().err


def _infer(inputs, output_dir, path, *flags, **macros):
    settings = {
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "INFER_OUTPUT_DIR": str(output_dir),
        "INFER_INPUT_FILE": str(path),
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 8,
        "ACTIVATION_DTYPE": "float32",
        "utils.RestoreCheckpointConfig.dtype": "float32",
        "infer.mode": "score",
        **macros,
    }
    files = (FILES[0], METHOD, "--gin_file=prompt_tuning/configs/runs/prompt_infer.gin")
    assert cli.main(["infer", *files, *inputs.flags(**settings), *flags]) == 0
    (path,) = output_dir.glob("*.jsonl-00000-of-00001")
    return [json.loads(line)["score"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_lines_of_one_file_take_sets_of_their_own(inputs, finished, tmp_path):
    steps = {f"step{step}": finished / f"numpy_checkpoints/checkpoint_{step}" for step in (2, 4)}
    rows = [
        {"inputs": text, "targets": target, "task": task}
        for text, target in zip(TEXTS, TARGETS, strict=True)
        for task in steps
    ]
    path = write_jsonl(tmp_path / "mixed.jsonl", rows)
    flag = "--prompts=" + ",".join(f"{name}={folder}" for name, folder in steps.items())
    mixed = _infer(inputs, tmp_path / "mixed", path, flag)
    for number, (name, folder) in enumerate(steps.items()):
        alone = _infer(inputs, tmp_path / name, path, METHOD_FILE=str(folder))
        np.testing.assert_allclose(mixed[number::2], alone[number::2], rtol=1e-5)
        assert not np.allclose(mixed[1 - number :: 2], alone[number::2], rtol=1e-5)
