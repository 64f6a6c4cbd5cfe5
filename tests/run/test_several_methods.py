"""A run that tunes a prompt and two methods, each with a learning rate of its own."""

import numpy as np
import pytest
import safetensors.numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from prompt_tuning import predict, tree
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params.names import is_added
from prompt_tuning.run import many_prompts
from tests import tiny_run
from tests.test_train import FILES, _builder
from tests.tiny_run import PROMPT_FILE

# Behind the method's own file, which takes the prompt away.
BOTH = (
    FILES[0],
    "--gin_file=prompt_tuning/configs/methods/ia3.gin",
    "--gin_file=prompt_tuning/configs/methods/several.gin",
    FILES[2],
    "--gin.METHODS=[@methods.IA3(), @queries/methods.IA3()]",
    "--gin.queries/methods.IA3.outputs=('query',)",
    "--gin.queries/methods.IA3.inputs=()",
    "--gin.PROMPT=@prompts.Prompt()",
    "--gin.trainer.Trainer.learning_rates_by_regex="
    "{'.*/ia3_scaling': @ia3/utils.create_learning_rate_scheduler()}",
    "--gin.ia3/utils.create_learning_rate_scheduler.base_learning_rate=0.003",
    # Saved all the same when it would be evaluated.
    "--gin.train.train.train_eval_dataset_cfg=None",
    "--gin.train.train.infer_eval_dataset_cfg=None",
)

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """MODEL_DIR of four steps."""
    model_dir = tmp_path_factory.mktemp("finished") / "run"
    with tiny_run.frozen_stays():
        _builder(inputs, model_dir)(files=BOTH).run()
    return model_dir


def _left(model_dir, step):
    """What a run left of a step, by path."""
    folder = model_dir / f"numpy_checkpoints/checkpoint_{step}"
    added = safetensors.numpy.load_file(folder / "method.safetensors")
    prompt = {PROMPT_FILE: np.load(folder / PROMPT_FILE)}
    return {name.replace(".", "/"): x for name, x in {**added, **prompt}.items()}


def test_all_of_them_are_trained_at_their_rates_and_left_and_nothing_else_is(finished):
    model_dir = finished
    first, last = _left(model_dir, 2), _left(model_dir, 4)
    factors = [path for path in last if path.endswith("ia3_scaling")]
    assert len(factors) == 8 + 3 and len(last) == 12
    stored = run_format.trainable_shapes(run_format.open_state(model_dir / "checkpoint_4"))
    assert set(stored) == set(last)
    # Updates have root mean squares of at most 1 before the rate.
    rms = {path: np.sqrt(np.mean((last[path] - first[path]) ** 2)) for path in last}
    assert all(0 < rms[path] <= 0.0061 for path in factors)
    assert rms["encoder/prompt/prompt/prompt"] > 0.05
    events = EventAccumulator(str(model_dir / "train"))
    events.Reload()
    rates = {
        tag: float(tensor_util.make_ndarray(events.Tensors(tag)[-1].tensor_proto))
        for tag in ("learning_rate", "learning_rate/.*/ia3_scaling")
    }
    assert list(rates.values()) == [pytest.approx(0.3), pytest.approx(0.003)]


def test_what_it_left_is_one_set_that_belongs_to_its_methods(finished):
    model_dir = finished
    run = predict.load_run(str(model_dir))
    left = _left(model_dir, 4)
    for path, x in tree.flatten(run.params).items():
        if is_added(path):
            np.testing.assert_array_equal(x, left[path])
    read = many_prompts.read(str(model_dir / "numpy_checkpoints/checkpoint_4"), run.model)
    assert set(read.added) | {"encoder/prompt/prompt/prompt"} == set(left)
    assert [m["name"] for m in read.info["method"]["methods"]] == ["IA3", "IA3"]


def test_other_rates_are_another_run_and_other_methods_take_no_file_of_it(inputs, finished):
    model_dir = finished
    other = "--gin.ia3/utils.create_learning_rate_scheduler.base_learning_rate=0.004"
    with pytest.raises(ConfigError, match="learning rates by regex"):
        _builder(inputs, model_dir)(files=(*BOTH, other)).run()
    one = (*BOTH[:2], *BOTH[3:4], f"--gin.METHOD_FILE='{model_dir}'")
    with pytest.raises(CheckpointError, match="not what the model's method adds"):
        _builder(inputs, model_dir.parent / "other")(files=one).run()


@pytest.mark.slow
def test_two_steps_and_two_more_equal_four(inputs, finished, tmp_path):
    run = _builder(inputs, tmp_path / "run")
    run(files=BOTH, TRAIN_STEPS_RELATIVE=2).run()
    run(files=BOTH).run()
    for path, x in _left(finished, 4).items():
        np.testing.assert_array_equal(_left(tmp_path / "run", 4)[path], x)
