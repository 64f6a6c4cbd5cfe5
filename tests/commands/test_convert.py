"""Converted weights are the original's in every respect: values, digest, step, and what a run recorded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints import digest, placement
from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands import convert
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import int8
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.identity import steps_of_this_run
from tests import both_layouts
from tests.checkpoints.huggingface_writer import make_tensors, write_model
from tests.checkpoints.run_states import PROMPT
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned, to_scanned
from tests.models.t5gemma.tiny import random_params, tiny_t5gemma, write_t5gemma


def load(source, params, dtype="float32"):
    shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in params.items()}
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    return initial.load_params(source, shapes, shardings, dtype=dtype, model_shapes=shapes)


def assert_same(loaded, expected):
    assert list(loaded) == list(expected) and len(loaded) > 5
    for path, array in expected.items():
        assert loaded[path].dtype == array.dtype, path
        np.testing.assert_array_equal(np.asarray(loaded[path]), array, err_msg=path)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_t5x_checkpoint(tmp_path, capsys, dtype, stored_scanned, scan_layers):
    params = make_unscanned()
    original = write_t5x_checkpoint(
        tmp_path / "checkpoint_100", to_scanned(params) if stored_scanned else params, 100
    )
    flags = [f"--dtype={dtype}"] if dtype else []
    flags += ["--scan_layers"] if scan_layers else []
    convert.main([str(original), str(tmp_path / "w"), *flags])
    count = sum(x.size for x in (to_scanned(params) if scan_layers else params).values())
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'w'}: {count:,} parameters, ")

    source = open_source(tmp_path / "w")
    assert isinstance(source, weights.WeightsSource)
    assert both_layouts.is_scanned(source.shapes()) == scan_layers
    assert {d.name for _, d in source.shapes().values()} == {dtype or "float32"}
    expected = {p: x.astype(jnp.dtype(dtype or "float32")) for p, x in params.items()}
    assert_same(load(source, params, dtype or "float32"), expected)
    assert_same(load(source, to_scanned(params), dtype or "float32"), to_scanned(expected))
    # A prompt that was trained on the original fits.
    assert source.digest == digest.params_digest(params)
    # TRAIN_STEPS includes the steps of the original.
    assert steps_of_this_run(130, None, source) == 30


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_hugging_face_model(tmp_path, stored):
    write_model(tmp_path / "hf", make_tensors(stored))
    original = open_source(tmp_path / "hf")
    convert.main([str(tmp_path / "hf"), str(tmp_path / "w")])
    source = open_source(tmp_path / "w")
    expected = {path: original.read(path).astype(np.float32) for path in original.shapes()}
    assert source.step is None and set(source.shapes()) == set(expected)
    assert_same(load(source, expected), expected)
    assert source.settings is not None and original.settings is not None
    assert dict(source.settings) == json.loads(json.dumps(original.settings))


@pytest.mark.parametrize("merges_attention", [False, True])
def test_t5gemma_with_its_layers_stacked(tmp_path, merges_attention):
    config = tiny_t5gemma(merges_attention=merges_attention)
    original = open_source(write_t5gemma(tmp_path / "hf", config))
    convert.main([str(original.path), str(tmp_path / "w"), "--scan_layers"])
    source = open_source(tmp_path / "w")
    assert both_layouts.is_scanned(source.shapes())
    assert source.settings == original.settings
    assert_same(load(source, random_params(config)), random_params(config))


def test_checkpoint_of_a_run(tmp_path):
    frozen = make_unscanned()
    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_100", frozen, 100)
    # No bfloat16 number is near.
    prompt = np.full((3, 8), 1.001, np.float32)
    metadata = {
        "step": 4,
        "initial_checkpoint_path": str(base),
        "frozen_digest": digest.params_digest(frozen),
        "config_digest": "cd",
    }
    state = {"step": jnp.int32(4), "trainable": tree.unflatten({PROMPT: jnp.asarray(prompt)})}
    Checkpointer(tmp_path / "run").save(4, state, metadata)
    original = str(tmp_path / "run" / "checkpoint_4")
    convert.main([original, str(tmp_path / "w"), "--dtype=bfloat16"])
    base.rename(tmp_path / "gone")

    source = open_source(tmp_path / "w")
    assert isinstance(source, weights.WeightsSource)
    assert source.frozen_digest == metadata["frozen_digest"]
    assert source.metadata == metadata
    assert source.trainable_paths == {PROMPT}
    # The steps of a run of this program are not pre-training.
    assert source.step == 4 and steps_of_this_run(130, None, source) == 130
    shapes = source.shapes()
    assert {path for path, (_, d) in shapes.items() if d == np.float32} == {PROMPT}
    np.testing.assert_array_equal(source.read(PROMPT), prompt)
    rounded = {p: x.astype(jnp.bfloat16) for p, x in frozen.items()}
    assert_same({p: source.read(p) for p in frozen}, rounded)
    again = load(source, {**frozen, PROMPT: prompt}, "bfloat16")
    assert digest.params_digest({p: again[p] for p in frozen}) == source.frozen_digest


def test_tables_of_their_own_stay_apart(tmp_path):
    params = make_unscanned()
    table = params.pop("encoder/relpos_bias/rel_embedding")
    for i in range(2):
        params[f"encoder/layers_{i}/relpos_bias/rel_embedding"] = table + np.float32(i)
    scanned = to_scanned(params)
    for name, stored, wanted, flags in (
        ("a", scanned, params, []),
        ("b", params, scanned, ["--scan_layers"]),
    ):
        original = write_t5x_checkpoint(tmp_path / name / "checkpoint_1", stored, 1)
        convert.main([str(original), str(tmp_path / name / "w"), *flags])
        source = open_source(tmp_path / name / "w")
        assert set(source.shapes()) == set(wanted)
        assert_same(load(source, wanted), wanted)


def test_a_stopped_conversion_cannot_be_loaded(tmp_path, monkeypatch):
    original = write_t5x_checkpoint(tmp_path / "checkpoint_1", make_unscanned(), 1)
    (original / "target.token_embedder.embedding" / "1.0").unlink()
    target = tmp_path / "w"
    with pytest.raises(CheckpointError, match="Cannot read token_embedder/embedding"):
        convert.main([str(original), str(target)])
    for attempt in (open_source, lambda path: convert.main([str(original), str(path)])):
        with pytest.raises(CheckpointError, match="is unfinished"):
            attempt(target)


def test_weights_are_converted_one_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "_MIN_IN_FLIGHT_BYTES", 512)
    monkeypatch.setattr(placement, "_MAX_IN_FLIGHT_BYTES", 512)
    original = write_t5x_checkpoint(tmp_path / "checkpoint_1", make_unscanned(), 1)
    live, most = [0], [0]
    make = placement._empty

    def counted(box, dtype):
        array = make(box, dtype)
        live[0] += array.nbytes
        most[0] = max(most[0], live[0])
        return array

    class Writer(weights.WeightsWriter):
        def write(self, path, array):
            super().write(path, array)
            live[0] -= array.nbytes

    monkeypatch.setattr(placement, "_empty", counted)
    monkeypatch.setattr(weights, "WeightsWriter", Writer)
    convert.main([str(original), str(tmp_path / "w")])
    total = sum(x.nbytes for x in make_unscanned().values())
    assert live == [0] and most[0] <= 512 + 2 * 512 < total


@pytest.mark.parametrize("scan_layers", [False, True])
def test_int8_is_what_a_run_would_have_made_at_load(tmp_path, scan_layers):
    params = make_unscanned()
    original = write_t5x_checkpoint(tmp_path / "checkpoint_100", params, 100)
    target, again = tmp_path / "w", tmp_path / "again"
    flags = ["--dtype=int8", "--scan_layers"] if scan_layers else ["--dtype=int8"]
    convert.main([str(original), str(target), *flags])
    held = int8.hold(params, "int8")
    # Converted once more, in the other layout, without asking for int8.
    convert.main([str(target), str(again), *([] if scan_layers else ["--scan_layers"])])
    for path in (target, again):
        source = open_source(path)
        assert isinstance(source, weights.WeightsSource)
        for expected in (held, to_scanned(held)):
            shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in expected.items()}
            shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
            loaded = initial.load_params(source, shapes, shardings, dtype="int8")
            assert_same(loaded, expected)
        assert source.digest == digest.params_digest(held) != digest.params_digest(params)
    assert both_layouts.is_scanned(open_source(target).shapes()) == scan_layers


def test_int8_keeps_the_prompt_and_does_not_become_float_again(tmp_path, capsys):
    params = {**make_unscanned(), PROMPT: np.full((3, 8), 1.001, np.float32)}
    original = write_t5x_checkpoint(tmp_path / "checkpoint_100", params, 100)
    convert.main([str(original), str(tmp_path / "w"), "--dtype=int8"])
    count = sum(x.size for x in params.values())
    assert f": {count:,} parameters, " in capsys.readouterr().out
    source = open_source(tmp_path / "w")
    np.testing.assert_array_equal(source.read(PROMPT), params[PROMPT])
    with pytest.raises(CheckpointError, match="the weights do not come back"):
        convert.main([str(tmp_path / "w"), str(tmp_path / "b"), "--dtype=bfloat16"])
    assert not (tmp_path / "b").exists()
