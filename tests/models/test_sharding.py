"""The model on a mesh: logical names become placements, numbers stay."""

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from tests import both_layouts
from tests.models.conftest import FEATURES, logits_of, make_model, max_difference
from tests.models.test_parameters import _axes


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("dims", [1, 2])
def test_sharded_logits_are_the_same(reference, scan_layers, dims):
    model = make_model(scan_layers=scan_layers)
    flat = both_layouts.to_scanned(reference.params) if scan_layers else reference.params
    rules = standard_logical_axis_rules(
        activation_partitioning_dims=dims, parameter_partitioning_dims=dims
    )
    partitioner = PjitPartitioner(num_partitions=2, logical_axis_rules=rules)
    shardings = partitioner.param_shardings(
        _axes(model), {path: leaf.shape for path, leaf in flat.items()}
    )
    placed = {path: jax.device_put(leaf, shardings[path]) for path, leaf in flat.items()}
    assert placed[PROMPT_PATH].sharding.is_fully_replicated
    assert not placed["token_embedder/embedding"].sharding.is_fully_replicated
    batch = partitioner.shard_batch(reference.batch)
    with partitioner.activate():
        apply = jax.jit(
            lambda p, b: model.apply(
                {"params": p}, *(b[name] for name in FEATURES), enable_dropout=False
            )
        )
        logits = np.asarray(apply(tree.unflatten(placed), batch))
    real = reference.is_target
    assert max_difference(logits[real], logits_of(model, flat, reference.tokens)[real]) <= 2e-5
