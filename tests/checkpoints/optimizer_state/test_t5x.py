"""Second moments of T5X checkpoints, in every pair of layouts, against Optax's own state after the same gradients."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.optimizer_state.t5x import SLOTS, find_optimizer_state
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from prompt_tuning.training.adafactor import Adafactor
from tests import both_layouts
from tests.checkpoints.t5x_orbax_writer import write_t5x_orbax_checkpoint
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import HEADS, make_unscanned

STEP = 1_000
UPDATES = 3
EMBED = "encoder/layers_0/mlp/wi_0/kernel"
QUERY = "encoder/encoder/attention/query/kernel"
# The axes of scanned kernels: which one is `embed`, the row of T5X's factored moments.
EMBED_AXIS = {"query": 0, "wi_0": 0, "out": 3}

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


def to_layout(params, scanned):
    return both_layouts.to_scanned(params, num_heads=HEADS) if scanned else params


def gradients(seed):
    """Gradients in the unscanned layout; rows and columns differ in size, so that swapped axes show."""
    grads = make_unscanned(seed)
    for path, grad in grads.items():
        for axis, length in enumerate(grad.shape):
            sizes = np.linspace(0.5, 2.0 + axis, length, dtype=np.float32)
            grads[path] = grads[path] * np.expand_dims(
                sizes, tuple(a for a in range(grad.ndim) if a != axis)
            )
    return grads


def averages(squares):
    """The moving average of a sequence of arrays as Adafactor takes it at STEP, STEP + 1, ..."""
    total = np.zeros_like(squares[0])
    for i, square in enumerate(squares):
        decay = np.float32(1.0) - np.float32(STEP + i + 1) ** np.float32(-0.8)
        total = decay * total + (np.float32(1.0) - decay) * square
    return total


def t5x_moments(scanned, min_size):
    """T5X's `param_states` after UPDATES updates, from the definitions in its adafactor.py."""
    moments = {}
    all_grads = [to_layout(gradients(seed), scanned) for seed in range(1, UPDATES + 1)]
    for path in all_grads[0]:
        squares = [np.square(grads[path]) + np.float32(1e-30) for grads in all_grads]
        shape = squares[0].shape
        slots = {slot: np.zeros((1,), np.float32) for slot in (*SLOTS, "m")}
        if layouts.is_stacked(path) and path.endswith("kernel"):
            # Explicit rules: whatever the size, rows are `embed`, columns all the rest but the layers.
            embed = EMBED_AXIS[path.split("/")[-2]]
            columns = tuple(a for a in range(len(shape)) if a not in (embed, layouts.LAYERS_AXIS))
            slots["v_row"] = averages([s.mean(axis=columns) for s in squares])
            slots["v_col"] = averages([s.mean(axis=embed) for s in squares])
        elif not layouts.is_stacked(path) and len(shape) == 2 and min(shape) >= min_size:
            smaller, larger = np.argsort(shape)
            slots["v_row"] = averages([s.mean(axis=larger) for s in squares])
            slots["v_col"] = averages([s.mean(axis=smaller) for s in squares])
        else:
            slots["v"] = averages(squares)
        moments |= {f"{path}/{slot}": x.astype(np.float32) for slot, x in slots.items()}
    return moments


def optax_slots(scanned, min_size):
    """Optax's state after the same updates: (parameter, slot) -> array."""
    params = to_layout(make_unscanned(), scanned)
    tx = Adafactor(restored_step=STEP, min_dim_size_to_factor=min_size).make(lambda step: 0.0)
    state: Any = tx.init(tree.unflatten(params))
    update = jax.jit(tx.update)
    for seed in range(1, UPDATES + 1):
        grads = jax.tree.map(jnp.asarray, to_layout(gradients(seed), scanned))
        _, state = update(tree.unflatten(grads), state, tree.unflatten(params))
    factored = [
        part for group in state.values() for part in group if isinstance(part, optax.FactoredState)
    ]
    slots = {}
    for part, slot in itertools.product(factored, SLOTS):
        for path, leaf in tree.flatten(getattr(part, slot)).items():
            slots[path, slot] = np.asarray(leaf)
    assert len(slots) == 3 * len(params)
    return slots


def write(tmp_path, scanned, moments, params=None):
    params = params or to_layout(make_unscanned(), scanned)
    path = write_t5x_checkpoint(tmp_path / f"checkpoint_{STEP}", params, STEP, moments=moments)
    return open_source(path)


def state_of(source, scanned):
    state = find_optimizer_state(source, shapes_of(scanned))
    assert state is not None
    return state


def shapes_of(scanned):
    return {path: x.shape for path, x in to_layout(make_unscanned(), scanned).items()}


@pytest.mark.parametrize("model_scanned", [False, True])
# All kernels are factored under 5 (the relative position table never is, as in T5X's scanned layout); none under 100.
# T5X factors scanned kernels of any size, so an unfactored state of them does not exist.
@pytest.mark.parametrize(
    ("stored_scanned", "stored_size", "model_size"),
    [(False, 5, 5), (False, 100, 100), (False, 100, 5), (True, 5, 5)],
)
def test_moments_equal_optax(tmp_path, stored_scanned, model_scanned, stored_size, model_size):
    source = write(tmp_path, stored_scanned, t5x_moments(stored_scanned, stored_size))
    shapes = shapes_of(model_scanned)
    state = state_of(source, model_scanned)
    assert state.step == STEP
    expected = optax_slots(model_scanned, model_size)
    for (path, slot), leaf in expected.items():
        ours = state.read_slot(path, shapes[path], slot, leaf.shape)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, leaf, rtol=1e-5, err_msg=f"{path} {slot}")
    assert sum(leaf.any() for leaf in expected.values()) > len(shapes) / 2


@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("use_ocdbt", [False, True])
def test_either_format_of_t5x_holds_the_same_state(tmp_path, stored_scanned, use_ocdbt):
    moments = t5x_moments(stored_scanned, 5)
    older = state_of(write(tmp_path / "older", stored_scanned, moments), False)
    params = {k: np.asarray(x) for k, x in to_layout(make_unscanned(), stored_scanned).items()}
    path = write_t5x_orbax_checkpoint(
        tmp_path / "newer" / "checkpoint_1", params, STEP, use_ocdbt=use_ocdbt, moments=moments
    )
    newer = state_of(open_source(path), False)
    assert newer.step == older.step == STEP
    shapes = shapes_of(False)
    for (name, slot), leaf in optax_slots(False, 5).items():
        moment = newer.read_slot(name, shapes[name], slot, leaf.shape)
        np.testing.assert_array_equal(
            moment, older.read_slot(name, shapes[name], slot, leaf.shape), err_msg=f"{name} {slot}"
        )


def test_unfactored_moments_of_factored_ones_have_their_means(tmp_path):
    """T5X factors small scanned kernels, this project does not: it starts from Adafactor's own estimate."""
    source = write(tmp_path, True, t5x_moments(True, 100))
    shapes = shapes_of(False)
    state = state_of(source, False)
    exact = t5x_moments(False, 100)
    v = state.read_slot(EMBED, shapes[EMBED], "v", shapes[EMBED])
    for axis in (0, 1):
        np.testing.assert_allclose(v.mean(axis), exact[f"{EMBED}/v"].mean(axis), rtol=1e-5)
    assert np.linalg.matrix_rank(v) == 1


def test_zero_moments_stay_zero(tmp_path):
    zeros = {name: np.zeros_like(x) for name, x in t5x_moments(True, 5).items()}
    state = state_of(write(tmp_path, True, zeros), False)
    v = state.read_slot(EMBED, shapes_of(False)[EMBED], "v", shapes_of(False)[EMBED])
    np.testing.assert_array_equal(v, np.zeros(shapes_of(False)[EMBED]))


def test_no_state_is_none(tmp_path):
    assert find_optimizer_state(write(tmp_path, False, None), shapes_of(False)) is None
    assert find_optimizer_state(None, shapes_of(False)) is None
    source = write(tmp_path / "with", False, t5x_moments(False, 5))
    assert find_optimizer_state(source, {}) is None
    assert find_optimizer_state(source, {"encoder/prompt/prompt/prompt": (4, 8)}) is None


@pytest.mark.parametrize("missing", [EMBED, f"{EMBED}/v_col"])
def test_half_a_state_is_an_error(tmp_path, missing):
    moments = {n: x for n, x in t5x_moments(False, 5).items() if not n.startswith(missing)}
    with pytest.raises(CheckpointError, match=rf"1 of 11 have none.*{EMBED}.*restored_step = 0"):
        find_optimizer_state(write(tmp_path, False, moments), shapes_of(False))


def test_a_layer_without_state_is_an_error_for_stacked_layers_too(tmp_path):
    moments = {
        n: x for n, x in t5x_moments(False, 5).items() if "layers_1/attention/query" not in n
    }
    with pytest.raises(CheckpointError, match=QUERY):
        find_optimizer_state(write(tmp_path, False, moments), shapes_of(True))


def test_momentum_is_an_error(tmp_path):
    moments = t5x_moments(False, 5)
    moments[f"{EMBED}/m"] = np.ones(shapes_of(False)[EMBED], np.float32)
    with pytest.raises(CheckpointError, match=f"has a momentum.*{EMBED}.*restored_step = 0"):
        find_optimizer_state(write(tmp_path, False, moments), shapes_of(False))


def test_moments_of_another_shape_are_an_error(tmp_path):
    moments = t5x_moments(False, 5)
    moments[f"{EMBED}/v_row"] = np.ones((3,), np.float32)
    state = state_of(write(tmp_path, False, moments), False)
    with pytest.raises(CheckpointError, match=r"fits no convention.*v_row \[3\]"):
        state.read_slot(EMBED, shapes_of(False)[EMBED], "v_row", (8,))


def test_a_lost_array_is_an_error(tmp_path):
    source = write(tmp_path, False, t5x_moments(False, 100))
    (folder,) = source.path.glob(f"state.param_states.{EMBED.replace('/', '.')}.v")
    (folder / "0.0").unlink()
    state = state_of(source, False)
    with pytest.raises(CheckpointError, match=f"{EMBED}/v of the optimizer state.*download"):
        state.read_slot(EMBED, shapes_of(False)[EMBED], "v", shapes_of(False)[EMBED])


def test_an_unknown_step_is_an_error(tmp_path):
    import msgpack

    source = write(tmp_path, False, t5x_moments(False, 5))
    index = msgpack.unpackb((source.path / "checkpoint").read_bytes(), ext_hook=msgpack.ExtType)
    del index["optimizer"]["state"]["step"]
    packed = msgpack.packb(index)
    assert packed is not None
    (source.path / "checkpoint").write_bytes(packed)
    moved = source.path.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="step of the T5X checkpoint .* is unknown"):
        find_optimizer_state(open_source(moved), shapes_of(False))
