import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints import initial, run_format
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.errors import CheckpointError
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.run_states import PROMPT, make_state, save_steps
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned


def test_single_checkpoint_can_be_read_without_orbax(tmp_path):
    save_steps(tmp_path, 1)
    path = tmp_path / "checkpoint_1"
    assert run_format.is_run_checkpoint(path)
    assert run_format.read_metadata(path) == {"step": 1}
    assert run_format.read_trainable(path) == {PROMPT: ((5, 8), np.dtype("float32"))}
    expected = tree.flatten(make_state(1).trainable)[PROMPT]
    np.testing.assert_array_equal(run_format.read_leaf(path, f"trainable/{PROMPT}"), expected)
    with pytest.raises(CheckpointError, match="Cannot read the checkpoint"):
        run_format.read_leaf(path, "trainable/other")
    with pytest.raises(CheckpointError, match="Cannot read the checkpoint"):
        run_format.read_metadata(tmp_path)


def save_run(directory, trainable, **metadata):
    state = {"step": jnp.int32(4), "trainable": tree.unflatten(trainable)}
    Checkpointer(directory).save(4, state, metadata)
    return directory / "checkpoint_4"


def load_all(source):
    shapes = {p: jax.ShapeDtypeStruct(s, d) for p, (s, d) in source.shapes().items()}
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    return {p: np.asarray(x) for p, x in initial.load_params(source, shapes, shardings).items()}


def test_prompt_checkpoint_leads_to_its_frozen_weights(tmp_path):
    frozen = make_unscanned()
    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_100", frozen, 100)
    prompt = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    origin = {"initial_checkpoint_path": str(base), "frozen_digest": "ab"}
    path = save_run(tmp_path / "run", {PROMPT: jnp.asarray(prompt)}, **origin)
    source = initial.open_source(path)
    assert (source.kind, source.step, source.frozen_digest) == ("run", 4, "ab")
    loaded = load_all(source)
    assert set(loaded) == {*frozen, PROMPT}
    for name, array in {**frozen, PROMPT: prompt}.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert initial.open_source(tmp_path / "run", mode="latest").step == 4
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="frozen weights of .* cannot be opened.*PROMPT_FILE"):
        initial.open_source(path)


def test_model_tuning_checkpoint_stands_alone(tmp_path):
    params = make_unscanned()
    path = save_run(tmp_path, params, initial_checkpoint_path="/gone", frozen_digest=None)
    loaded = load_all(initial.open_source(path))
    assert set(loaded) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_random_frozen_weights_are_an_error(tmp_path):
    prompt = {PROMPT: jnp.ones((3, 8))}
    path = save_run(tmp_path, prompt, initial_checkpoint_path=None, frozen_digest="ab")
    with pytest.raises(CheckpointError, match="stored nowhere"):
        initial.open_source(path)


def test_newest_damaged_run_checkpoint_is_passed_over(tmp_path):
    params = make_unscanned()
    save_run(tmp_path, params, frozen_digest=None)
    (tmp_path / "checkpoint_9" / "state").mkdir(parents=True)
    assert initial.open_source(tmp_path, mode="latest").step == 4
