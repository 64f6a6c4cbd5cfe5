"""Runs of methods whose parts are discarded after training, and of what is cheaper than a prompt: what they leave."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import cli, predict
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.initializers import FromFile
from prompt_tuning.run import many_prompts
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.start import load_for_inference
from tests import tiny_run
from tests.test_train import FILES, _builder

GIN = "--gin_file=prompt_tuning/configs/methods/{}.gin"
RESIDUAL = (
    FILES[0],
    FILES[1],
    GIN.format("residual"),
    FILES[2],
    "--gin.ACTIVATION_DTYPE='float32'",
)
# A residual prompt that stays near a text, of tokens with an update: three methods of which one leaves a file.
METHODS = "[@methods.Residual(), @methods.DePT(), @methods.Wayward()]"
SEVERAL = (
    FILES[0],
    *(GIN.format(name) for name in ("residual", "dept", "wayward", "several")),
    FILES[2],
    f"--gin.METHODS={METHODS}",
    "--gin.PROMPT_TEXT='She reads a book'",
)
# What is left of a step does not depend on how it is evaluated, which takes longer than the steps.
SIZES = {
    "methods.Residual.hidden": 5,
    "train.train.infer_eval_dataset_cfg": None,
    "train.train.train_eval_dataset_cfg": None,
}
TEXTS, TARGETS = ["hypothesis: the mill premise: a river", "She reads."], ["neutral", "entailment"]

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


def _prompt_of(folder):
    return load_prompt(folder)[0]


def test_a_residual_prompt_is_left_as_the_plain_prompt_that_it_is(inputs, tmp_path, capsys):
    model_dir = tmp_path / "run"
    with tiny_run.frozen_stays():
        _builder(inputs, model_dir)(files=RESIDUAL, TRAIN_STEPS_RELATIVE=2, **SIZES).run()
    left = model_dir / "numpy_checkpoints" / "checkpoint_2"
    names = {path.name for path in left.iterdir()}
    assert names == {tiny_run.PROMPT_FILE, f"{tiny_run.PROMPT_FILE}.json"}
    recorded = json.loads((left / f"{tiny_run.PROMPT_FILE}.json").read_text())
    assert "method" not in recorded and recorded["folded_from"]["name"] == "Residual"
    checkpoint = model_dir / "checkpoint_2"
    state = run_format.open_state(checkpoint)
    stored = run_format.trainable_shapes(state)
    assert len(stored) == 7 and stored["encoder/residual_down"][0] == (tiny_run.EMB_DIM, 5)
    assert not np.array_equal(state.read(run_format.TRAINABLE + PROMPT_PATH), _prompt_of(left))

    # Exported from either, it is the same prompt, and says nothing of a method.
    for number, source in enumerate((model_dir, checkpoint)):
        target = tmp_path / f"{number}.safetensors"
        assert cli.main(["export", str(source), str(target)]) == 0
        assert "warning" not in capsys.readouterr().err
        np.testing.assert_array_equal(_prompt_of(target), _prompt_of(left))

    # The run's own model and a plain one answer alike, to the bit.
    run = predict.load_run(str(model_dir))
    prompt = PromptConfig(len(_prompt_of(left)), FromFile(str(left)))
    plain = dataclasses.replace(
        run.model, module=run.model.module.clone(method=None, prompt=prompt)
    )
    restore = RestoreCheckpointConfig(path=str(inputs.checkpoint))
    loaded = load_for_inference(plain, PjitPartitioner(), restore)
    other = dataclasses.replace(
        run, model=plain, params=loaded.params, inference=Inference(plain, PjitPartitioner(), 8)
    )
    assert run.score(TEXTS, TARGETS) == other.score(TEXTS, TARGETS)

    # The prompt beside the MLP is not taken for the whole, and the whole is not changed once more.
    bare = dataclasses.replace(plain, module=plain.module.clone(prompt=run.model.prompt))
    with pytest.raises(CheckpointError, match="is a part of what methods.Residual puts"):
        load_for_inference(bare, PjitPartitioner(), RestoreCheckpointConfig(path=str(checkpoint)))
    build = _builder(inputs, tmp_path / "other")
    with pytest.raises(CheckpointError, match="is a part of what methods.Residual puts"):
        build(TRAIN_STEPS_RELATIVE=2, INITIAL_CHECKPOINT_PATH=str(checkpoint), **SIZES).run()
    twice = dataclasses.replace(run.model, module=run.model.module.clone(prompt=prompt))
    with pytest.raises(CheckpointError, match="leave the file of methods/ out"):
        load_for_inference(twice, PjitPartitioner(), restore)
    with pytest.raises(ConfigError, match="bind METHOD = None"):
        many_prompts.read(str(model_dir), run.model)


@pytest.mark.slow
def test_two_steps_and_two_more_equal_four_of_several_methods(inputs, tmp_path):
    folders = {name: tmp_path / name for name in ("whole", "halves")}
    # As many rows as the text has tokens.
    sizes = {**SIZES, "methods.DePT.rank": 2, "methods.DePT.max_length": 40, "PROMPT_LENGTH": 11}
    build = {name: _builder(inputs, folder) for name, folder in folders.items()}

    def run(name, steps):
        resolved = build[name](files=SEVERAL, TRAIN_STEPS_RELATIVE=steps, **sizes)
        resolved.run()

    run("whole", 4)
    run("halves", 2)
    run("halves", 4)
    left = [folder / "numpy_checkpoints" / "checkpoint_4" for folder in folders.values()]
    np.testing.assert_array_equal(_prompt_of(left[0]), _prompt_of(left[1]))
    one, other = (safetensors.numpy.load_file(folder / "method.safetensors") for folder in left)
    assert set(one) == set(other) == {"encoder.dept_a", "encoder.dept_b"}
    for name, x in one.items():
        np.testing.assert_array_equal(x, other[name])
        assert np.abs(x).max() > 0
    recorded = json.loads((left[0] / f"{tiny_run.PROMPT_FILE}.json").read_text())
    assert [m["name"] for m in recorded["method"]["methods"]] == ["DePT", "Wayward"]


def test_inputs_that_are_too_long_are_refused_before_anything_is_loaded(inputs, tmp_path):
    files = (FILES[0], GIN.format("dept"), FILES[2])
    with pytest.raises(ConfigError, match="bind methods.DePT.max_length = 32"):
        build = _builder(inputs, tmp_path / "run")
        build(files=files, **{"methods.DePT.max_length": 31}).run()
    assert not (tmp_path / "run" / "model-info.txt").exists()
