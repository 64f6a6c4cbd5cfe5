import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import digest
from prompt_tuning.params import int8
from prompt_tuning.partitioning import PjitPartitioner
from tests import both_layouts
from tests.checkpoints.tiny_params import HEADS, logical_axes, make_unscanned


def make_rounded():
    """Parameters that bfloat16 holds exactly."""
    return {k: v.astype(jnp.bfloat16).astype(np.float32) for k, v in make_unscanned().items()}


def test_independent_of_sharding():
    params = make_unscanned()
    expected = digest.params_digest(params)
    for num_partitions in (1, 2, 4):
        partitioner = PjitPartitioner(num_partitions=num_partitions)
        shardings = partitioner.param_shardings(logical_axes(params), params)
        sharded = {k: jax.device_put(v, shardings[k]) for k, v in params.items()}
        spread = [v for v in sharded.values() if not v.is_fully_replicated]
        assert len(spread) == (0 if num_partitions == 1 else 8)
        assert digest.params_digest(sharded) == expected


@pytest.mark.parametrize("scanned", [False, True])
def test_independent_of_the_blocks_it_is_computed_in(monkeypatch, scanned):
    params = make_unscanned()
    expected = digest.params_digest(params)
    if scanned:
        params = both_layouts.to_scanned(params, num_heads=HEADS)
    # Rows of 2 to 64 numbers: several a block, with a remainder, and one row that is more than a block.
    for block in (7, 48, 100):
        monkeypatch.setattr(digest, "_BLOCK", block)
        assert digest.params_digest(params) == expected


def test_parts_that_come_one_after_another():
    params = make_unscanned()
    whole = digest.Digest()
    for path, array in params.items():
        whole.add({path: array})
    assert whole.hexdigest() == digest.params_digest(params)


def test_independent_of_storage_dtype():
    params = make_unscanned()
    stored = {k: v.astype(jnp.bfloat16) for k, v in params.items()}
    assert digest.params_digest(params) == digest.params_digest(stored)


@pytest.mark.parametrize("block", [2**20, 3, 1])
def test_value_is_pinned(monkeypatch, block):
    """Digests live in users' checkpoints: another algorithm would refuse all of them."""
    monkeypatch.setattr(digest, "_BLOCK", block)
    params = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([-1.5], np.float32)}
    bits = {"a": [0x0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0], "b": [0xBFC0]}
    lines = [
        f"{k} {list(params[k].shape)} {sum(b * (2 * i + 1) for i, b in enumerate(v)) % 2**32}\n"
        for k, v in bits.items()
    ]
    assert digest.params_digest(params) == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("scanned", [False, True])
def test_every_element_counts(scanned):
    params = make_rounded()
    if scanned:
        params = both_layouts.to_scanned(params, num_heads=HEADS)
    seen = {digest.params_digest(params)}
    changed = 0
    rng = np.random.default_rng(0)
    for path, array in params.items():
        # First, last and a few others of each array: all of them would take minutes.
        for index in {0, array.size - 1, *rng.integers(0, array.size, size=4).tolist()}:
            other = array.copy()
            # One step of bfloat16, the smallest change that may be seen.
            bits = other.reshape(-1)[index : index + 1].view(np.uint32)
            bits += np.uint32(0x10000)
            seen.add(digest.params_digest({**params, path: other}))
            changed += 1
    assert changed > 30
    assert len(seen) == changed + 1


def test_shape_name_and_exchanged_elements_count():
    params = make_rounded()
    path = "encoder/layers_0/mlp/wi_0/kernel"
    swapped = params[path].copy()
    swapped[0, 0], swapped[1, 1] = params[path][1, 1], params[path][0, 0]
    others = [
        {**params, path: params[path].reshape(16, 8)},
        {**params, path: swapped},
        {k.replace("layers_0", "layers_7"): v for k, v in params.items()},
        {k: v for k, v in params.items() if k != path},
    ]
    seen = {digest.params_digest(p) for p in [params, *others]}
    assert len(seen) == 5


def test_change_below_bfloat16_is_not_seen():
    params = make_rounded()
    path = "encoder/layers_0/mlp/wi_0/kernel"
    nudged = {**params, path: params[path] * np.float32(1 + 1e-4)}
    assert not np.array_equal(nudged[path], params[path])
    assert digest.params_digest(nudged) == digest.params_digest(params)


@pytest.mark.parametrize("scanned", [False, True])
def test_int8_is_other_weights_in_one_form(scanned):
    params = make_unscanned()
    held = int8.hold(params, "int8")
    expected = digest.params_digest(held)
    assert expected != digest.params_digest(params)
    if scanned:
        held = both_layouts.to_scanned(held, num_heads=HEADS)
    assert digest.params_digest(held) == expected
    changed = {path: np.array(x) for path, x in held.items()}
    paths = [p for p in held if "/kernel" in p]
    assert len(paths) == (6 if scanned else 12)
    for path in paths:
        saved = changed[path].flat[-1]
        changed[path].flat[-1] = saved + np.asarray(1, saved.dtype)
        assert digest.params_digest(changed) != expected, path
        changed[path].flat[-1] = saved
