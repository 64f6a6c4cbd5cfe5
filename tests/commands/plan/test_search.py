"""The order in which changes and slices are tried, with a compiler that is made up."""

import dataclasses
import functools

import pytest

from prompt_tuning.commands.plan import figures, search, slices
from prompt_tuning.commands.plan.generations import GENERATIONS, num_cores
from prompt_tuning.errors import ConfigError
from tests.commands.plan.test_run_step import TINY, TRAIN_FILES

GIB = 2**30
pytestmark = [
    pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays"),
    pytest.mark.skipif(
        slices.libtpu_version() is None, reason="libtpu, the extra [tpu], is not installed"
    ),
]


@pytest.fixture(scope="module")
def variants():
    settings = TINY | {"CLASS_LABELS": ["a"], "BATCH_SIZE": 8}
    found = search.Variants(TRAIN_FILES, [(f"{n} = {v!r}", n) for n, v in settings.items()])
    # No change is read twice.
    found.read = functools.cache(found.read)
    return found


def made_up(run, topology, *, peak):
    """Figures with a peak and a time that `peak(run, mesh)` says."""
    mesh = dict(run.partitioner.on(slices.describe(topology).devices).mesh.shape)
    size, seconds = peak(run, mesh)
    available = 4 * GIB
    return figures.Figures(
        topology=topology,
        mode=run.mode,
        fits=size <= available,
        mesh=mesh,
        cores=num_cores(topology),
        hbm_bytes_per_core=available,
        peak_bytes_per_core=size,
        weight_bytes_per_core=0,
        optimizer_bytes_per_core=0,
        batch_bytes_per_core=0,
        temp_bytes_per_core=0,
        estimated_step_seconds=seconds if size <= available else None,
    )


def compile_as(monkeypatch, peak):
    tried = []

    def measure(run, topology):
        found = made_up(run, topology, peak=peak)
        tried.append(found)
        return found

    monkeypatch.setattr(figures, "measure", measure)
    return tried


def test_the_cheapest_change_that_helps_is_named(variants, monkeypatch):
    tried = compile_as(
        monkeypatch,
        lambda run, mesh: (3 * GIB if run.model.config.remat_policy == "full" else 5 * GIB, 1.0),
    )
    found = search.closest_change(variants, variants.measure("v5e:2x2"))
    assert found is not None
    assert found["flags"] == ["--gin.network.T5Config.remat_policy=\"'full'\""]
    assert found["peak_bytes_per_core"] == 3 * GIB
    # More model partitions come before it, and microbatches after.
    assert [f.mesh["model"] for f in tried[:3]] == [1, 2, 4]


def test_changes_are_combined_where_none_is_enough_alone(variants, monkeypatch):
    def peak(run, mesh):
        saves = (mesh["model"] == 4) + ((run.trainer.num_microbatches or 1) > 1)
        return (6 - saves) * GIB, 1.0

    compile_as(monkeypatch, peak)
    found = search.closest_change(variants, variants.measure("v5e:2x2"))
    assert found is not None
    names = [flag.split("=")[0] for flag in found["flags"]]
    assert "--gin.partitioning.PjitPartitioner.num_partitions" in names
    assert "--gin.trainer.Trainer.num_microbatches" in names


def test_microbatches_that_cannot_be_enough_are_left_out(variants):
    run = variants.read()
    figures_of = made_up(run, "v5e:2x2", peak=lambda run, mesh: (5 * GIB, 1.0))
    counts = {}
    for temporaries in (1, 13):
        large = dataclasses.replace(figures_of, temp_bytes_per_core=temporaries * GIB)
        settings = [dict(change.settings) for change in search.changes(run, large)]
        name = "trainer.Trainer.num_microbatches"
        counts[temporaries] = [s[name] for s in settings if set(s) == {name}]
    assert counts == {1: ["2", "4", "8"], 13: ["4", "8"]}


def test_nothing_is_made_up_where_nothing_helps(variants, monkeypatch):
    tried = compile_as(monkeypatch, lambda run, mesh: (5 * GIB, 1.0))
    assert search.closest_change(variants, variants.measure("v5e:2x2")) is None
    assert len(tried) > 10


def test_the_smallest_slice_is_found_with_its_fastest_partitioning(variants, monkeypatch):
    # Two gibibytes a core once eight cores share them; fastest where four share the model.
    tried = compile_as(
        monkeypatch,
        lambda run, mesh: (
            16 * GIB // (mesh["data"] * mesh["model"]),
            1.0 + abs(mesh["model"] - 4),
        ),
    )
    found, change, rows = search.smallest_slice(variants, "v5e")
    assert found is not None
    assert found.topology == "v5e:2x2"
    assert found.mesh == {"data": 1, "model": 4}
    assert "--gin.partitioning.PjitPartitioner.num_partitions=4" in change.flags
    assert [f.topology for f in tried][0] == "v5e:1x1"
    assert len(rows) == len(tried)


def test_slices_whose_memory_the_weights_alone_exceed_are_not_compiled_for(variants, monkeypatch):
    tried = compile_as(monkeypatch, lambda run, mesh: (GIB, 1.0))
    small = dataclasses.replace(GENERATIONS["v5e"], hbm_gib=1e-6, layouts=("1x1", "2x2"))
    monkeypatch.setitem(GENERATIONS, "v5e", small)
    monkeypatch.setattr(slices, "describe", slices.describe.__wrapped__)
    found, _, rows = search.smallest_slice(variants, "v5e")
    assert (found, rows, tried) == (None, [], [])


def test_an_unknown_generation_is_told(variants):
    with pytest.raises(ConfigError, match="Closest matches: v5e"):
        search.smallest_slice(variants, "v5ee")
