import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints import load, paths
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.checkpoints.formats.run_source import RunSource
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.run_states import PROMPT, make_state, save_steps
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned, to_scanned


def test_single_checkpoint_can_be_read_without_orbax(tmp_path):
    save_steps(tmp_path, 1)
    path = tmp_path / "checkpoint_1"
    assert run_format.is_run_checkpoint(path)
    assert run_format.read_metadata(path) == {"step": 1}
    assert run_format.trainable_shapes(run_format.open_state(path)) == {
        PROMPT: ((5, 8), np.dtype("float32"))
    }
    expected = tree.flatten(make_state(1).trainable)[PROMPT]
    np.testing.assert_array_equal(run_format.open_state(path).read(f"trainable/{PROMPT}"), expected)
    with pytest.raises(CheckpointError, match="Cannot read .*metadata.*a complete checkpoint_"):
        run_format.read_metadata(tmp_path)


def save_run(directory, trainable, **metadata):
    state = {"step": jnp.int32(4), "trainable": tree.unflatten(trainable)}
    Checkpointer(directory).save(4, state, metadata)
    return directory / "checkpoint_4"


def load_all(source, model=None):
    """All that is stored, or the parameters of a model."""
    if model is None:
        shapes = {p: jax.ShapeDtypeStruct(s, d) for p, (s, d) in source.shapes().items()}
    else:
        shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in model.items()}
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    loaded = load.load_params(source, shapes, shardings, model_shapes=model and shapes)
    return {p: np.asarray(x) for p, x in loaded.items()}


def test_prompt_checkpoint_leads_to_its_frozen_weights(tmp_path):
    frozen = make_unscanned()
    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_100", frozen, 100)
    prompt = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    origin = {"initial_checkpoint_path": str(base), "frozen_digest": "ab"}
    path = save_run(tmp_path / "run", {PROMPT: jnp.asarray(prompt)}, **origin)
    source = open_source(path)
    assert (source.kind, source.step, source.frozen_digest) == ("run", 4, "ab")
    loaded = load_all(source)
    assert set(loaded) == {*frozen, PROMPT}
    for name, array in {**frozen, PROMPT: prompt}.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert open_source(tmp_path / "run", mode="latest").step == 4
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="frozen weights of .* cannot be opened") as error:
        open_source(path)
    for text in (str(base), "initial_checkpoint", "CHECKPOINT_PATH", "PROMPT_FILE"):
        assert text in str(error.value)


def test_model_tuning_checkpoint_stands_alone(tmp_path):
    params = make_unscanned()
    path = save_run(tmp_path, params, initial_checkpoint_path="/gone", frozen_digest=None)
    loaded = load_all(open_source(path))
    assert set(loaded) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_random_frozen_weights_are_an_error(tmp_path):
    prompt = {PROMPT: jnp.ones((3, 8))}
    path = save_run(tmp_path, prompt, initial_checkpoint_path=None, frozen_digest="ab")
    with pytest.raises(CheckpointError, match="stored nowhere"):
        open_source(path)


def test_newest_damaged_run_checkpoint_is_passed_over(tmp_path):
    params = make_unscanned()
    save_run(tmp_path, params, frozen_digest=None)
    (tmp_path / "checkpoint_9" / "state").mkdir(parents=True)
    assert open_source(tmp_path, mode="latest").step == 4


def save_prompt_run(root):
    """A run in root/runs/sst2 that started from root/t5/checkpoint_100."""
    base = write_t5x_checkpoint(root / "t5" / "checkpoint_100", make_unscanned(), 100)
    path = save_run(
        root / "runs" / "sst2",
        {PROMPT: jnp.ones((3, 8))},
        step=4,
        model_dir=str(root / "runs" / "sst2"),
        initial_checkpoint_path=str(base),
        frozen_digest="ab",
        trainable_regex=[".*/prompt/.*"],
    )
    return path, base


def assert_complete(source):
    loaded, frozen = load_all(source), make_unscanned()
    assert set(loaded) == {*frozen, PROMPT}
    for name, array in frozen.items():
        np.testing.assert_array_equal(loaded[name], array)


def test_what_a_run_trained_is_told(tmp_path):
    path, base = save_prompt_run(tmp_path)
    source = open_source(path)
    assert isinstance(source, RunSource)
    assert source.trainable_paths == frozenset({PROMPT})
    assert source.trainable_regex == (".*/prompt/.*",)
    assert open_source(base).trainable_paths == frozenset()
    tuned = open_source(save_run(tmp_path / "tuned", make_unscanned(), frozen_digest=None))
    assert isinstance(tuned, RunSource)
    assert tuned.trainable_paths == frozenset(make_unscanned())
    assert tuned.trainable_regex is None


def test_a_renamed_checkpoint_keeps_its_step(tmp_path):
    path, _ = save_prompt_run(tmp_path)
    for name in ("best", "best_9"):
        source = open_source(shutil.copytree(path, tmp_path / name))
        assert source.step == 4
        assert_complete(source)


def test_a_step_that_nothing_tells_is_an_error(tmp_path):
    path = save_run(tmp_path, make_unscanned(), frozen_digest=None)
    assert open_source(path).step == 4
    with pytest.raises(CheckpointError, match="step .* is unknown.*called best"):
        open_source(path.rename(tmp_path / "best"))


def test_local_paths_are_absolute(tmp_path, monkeypatch):
    path, base = save_prompt_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = open_source("runs/sst2/checkpoint_4")
    assert str(run.path) == str(path)
    assert str(open_source("t5/checkpoint_100").path) == str(base)
    assert str(open_source("runs/sst2", mode="latest").path) == str(path)
    assert str(paths.absolute("gs://bucket/t5")) == "gs://bucket/t5"


def test_weights_that_moved_with_the_run_are_found(tmp_path):
    save_prompt_run(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    path = tmp_path / "new" / "runs" / "sst2" / "checkpoint_4"
    assert_complete(open_source(path))
    (tmp_path / "new" / "t5").rename(tmp_path / "weights")
    with pytest.raises(CheckpointError, match="cannot be opened") as error:
        open_source(path)
    for root in ("old", "new"):
        assert str(tmp_path / root / "t5" / "checkpoint_100") in str(error.value)


def test_the_place_of_the_weights_can_be_given(tmp_path, monkeypatch):
    path, base = save_prompt_run(tmp_path)
    base.rename(tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    assert_complete(open_source(path, initial_checkpoint="weights"))
    with pytest.raises(CheckpointError, match="cannot be opened.*nowhere: No checkpoint"):
        open_source(path, initial_checkpoint="nowhere")


@pytest.mark.parametrize(
    ("path", "old_home", "home", "expected"),
    [
        ("/old/t5/c_1", "/old/runs/a", "/new/runs/a", "/new/t5/c_1"),
        ("/old/runs/a/init", "/old/runs/a", "/new", "/new/init"),
        ("gs://old/t5/c_1", "gs://old/runs/a", "gs://new/x/runs/a", "gs://new/x/t5/c_1"),
        ("gs://old/t5/c_1", "gs://old/runs/a", "/disk/runs/a", "/disk/t5/c_1"),
        ("gs://old/t5/c_1", "/old/runs/a", "/new/runs/a", None),
        ("t5/c_1", "/old/runs/a", "/new/runs/a", None),
    ],
)
def test_moved_along(path, old_home, home, expected):
    moved = paths.moved_along(path, old_home, home)
    assert (moved and str(moved)) == expected


@pytest.mark.parametrize("scanned_model", [False, True])
@pytest.mark.parametrize("scanned_run", [False, True])
@pytest.mark.parametrize("scanned_initial", [False, True])
def test_what_was_trained_wins_whatever_the_layouts(
    tmp_path, scanned_initial, scanned_run, scanned_model
):
    def in_layout(scanned):
        return to_scanned(make_unscanned()) if scanned else make_unscanned()

    def after_training(params):
        return {p: x + 1 if "mlp" in p or "relpos" in p else x for p, x in params.items()}

    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_9", in_layout(scanned_initial), 9)
    trained = after_training(in_layout(scanned_run))
    trained = {p: jnp.asarray(x) for p, x in trained.items() if "mlp" in p or "relpos" in p}
    path = save_run(tmp_path, trained, initial_checkpoint_path=str(base), frozen_digest="ab")
    wanted = after_training(in_layout(scanned_model))
    loaded = load_all(open_source(path), wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_a_stack_of_which_some_layers_were_trained_loads_layer_by_layer_only(tmp_path):
    params = make_unscanned()
    scanned = to_scanned(params)
    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_9", scanned, 9)
    name = "encoder/layers_1/mlp/wi_0/kernel"
    trained = {name: jnp.asarray(params[name] + 1)}
    path = save_run(tmp_path, trained, initial_checkpoint_path=str(base), frozen_digest="ab")
    source = open_source(path)
    with pytest.raises(CheckpointError, match="some of its layers once more.*layers_1"):
        load_all(source, scanned)
    loaded = load_all(source, params)
    np.testing.assert_array_equal(loaded[name], params[name] + 1)
    first = name.replace("layers_1", "layers_0")
    np.testing.assert_array_equal(loaded[first], params[first])
