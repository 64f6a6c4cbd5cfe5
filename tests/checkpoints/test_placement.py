"""What is read, how often and how much at a time; every layout lands right on every mesh."""

import itertools
import threading
import time

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import load, placement
from prompt_tuning.checkpoints.placement import Link, Target
from prompt_tuning.errors import CheckpointError
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from tests.checkpoints.memory_source import MemorySource
from tests.checkpoints.tiny_params import HEADS, logical_axes, make_unscanned, to_scanned

# (num_partitions, parameter_partitioning_dims)
_MESHES = {
    "data parallel": (1, 1),
    "model parallel": (4, 1),
    # Half a head a device.
    "one model over all": (8, 1),
    "2-D": (4, 2),
}


def scanned_axes(params):
    """The logical axes of scanned parameters."""
    by_ending = {
        "attention/query/kernel": ("embed", "layers", "heads", "kv"),
        "attention/out/kernel": ("heads", "layers", "kv", "embed"),
        "wi_0/kernel": ("embed", "layers", "mlp"),
        "rel_embedding": ("heads", "layers", "relpos_buckets"),
        "encoder/pre_mlp_layer_norm/scale": ("embed", "layers"),
        "embedding": ("vocab", "embed"),
        "encoder_norm/scale": ("embed",),
    }
    return {
        path: next(axes for end, axes in by_ending.items() if path.endswith("/" + end))
        for path in params
    }


def make_shardings(mesh, axes, params):
    num_partitions, dims = _MESHES[mesh]
    rules = [(n, a) for n, a in standard_logical_axis_rules(1, dims) if n != "heads"]
    # Four heads do not go over eight devices, but their joined width does.
    rules.append(("heads", "model" if num_partitions <= HEADS else None))
    return PjitPartitioner(num_partitions, logical_axis_rules=tuple(rules)).param_shardings(
        axes, params
    )


@pytest.mark.parametrize("rows_in_chunk", [None, 1, 3])
@pytest.mark.parametrize("stored_scanned", [False, True])
@pytest.mark.parametrize("model_scanned", [False, True])
@pytest.mark.parametrize("mesh", _MESHES)
def test_every_layout_lands_right_on_every_mesh(
    monkeypatch, mesh, stored_scanned, model_scanned, rows_in_chunk
):
    # Pieces of some rows.
    monkeypatch.setattr(placement, "_PIECE_BYTES", 96)
    params = make_unscanned()
    source = MemorySource(to_scanned(params) if stored_scanned else params, rows_in_chunk)
    wanted = to_scanned(params) if model_scanned else params
    axes = scanned_axes(wanted) if model_scanned else logical_axes(params)
    shardings = make_shardings(mesh, axes, wanted)
    shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in wanted.items()}
    loaded = load.load_params(source, shapes, shardings, model_shapes=shapes)
    assert list(loaded) == list(wanted)
    spread = 0
    for path, array in wanted.items():
        assert loaded[path].sharding == shardings[path]
        for shard in loaded[path].addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), array[shard.index], err_msg=path)
        spread += not loaded[path].is_fully_replicated
    assert (spread > 0) == (mesh != "data parallel")
    # Eight devices, many pieces, and yet every stored value was read once.
    assert {tuple(np.unique(seen)) for seen in source.seen.values()} == {(1,)}


@pytest.mark.parametrize(
    ("stored_scanned", "path", "box", "read"),
    [
        # (what a host holds of a parameter, the elements it has to read)
        (False, "encoder/layers_1/mlp/wi_0/kernel", ((0, 8), (4, 8)), 8 * 4),
        (False, "token_embedder/embedding", ((4, 8), (0, 2)), 4 * 2),
        (True, "encoder/layers_1/mlp/wi_0/kernel", ((0, 8), (4, 8)), 8 * 4),
        (True, "encoder/layers_1/attention/query/kernel", ((2, 4), (4, 6)), 2 * 2),
        # Half of a head: the head is read whole.
        (True, "encoder/layers_0/attention/query/kernel", ((2, 4), (5, 6)), 2 * 2),
        (True, "encoder/layers_0/attention/out/kernel", ((3, 5), (0, 4)), 4 * 4),
        (False, "encoder/encoder/mlp/wi_0/kernel", ((0, 8), (0, 2), (4, 8)), 2 * 8 * 4),
        (False, "encoder/encoder/mlp/wi_0/kernel", ((0, 4), (1, 2), (0, 16)), 4 * 16),
        (False, "encoder/encoder/attention/query/kernel", ((0, 8), (0, 2), (1, 2), (0, 2)), 32),
        (False, "encoder/encoder/attention/out/kernel", ((1, 3), (0, 2), (1, 2), (0, 8)), 64),
        (True, "encoder/encoder/attention/out/kernel", ((1, 3), (0, 2), (1, 2), (0, 8)), 32),
    ],
)
def test_a_host_reads_only_its_part(stored_scanned, path, box, read):
    params = make_unscanned()
    scanned = to_scanned(params)
    expected = {**params, **scanned}[path]
    source = MemorySource(scanned if stored_scanned else params, rows_in_chunk=1)
    groups = load.links_of(source, {path: expected.shape})
    target = Target(expected.shape, np.dtype("float32"), frozenset({box}))
    ((parts,),) = [list(placement.assemble(source, groups, {path: target}))]
    index = tuple(slice(*bounds) for bounds in box)
    np.testing.assert_array_equal(parts[path][box], expected[index])
    assert sum(int(seen.sum()) for seen in source.seen.values()) == read
    assert max(int(seen.max()) for seen in source.seen.values()) == 1


def test_only_so_many_bytes_are_read_at_a_time(monkeypatch):
    monkeypatch.setattr(placement, "_MIN_IN_FLIGHT_BYTES", 256)
    monkeypatch.setattr(placement, "_MAX_IN_FLIGHT_BYTES", 256)
    monkeypatch.setattr(placement, "_PIECE_BYTES", 64)
    params = {f"p{i}": np.full((32, 4), i, np.float32) for i in range(6)}
    params["large"] = np.ones((1, 128), np.float32)
    lock, now, most = threading.Lock(), [0, 0], [0, 0]

    class SlowSource(MemorySource):
        def read(self, path, index=None):
            content = super().read(path, index)
            with lock:
                now[0] += content.nbytes
                now[1] += 1
                most[:] = [max(most[0], now[0]), max(most[1], now[1])]
            time.sleep(0.002)
            with lock:
                now[0] -= content.nbytes
                now[1] -= 1
            return content

    source = SlowSource(params, rows_in_chunk=1)
    groups = [[Link(path, path)] for path in params]
    targets = {
        path: Target(x.shape, x.dtype, frozenset({placement.whole(x.shape)}))
        for path, x in params.items()
    }
    made = {}
    for parts in placement.assemble(source, groups, targets):
        made |= {path: next(iter(by_box.values())) for path, by_box in parts.items()}
    assert list(made) == list(params)
    for path, array in params.items():
        np.testing.assert_array_equal(made[path], array)
    # Four pieces side by side; the large one, which cannot be cut, alone.
    assert most == [512, 4]
    assert len(source.reads) == 6 * 8 + 1


def test_memory_can_be_used_by_xla_without_a_copy():
    source = MemorySource({"a": np.ones((3, 5), np.float32)})
    target = Target((3, 5), np.dtype("float32"), frozenset({((0, 3), (0, 5))}))
    (parts,) = placement.assemble(source, [[Link("a", "a")]], {"a": target})
    (array,) = parts["a"].values()
    placed = jax.device_put(array)
    assert placed.unsafe_buffer_pointer() == array.ctypes.data


def test_an_error_of_the_source_is_passed_on():
    class BrokenSource(MemorySource):
        def read(self, path, index=None):
            raise CheckpointError("Cannot read", got=path, expected="a file", fix="download it")

    source = BrokenSource({f"p{i}": np.ones(3, np.float32) for i in range(40)})
    shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in source.params.items()}
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    with pytest.raises(CheckpointError, match="got 'p0'"):
        load.load_params(source, shapes, shardings)


@pytest.mark.parametrize("shape", [(), (7,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pieces_cover_an_array_once_and_are_made_of_chunks(shape, limit):
    compared = 0
    for chunk in itertools.product(*[(1, 2, size) for size in shape]):
        seen = np.zeros(shape, int)
        for box in placement._pieces(shape, chunk, limit):
            seen[tuple(slice(*bounds) for bounds in box)] += 1
            assert all(start % c == 0 for (start, _), c in zip(box, chunk, strict=True))
            size = np.prod([stop - start for start, stop in box])
            assert size <= max(limit, np.prod(chunk))
            compared += 1
        assert (seen == 1).all()
    assert compared > 0
