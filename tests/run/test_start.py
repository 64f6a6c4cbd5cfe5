"""Where parameters come from, where optimizer slots live, and that frozen weights are recognised."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from prompt_tuning import tree
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import source as prompt_source
from prompt_tuning.checkpoints.prompt_files import write as prompt_writer
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import int8
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.initializers import FromFile, Uniform
from prompt_tuning.run import start as initialization
from prompt_tuning.run.model_info import model_info
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.step import make_train_step
from tests.checkpoints.huggingface_writer import make_tensors, write_model
from tests.tiny_run import make_inputs, run_config

PROMPT = "encoder/prompt/prompt/prompt"
PROMPT_ONLY = (".*/prompt/.*",)


@functools.cache
def _model(spec=None, *, length=4, **overrides) -> EncoderDecoderModel:
    config = run_config(**{"dropout_rate": 0.0, **overrides})
    module = T5(config, PromptConfig(length, spec or Uniform(0.5)))
    vocabulary = seqio.ByteVocabulary()
    return EncoderDecoderModel(module, vocabulary, vocabulary)


def _initialize(
    model, model_dir, source, regex=PROMPT_ONLY, partitioner=None, tx=None, dtype="float32"
):
    return initialization.initialize(
        model,
        partitioner or PjitPartitioner(),
        tx or Adafactor().make(lambda step: 0.3),
        source=source,
        frozen_dtype=dtype,
        trainable_regex=regex,
        checkpointer=Checkpointer(model_dir),
        rng=jax.random.key(0),
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def saved(inputs, tmp_path_factory):
    """MODEL_DIR of a run whose checkpoint_5 holds a prompt of sevens; it also trains the relative biases."""
    model_dir = tmp_path_factory.mktemp("saved")
    regex = (*PROMPT_ONLY, ".*relpos_bias.*")
    start = _initialize(_model(), model_dir, open_source(str(inputs.checkpoint)), regex)
    flat = tree.flatten(start.state.trainable)
    assert len(flat) == 3
    flat[PROMPT] = jnp.full_like(flat[PROMPT], 7.0)
    checkpointer = Checkpointer(model_dir)
    state = start.state.replace(trainable=tree.unflatten(flat))
    checkpointer.save(5, state, {**start.metadata, "step": 5, "model_dir": str(model_dir)})
    checkpointer.close()
    return model_dir


def test_the_prompt_of_the_initial_checkpoint_wins_over_the_initializer(saved, tmp_path):
    start = _initialize(_model(), tmp_path, open_source(str(saved / "checkpoint_5")))
    np.testing.assert_array_equal(
        tree.flatten(start.state.trainable)[PROMPT], np.full((4, 32), 7.0)
    )
    assert start.metadata["initial_checkpoint_step"] == 5


def test_without_a_stored_prompt_the_initializer_makes_it(inputs, tmp_path):
    start = _initialize(_model(), tmp_path, open_source(str(inputs.checkpoint)))
    prompt = np.asarray(tree.flatten(start.state.trainable)[PROMPT])
    assert -0.5 <= prompt.min() < -0.3 and 0.3 < prompt.max() <= 0.5


def test_a_stored_prompt_of_another_length_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match="encoder/prompt/prompt/prompt"):
        _initialize(_model(length=6), tmp_path, open_source(str(saved / "checkpoint_5")))


def test_inference_takes_the_stored_prompt_and_knows_what_was_frozen(saved):
    restore = RestoreCheckpointConfig(path=str(saved / "checkpoint_5"))
    loaded = initialization.load_for_inference(_model(FromFile(None)), PjitPartitioner(), restore)
    np.testing.assert_array_equal(tree.flatten(loaded.params)[PROMPT], np.full((4, 32), 7.0))
    assert loaded.step == 5


@pytest.mark.parametrize("file_format", prompt_writer.FORMATS)
def test_an_exported_prompt_is_evaluated_on_its_own_weights_only(
    saved, inputs, tmp_path, file_format
):
    prompt, info = prompt_source.read_source(saved / "checkpoint_5")
    for name, digest in (("right", info["frozen_digest"]), ("wrong", "0")):
        target = tmp_path / f"{name}.{file_format}"
        recorded = {**info, "frozen_digest": digest}
        prompt_writer.write_prompt(target, prompt, recorded, file_format=file_format)
    restore = RestoreCheckpointConfig(path=str(inputs.checkpoint))

    def load(name, **sizes):
        model = _model(FromFile(str(tmp_path / f"{name}.{file_format}")), **sizes)
        return initialization.load_for_inference(model, PjitPartitioner(), restore)

    loaded = tree.flatten(load("right").params)[PROMPT]
    np.testing.assert_array_equal(loaded, np.full((4, 32), 7.0))
    with pytest.raises(CheckpointError, match="not those that prompt file .*wrong"):
        load("wrong")
    with pytest.raises(CheckpointError, match="got 'width 32', expected the model's width 16"):
        load("right", emb_dim=16)


def test_random_weights_need_no_checkpoint_and_fill_every_path(tmp_path):
    model = _model()
    start = _initialize(model, tmp_path, None, (".*",))
    assert sorted(tree.flatten(start.state.trainable)) == sorted(model.param_shapes)
    assert start.frozen == {} and start.metadata["frozen_digest"] is None


@pytest.mark.parametrize("scan_layers", [False, True])
def test_slots_of_a_parameter_are_sharded_like_it(scan_layers):
    model = _model(emb_dim=16, mlp_dim=32, scan_layers=scan_layers)
    partitioner = PjitPartitioner(num_partitions=2)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    tx = Adafactor(factored=False).make(lambda step: 0.3)
    state = initialization.abstract_state(tx, model.param_shapes, shardings, partitioner)
    split_params = sum("model" in str(s.spec) for s in shardings.values())
    slots = [x for x in jax.tree.leaves(state.opt_state) if "model" in str(x.sharding.spec)]
    assert len(slots) == split_params > 5
    for leaf in slots:
        leaf.sharding.shard_shape(leaf.shape)


def test_model_tuning_with_factored_slots_takes_two_steps_on_a_mesh(tmp_path):
    model = _model(emb_dim=128, mlp_dim=128, num_encoder_layers=1, num_decoder_layers=1)
    partitioner = PjitPartitioner(num_partitions=2)
    tx = Adafactor().make(lambda step: 1e-3)
    start = _initialize(model, tmp_path, None, (".*",), partitioner, tx)
    step = make_train_step(
        model.apply, tx, learning_rate_fn=lambda step: 1e-3, loss_config=model.loss_config
    )
    ids = np.ones((4, 4), np.int32)
    batch = partitioner.shard_batch(
        {
            "encoder_input_tokens": ids,
            "decoder_input_tokens": ids,
            "decoder_target_tokens": ids,
            "decoder_loss_weights": ids,
        }
    )
    out = (initialization.shardings_of(start.state), partitioner.replicated)
    with partitioner.activate():
        compiled = jax.jit(step, out_shardings=out).lower(start.state, {}, batch).compile()
    state = start.state
    for _ in range(2):
        state, metrics = compiled(state, {}, batch)
    assert int(state.step) == 2 and np.isfinite(float(metrics["loss"]))


def test_a_hugging_face_model_starts_a_run_whose_prompt_can_be_evaluated(tmp_path):
    folder = write_model(tmp_path / "model", make_tensors())
    source = open_source(folder)
    assert source.settings is not None
    model = _model(**source.settings)
    start = _initialize(model, tmp_path / "run", source)
    frozen = tree.flatten(start.frozen)
    assert len(frozen) == 38 and list(tree.flatten(start.state.trainable)) == [PROMPT]
    assert start.metadata["initial_checkpoint_step"] is None
    checkpointer = Checkpointer(tmp_path / "run")
    checkpointer.save(1, start.state, {**start.metadata, "step": 1})
    checkpointer.close()
    # Another activation computes something else with the same shapes, at the start of a run and of an evaluation.
    wrong = _model(**{**source.settings, "mlp_activations": ("silu", "linear")})
    with pytest.raises(CheckpointError, match=r"mlp_activations differs.*\('gelu', 'linear'\)"):
        _initialize(wrong, tmp_path / "wrong", source)
    restore = RestoreCheckpointConfig(path=str(tmp_path / "run" / "checkpoint_1"))
    loaded = initialization.load_for_inference(model, PjitPartitioner(), restore)
    assert loaded.step == 1 and set(tree.flatten(loaded.params)) == {*frozen, PROMPT}
    with pytest.raises(CheckpointError, match="mlp_activations differs"):
        initialization.load_for_inference(wrong, PjitPartitioner(), restore)


@pytest.fixture(scope="module")
def saved_int8(inputs, tmp_path_factory):
    """MODEL_DIR of a run on int8 weights that also trains one kernel."""
    model_dir = tmp_path_factory.mktemp("int8")
    regex = (*PROMPT_ONLY, "decoder/layers_0/mlp/wo/kernel")
    source = open_source(str(inputs.checkpoint))
    start = _initialize(_model(), model_dir, source, regex, dtype="int8")
    checkpointer = Checkpointer(model_dir)
    info = {**start.metadata, "step": 5, "model_dir": str(model_dir)}
    checkpointer.save(5, start.state, info)
    checkpointer.close()
    return model_dir, regex, start


def test_int8_holds_what_is_frozen_only(saved_int8):
    _, _, start = saved_int8
    trainable, frozen = tree.flatten(start.state.trainable), tree.flatten(start.frozen)
    assert {x.dtype.name for x in trainable.values()} == {"float32"} and len(trainable) == 2
    kernels = {p for p in frozen if int8.is_kernel(p)}
    assert {frozen[p].dtype.name for p in kernels} == {"int8"} and len(kernels) == 18
    scales = {p for p in frozen if int8.kernel_of(p) != p}
    assert scales == {int8.scale_path(p) for p in kernels}
    assert start.metadata["frozen_dtype"] == "int8"
    info = model_info(_model(), start.state.trainable, start.frozen)
    total = sum(int(np.prod(s.shape)) for s in _model().param_shapes.values())
    assert f"Total parameters: {total:,}" in info
    assert re.search(r"layers_0/mlp/wi_0/kernel_scale +\(64,\) +float32 +\('mlp',\) +frozen", info)


def test_shapes_of_int8_are_known_before_anything_is_loaded(saved_int8):
    _, regex, start = saved_int8
    frozen_paths = initialization.split_paths(_model(), regex)[1]
    held = initialization.held_shapes(_model(), PjitPartitioner(), frozen_paths, "int8")
    frozen = tree.flatten(start.frozen)
    assert set(held) == set(frozen)
    for path, leaf in held.items():
        found = (frozen[path].shape, frozen[path].dtype, frozen[path].sharding)
        assert found == (leaf.shape, leaf.dtype, leaf.sharding), path


def test_int8_weights_are_recognised(saved_int8, inputs):
    model_dir, regex, start = saved_int8
    source = open_source(str(inputs.checkpoint))
    again = _initialize(_model(), model_dir, source, regex, dtype="int8")
    assert again.resumed["frozen_digest"] == start.metadata["frozen_digest"]
    with pytest.raises(CheckpointError, match="held as float32 .*dtype = 'int8', as then"):
        _initialize(_model(), model_dir, source, regex)

    def load(dtype):
        restore = RestoreCheckpointConfig(path=str(model_dir / "checkpoint_5"), dtype=dtype)
        return initialization.load_for_inference(
            _model(FromFile(None)), PjitPartitioner(), restore
        ).params

    frozen = tree.flatten(start.frozen)
    loaded = tree.flatten(load("int8"))
    for path, leaf in frozen.items():
        np.testing.assert_array_equal(loaded[path], leaf, err_msg=path)
    with pytest.raises(CheckpointError, match="are not those .*dtype = 'int8', as then"):
        load("bfloat16")


def test_a_prompt_of_float_weights_needs_a_word_to_be_used_on_int8(saved, tmp_path):
    restore = RestoreCheckpointConfig(path=str(saved / "checkpoint_5"), dtype="int8")
    load = initialization.load_for_inference
    with pytest.raises(CheckpointError, match="without the .json file beside it") as caught:
        load(_model(FromFile(None)), PjitPartitioner(), restore)
    assert "dtype = 'float32', as then" in str(caught.value)
    np.save(tmp_path / "prompt.npy", np.full((4, 32), 7.0, np.float32))
    model = _model(FromFile(str(tmp_path / "prompt.npy")))
    params = tree.flatten(load(model, PjitPartitioner(), restore).params)
    np.testing.assert_array_equal(params[PROMPT], np.full((4, 32), 7.0))


@pytest.mark.slow
def test_random_weights_in_int8_are_those_of_the_same_seed_in_floats(tmp_path):
    floats, held = (
        tree.flatten(_initialize(_model(), tmp_path / dtype, None, dtype=dtype).frozen)
        for dtype in ("float32", "int8")
    )
    expected = int8.hold(floats, "int8")
    assert set(held) == set(expected)
    for path, leaf in expected.items():
        np.testing.assert_array_equal(held[path], leaf, err_msg=path)
