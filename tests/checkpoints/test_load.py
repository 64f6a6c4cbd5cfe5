import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import digest
from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params import int8
from prompt_tuning.params.names import EMBEDDING, PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.memory_source import MemorySource
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import logical_axes, make_unscanned, to_scanned
from tests.helpers import SHARED, requires_shared


def to_shapes(params):
    return {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in params.items()}


def replicated(params):
    return dict.fromkeys(params, PjitPartitioner().replicated)


def load(source_params, target_params, **kwargs):
    source = MemorySource(source_params)
    shapes = to_shapes(target_params)
    loaded = initial.load_params(source, shapes, replicated(target_params), **kwargs)
    assert sorted(source.reads) == sorted(set(source.reads)), "an array was read twice"
    return loaded, source


def assert_same(loaded, expected):
    assert list(loaded) == list(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(np.asarray(loaded[path]), array, err_msg=path)


@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("model_scanned", [False, True])
def test_any_layout_loads_into_any_layout(stored_scanned, model_scanned):
    params = make_unscanned()
    stored = to_scanned(params) if stored_scanned else params
    wanted = to_scanned(params) if model_scanned else params
    loaded, source = load(stored, wanted, model_shapes=wanted)
    assert_same(loaded, wanted)
    assert sorted(source.reads) == sorted(stored)


def test_some_parameters_read_only_what_they_need():
    params = make_unscanned()
    some = {p: x for p, x in params.items() if "layers_1/" in p}
    loaded, source = load(params, some, model_shapes=params)
    assert_same(loaded, some)
    assert sorted(source.reads) == sorted(some)
    loaded, source = load(to_scanned(params), some, model_shapes=params)
    assert_same(loaded, some)
    assert len(source.reads) == len(some) == 4


def test_arrays_land_sharded():
    params = make_unscanned()
    shardings = PjitPartitioner(num_partitions=4).param_shardings(logical_axes(params), params)
    source = MemorySource(params)
    loaded = initial.load_params(source, to_shapes(params), shardings)
    assert_same(loaded, params)
    assert all(loaded[p].sharding == shardings[p] for p in params)
    kernel = loaded["encoder/layers_0/mlp/wi_0/kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(8, 4)}


def test_dtype_by_name_and_by_path():
    params = make_unscanned()
    loaded, _ = load(params, params, dtype="bfloat16")
    assert_same(loaded, {p: x.astype(jnp.bfloat16) for p, x in params.items()})
    loaded, _ = load(params, params, dtype=lambda p: "float32" if "norm" in p else "bfloat16")
    kept = [p for p, x in loaded.items() if x.dtype == jnp.float32]
    assert kept == [p for p in params if "norm" in p] and len(kept) == 3
    with pytest.raises(ConfigError, match="dtype is unknown.*float16"):
        load(params, params, dtype="float16")


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_half_precision_is_widened_before_it_is_rounded(stored):
    params = {p: x.astype(jnp.dtype(stored)) for p, x in make_unscanned().items()}
    for dtype in ("float32", "bfloat16"):
        loaded, _ = load(params, params, dtype=dtype)
        assert {x.dtype.name for x in loaded.values()} == {dtype}
        assert_same(
            loaded, {p: x.astype(np.float32).astype(jnp.dtype(dtype)) for p, x in params.items()}
        )


def test_missing_parameter_is_an_error():
    params = make_unscanned()
    wanted = {**params, "encoder/prompt/prompt/prompt": np.ones((3, 8), np.float32)}
    with pytest.raises(CheckpointError, match="1 of 12 parameters differ.*encoder/prompt.*missing"):
        load(params, wanted)


def test_a_setting_that_would_mend_the_shapes_is_named():
    params = {**make_unscanned(), PROMPT_PATH: np.ones((3, 8), np.float32)}
    longer = {**params, PROMPT_PATH: np.ones((5, 8), np.float32)}
    with pytest.raises(CheckpointError, match=r"Fix: bind PROMPT_LENGTH = 3\.$"):
        load(params, longer)
    table = params[EMBEDDING]
    wider = {**longer, EMBEDDING: np.concatenate([table, table])}
    with pytest.raises(CheckpointError) as error:
        load(params, wider)
    assert str(error.value).endswith(
        f"Fix: bind NUM_EMBEDDINGS = {len(table)} and PROMPT_LENGTH = 3."
    )
    other = {**params, PROMPT_PATH: np.ones((5, 9), np.float32)}
    with pytest.raises(CheckpointError, match="use the model gin file"):
        load(params, other)


@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("model_scanned", [False, True])
def test_another_size_is_an_error_before_anything_is_read(stored_scanned, model_scanned):
    params = make_unscanned()
    wider = {p: np.concatenate([x, x]) for p, x in params.items()}
    stored = to_scanned(wider) if stored_scanned else wider
    wanted = to_scanned(params) if model_scanned else params
    source = MemorySource(stored)
    with pytest.raises(CheckpointError, match="another size or model: ") as error:
        initial.load_params(source, to_shapes(wanted), replicated(wanted))
    assert source.reads == []
    assert "[32, 8]" in str(error.value) and "[16, 8]" in str(error.value)


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint16"])
def test_arrays_that_are_no_weights_are_an_error_before_anything_is_read(dtype):
    params = make_unscanned()
    wrong = {p: x.astype(dtype) if "layers_1" in p else x for p, x in params.items()}
    source = MemorySource(wrong)
    with pytest.raises(CheckpointError, match=r"^4 of 11 arrays .*layers_1/attention") as error:
        initial.load_params(source, to_shapes(params), replicated(params))
    assert source.reads == []
    assert dtype in str(error.value) and "bfloat16" in str(error.value)


def with_tables_of_their_own(params):
    """The parameters of a model with a relative position table in every layer (UMT5)."""
    params = dict(params)
    table = params.pop("encoder/relpos_bias/rel_embedding")
    for i in range(2):
        params[f"encoder/layers_{i}/relpos_bias/rel_embedding"] = table + np.float32(i)
    return params


@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("model_scanned", [False, True])
def test_tables_of_every_layer_load_into_any_layout(stored_scanned, model_scanned):
    params = with_tables_of_their_own(make_unscanned())
    stored = to_scanned(params) if stored_scanned else params
    wanted = to_scanned(params) if model_scanned else params
    loaded, _ = load(stored, wanted, model_shapes=wanted)
    assert_same(loaded, wanted)
    assert digest.params_digest(loaded) == digest.params_digest(params)
    shared = make_unscanned()
    assert digest.params_digest(loaded) != digest.params_digest(shared)


def test_one_table_does_not_make_a_model_with_one_in_every_layer():
    shared = make_unscanned()
    own = with_tables_of_their_own(shared)
    for stored, wanted in ((shared, own), (own, shared)):
        with pytest.raises(CheckpointError, match="rel_embedding.*missing"):
            load(stored, wanted, model_shapes=wanted)


@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("model_scanned", [False, True])
@pytest.mark.parametrize("deeper", ["model", "checkpoint"])
def test_another_depth_is_an_error(stored_scanned, model_scanned, deeper):
    params = make_unscanned()
    shallow = {p: x for p, x in params.items() if "layers_1/" not in p}
    stored, wanted = (shallow, params) if deeper == "model" else (params, shallow)
    stored = to_scanned(stored) if stored_scanned else stored
    wanted = to_scanned(wanted) if model_scanned else wanted
    with pytest.raises(CheckpointError, match="differ|has not"):
        load(stored, wanted, model_shapes=wanted)


def test_tables_of_layers_trained_apart_do_not_fit_an_unscanned_model():
    params = make_unscanned()
    stored = to_scanned(params)
    table = "encoder/encoder/relpos_bias/rel_embedding"
    stored[table] = stored[table] + np.arange(2, dtype=np.float32)[None, :, None]
    with pytest.raises(CheckpointError, match="one relative position table"):
        load(stored, params)
    assert_same(load(stored, stored)[0], stored)
    assert digest.params_digest(stored) != digest.params_digest(to_scanned(params))


def test_folder_of_checkpoints_names_the_newest_or_takes_it(tmp_path):
    for step in (9, 10):
        write_t5x_checkpoint(tmp_path / f"checkpoint_{step}", make_unscanned(step), step)
    with pytest.raises(CheckpointError, match="folder of checkpoints.*checkpoint_10"):
        open_source(tmp_path)
    assert open_source(tmp_path, mode="latest").step == 10


def test_wrong_paths_say_what_is_there(tmp_path):
    with pytest.raises(CheckpointError, match="nothing there.*correct the path"):
        open_source(tmp_path / "none")
    with pytest.raises(CheckpointError, match="an empty directory"):
        open_source(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="a directory with model.bin.*T5X checkpoint_"):
        open_source(tmp_path)
    with pytest.raises(CheckpointError, match="a file"):
        open_source(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="mode = 'latest' asks for"):
        open_source(tmp_path, mode="latest")
    with pytest.raises(ConfigError, match="mode is unknown.*Closest matches: latest"):
        open_source(tmp_path, mode="lates")
    write_t5x_checkpoint(tmp_path / "checkpoint_8", make_unscanned(), 8)
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path}/checkpoint_8")):
        open_source(tmp_path / "checkpoint_9")


@requires_shared
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", ["t5x_checkpoint", "t5x_checkpoint_bf16", "t5x_checkpoint_scan"])
def test_real_checkpoints_load_exactly(folder, dtype):
    assert SHARED is not None
    golden = SHARED / "golden"
    expected = dict(np.load(golden / "params.npz"))
    source = open_source(golden / folder / "checkpoint_1100000")
    shapes = to_shapes(expected)
    loaded = initial.load_params(
        source, shapes, replicated(shapes), dtype=dtype, model_shapes=shapes
    )
    if folder.endswith("bf16"):
        expected = {p: x.astype(jnp.bfloat16) for p, x in expected.items()}
    assert_same(loaded, {p: x.astype(jnp.dtype(dtype)) for p, x in expected.items()})
    assert len(loaded) == 52
    # The same weights, however they are stored.
    assert digest.params_digest(loaded) == digest.params_digest(
        dict(np.load(golden / "params.npz"))
    )


@pytest.mark.parametrize("model_scanned", [False, True])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "int8"])
def test_int8_is_made_of_floats_or_loaded(stored, model_scanned):
    params = make_unscanned()
    held = int8.hold(params, "int8")
    source = held if stored == "int8" else int8.hold(params, stored)
    source = {path: np.asarray(x) for path, x in source.items()}
    if not model_scanned:
        # Each case changes the layout.
        source = to_scanned(source)
    expected = to_scanned(held) if model_scanned else held
    model = to_scanned(params) if model_scanned else params
    loaded, _ = load(source, expected, dtype="int8", model_shapes=model)
    assert_same(loaded, expected)
    assert {x.dtype.name for x in loaded.values()} == {"int8", "float32", "bfloat16"}


def test_int8_of_a_sharded_kernel_is_that_of_the_whole():
    params = make_unscanned()
    held = int8.hold(params, "int8")
    axes = int8.with_scales(logical_axes(params))
    shardings = PjitPartitioner(num_partitions=4).param_shardings(axes, held)
    loaded = initial.load_params(MemorySource(params), held, shardings, dtype="int8")
    assert_same(loaded, held)
    out = loaded["encoder/layers_0/attention/out/kernel"]
    assert {s.data.shape for s in out.addressable_shards} == {(2, 8)}
    assert all(loaded[p].sharding == shardings[p] for p in held)


def test_what_was_made_int8_does_not_become_float_again():
    params = make_unscanned()
    held = {path: np.asarray(x) for path, x in int8.hold(params, "int8").items()}
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(
            CheckpointError, match=f"query/kernel wanted as {dtype}'.*dtype = 'int8'"
        ):
            load(held, params, dtype=dtype)
    # Some of the parameters as floats: those that a run would train.
    path = "encoder/layers_1/mlp/wi_0/kernel"
    with pytest.raises(CheckpointError, match="none of which can be trained"):
        load(held, {path: params[path]})
    # What is no kernel can be trained.
    path = "encoder/relpos_bias/rel_embedding"
    loaded, _ = load(held, {path: params[path]}, model_shapes=params)
    np.testing.assert_array_equal(loaded[path], np.float32(held[path]))
