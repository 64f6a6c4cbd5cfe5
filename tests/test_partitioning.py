import dataclasses

import jax
import numpy as np
import pytest
from flax.linen import partitioning as flax_partitioning

from prompt_tuning import partitioning
from prompt_tuning.errors import ConfigError
from prompt_tuning.partitioning import PjitPartitioner

AXES = {
    "token_embedder/embedding": ("vocab", "embed"),
    "encoder/layers_0/attention/query/kernel": ("embed", "joined_kv"),
    "encoder/layers_0/mlp/wo/kernel": ("mlp", "embed"),
    "encoder/relpos_bias/rel_embedding": ("heads", "relpos_buckets"),
    "encoder/prompt/prompt/prompt": ("prompt", "prompt_embed"),
}
SHAPES = {
    "token_embedder/embedding": (16, 8),
    "encoder/layers_0/attention/query/kernel": (8, 8),
    "encoder/layers_0/mlp/wo/kernel": (16, 8),
    "encoder/relpos_bias/rel_embedding": (4, 32),
    "encoder/prompt/prompt/prompt": (5, 8),
}


def specs(partitioner):
    return {p: tuple(s.spec) for p, s in partitioner.param_shardings(AXES, SHAPES).items()}


@pytest.mark.parametrize("num_partitions", [1, 2, 4, 8])
def test_mesh_has_data_and_model(num_partitions):
    partitioner = PjitPartitioner(num_partitions=num_partitions)
    assert dict(partitioner.mesh.shape) == {"data": 8 // num_partitions, "model": num_partitions}
    assert partitioner.mesh is partitioner.mesh
    assert partitioner.mesh.size == jax.device_count() == 8


def test_num_partitions_that_does_not_fit_lists_those_that_do():
    for wrong in (3, 16, 0):
        with pytest.raises(ConfigError, match=rf"got {wrong}, expected one of \[1, 2, 4, 8\]"):
            _ = PjitPartitioner(num_partitions=wrong).mesh


def test_submesh_counts_by_its_product_where_there_is_no_topology():
    mesh = PjitPartitioner(model_parallel_submesh=(2, 2, 1, 1)).mesh
    assert dict(mesh.shape) == {"data": 2, "model": 4}
    with pytest.raises(
        ConfigError, match=r"got \(4, 4, 1, 2\), expected one of \(1, 1, 1, 1\), \(2"
    ):
        _ = PjitPartitioner(model_parallel_submesh=(4, 4, 1, 2)).mesh


@dataclasses.dataclass(frozen=True)
class Chip:
    coords: tuple[int, int, int]
    core_on_chip: int


def test_submesh_is_a_box_of_the_slice():
    chips = [Chip((x, y, 0), c) for y in range(4) for x in range(4) for c in range(2)]
    grid = partitioning.submesh_grid(chips[::-1], (2, 2, 1, 2))
    assert grid.shape == (4, 8)
    assert {chip for row in grid for chip in row} == set(chips)
    for row in grid:
        for axis in (0, 1):
            positions = {chip.coords[axis] for chip in row}
            assert positions in ({0, 1}, {2, 3})
    with pytest.raises(
        ConfigError, match=r"slice of \(4, 4, 1, 2\).*expected one of \(2, 4, 1, 2\)"
    ):
        partitioning.submesh_grid(chips, (3, 4, 1, 2))
    with pytest.raises(ConfigError, match="does not tile"):
        partitioning.submesh_grid(chips, (2, 2))


def test_parameters_follow_the_standard_rules():
    assert specs(PjitPartitioner(num_partitions=4)) == {
        "token_embedder/embedding": ("model", None),
        "encoder/layers_0/attention/query/kernel": (None, "model"),
        "encoder/layers_0/mlp/wo/kernel": ("model", None),
        "encoder/relpos_bias/rel_embedding": ("model", None),
        "encoder/prompt/prompt/prompt": (None, None),
    }


@pytest.mark.parametrize(
    ("activation", "parameter", "embedding", "hidden"),
    [
        # Parameter [vocab, embed] and activation [batch, length, embed].
        (1, 1, ("model", None), ("data", None, None)),
        (2, 1, ("model", None), ("data", None, "model")),
        (1, 2, ("model", "data"), ("data", None, None)),
        (2, 2, ("model", "data"), ("data", None, "model")),
    ],
)
def test_two_dimensional_rules(activation, parameter, embedding, hidden):
    rules = partitioning.standard_logical_axis_rules(activation, parameter)

    def to_mesh(names, rules):
        return tuple(flax_partitioning.logical_to_mesh_axes(names, rules) or ())

    assert to_mesh(("vocab", "embed"), rules) == embedding
    assert to_mesh(("batch", "length", "embed"), rules) == hidden
    assert {name for name, _ in rules} == {
        *("batch", "vocab", "embed", "mlp", "heads", "kv", "joined_kv", "relpos_buckets"),
        *("abspos_buckets", "length", "layers", "stack", "mlp_activations"),
        *("prompt", "prompt_embed", "tasks", "rank", "bottleneck"),
    }


def test_rules_are_checked():
    with pytest.raises(ConfigError, match="activation_partitioning_dims.*got '3'"):
        partitioning.standard_logical_axis_rules(3)
    rules = partitioning.standard_logical_axis_rules(additional_rules=[("tasks", "data")])
    assert ("tasks", "data") in rules
    no_mlp = tuple(rule for rule in rules if rule[0] != "mlp")
    with pytest.raises(
        ConfigError, match="mlp/wo/kernel has a logical axis without a rule: got 'mlp'"
    ):
        PjitPartitioner(2, logical_axis_rules=no_mlp).param_shardings(AXES, SHAPES)
    with pytest.raises(
        ConfigError, match="mesh axis of .* is unknown: got 'modle'.*Closest matches: model"
    ):
        PjitPartitioner(2, logical_axis_rules=(*no_mlp, ("mlp", "modle"))).param_shardings(
            AXES, SHAPES
        )


def test_the_axes_of_a_prompt_follow_the_rules_that_name_them():
    rules = partitioning.standard_logical_axis_rules(additional_rules=[("prompt_embed", "model")])
    prompt = specs(PjitPartitioner(num_partitions=4, logical_axis_rules=rules))
    assert prompt["encoder/prompt/prompt/prompt"] == (None, "model")


def test_dimension_that_does_not_divide_is_an_error():
    with pytest.raises(
        ConfigError,
        match=r"rel_embedding \[4, 32\].*dimension 0 \(heads\).*'model' of 8 devices: got 4",
    ):
        PjitPartitioner(num_partitions=8).param_shardings(AXES, SHAPES)


def test_batch_size_that_does_not_divide_is_an_error():
    partitioner = PjitPartitioner(num_partitions=2)
    partitioner.check_batch_size(8)
    for wrong, above in ((6, 8), (9, 12), (0, 4)):
        with pytest.raises(
            ConfigError, match=f"got {wrong}, .*multiple of 4.*BATCH_SIZE = {above}"
        ):
            partitioner.check_batch_size(wrong)


def test_batch_is_spread_over_data():
    partitioner = PjitPartitioner(num_partitions=2)
    batch = {"a": np.arange(24, dtype=np.int32).reshape(8, 3), "b": np.arange(8, dtype=np.float32)}
    placed = partitioner.shard_batch(batch)
    assert set(placed) == {"a", "b"}
    for name, array in batch.items():
        np.testing.assert_array_equal(np.asarray(placed[name]), array)
        assert placed[name].sharding.is_equivalent_to(partitioner.batch_sharding, array.ndim)
        assert {s.data.shape[0] for s in placed[name].addressable_shards} == {2}
        assert placed[name].dtype == array.dtype


def count_constraints(fn, *args):
    return str(jax.jit(fn).trace(*args).jaxpr).count("sharding_constraint[")


def test_logical_names_become_constraints_only_when_active():
    partitioner = PjitPartitioner(num_partitions=4)

    def fn(x):
        return flax_partitioning.with_sharding_constraint(x, ("batch", "mlp"))

    x = np.ones((4, 16), np.float32)
    assert count_constraints(fn, x) == 0
    with partitioner.activate() as mesh:
        assert mesh is partitioner.mesh
        # A fresh function: jit would take the trace made outside the context from its cache.
        assert count_constraints(lambda x: fn(x), x) == 1
        out = jax.jit(lambda x: fn(x))(x)
    assert tuple(out.sharding.spec) == ("data", "model")
    assert count_constraints(lambda x: fn(x), x) == 0


def test_compiled_step_takes_and_gives_the_shardings():
    partitioner = PjitPartitioner(num_partitions=4)
    shardings = partitioner.param_shardings(AXES, SHAPES)
    rng = np.random.default_rng(0)
    host = {p: rng.normal(size=s).astype(np.float32) for p, s in SHAPES.items()}
    params = {p: jax.device_put(x, shardings[p]) for p, x in host.items()}
    batch = partitioner.shard_batch({"x": rng.normal(size=(4, 16)).astype(np.float32)})

    def step(params, batch):
        hidden = batch["x"] @ params["encoder/layers_0/mlp/wo/kernel"]
        hidden = flax_partitioning.with_sharding_constraint(hidden, ("batch", "embed"))
        return {p: x * 2 for p, x in params.items()}, hidden.sum()

    with partitioner.activate():
        jitted = jax.jit(
            step,
            in_shardings=(shardings, partitioner.batch_sharding),
            out_shardings=(shardings, partitioner.replicated),
        )
        out, total = jitted.lower(params, batch).compile()(params, batch)
    expected = (np.asarray(batch["x"]) @ host["encoder/layers_0/mlp/wo/kernel"]).sum()
    np.testing.assert_allclose(float(total), expected, rtol=1e-5)
    assert total.sharding.is_fully_replicated
    for path, x in out.items():
        assert x.sharding == shardings[path]
        np.testing.assert_array_equal(np.asarray(x), host[path] * 2)
    assert len(out) == 5


def test_the_platform_is_that_of_the_active_mesh():
    assert partitioning.platform() == "cpu"
    device = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    with jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((4,), ("data",), abstract_device=device)
    ):
        assert partitioning.platform() == "tpu"
