"""Slices by name: what they have, and what is said of those that do not exist."""

import pytest

from prompt_tuning.commands.plan import slices
from prompt_tuning.commands.plan.generations import GENERATIONS, generation_of, num_cores
from prompt_tuning.errors import ConfigError
from prompt_tuning.partitioning import PjitPartitioner

needs_compiler = pytest.mark.skipif(
    slices.libtpu_version() is None, reason="libtpu, the extra [tpu], is not installed"
)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "cores", "chips"),
    [
        ("v2:2x2x1", 8, 4),
        ("v3:4x4", 32, 16),
        ("v4:2x2x1", 8, 4),
        ("v5e:1x1", 1, 1),
        ("v5e:2x4", 8, 8),
        ("v5p:2x2x1", 4, 4),
        ("v6e:1x1", 1, 1),
        ("tpu7x:2x2x1", 8, 4),
    ],
)
def test_the_compiler_knows_slices_of_every_generation(name, cores, chips):
    found = slices.describe(name)
    assert (len(found.devices), found.chips) == (cores, chips)
    assert num_cores(name) == cores


def test_every_listed_slice_belongs_to_its_generation():
    names = [name for row in GENERATIONS.values() for name in row.slices]
    assert len(names) == len(set(names)) > len(GENERATIONS)
    for name in names:
        assert generation_of(name).name == name.split(":")[0]


@pytest.mark.parametrize("name", ["v9:1x1", "v5e", "v5e:2x", "v5e:0x4", "8"])
def test_what_is_no_slice_is_told_with_those_that_are(name):
    with pytest.raises(ConfigError, match="v5e:2x4.*tpu7x:2x2x1"):
        slices.describe(name)


@needs_compiler
def test_a_layout_that_does_not_exist_is_told_with_the_compilers_reason():
    with pytest.raises(ConfigError, match="not divisible.*'v5e:3x5'"):
        slices.describe("v5e:3x5")


def test_without_the_compiler_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(slices, "libtpu_version", lambda: None)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-tuning\[tpu\]'"):
        slices.describe.__wrapped__("v5e:2x4")


@needs_compiler
@pytest.mark.parametrize("name", ["v5e:4x4", "v3:4x8", "v5p:2x2x4"])
@pytest.mark.parametrize("partitions", [1, 2, 4, 8, 16])
def test_every_power_of_two_of_partitions_makes_a_mesh(name, partitions):
    mesh = PjitPartitioner(num_partitions=partitions).on(slices.describe(name).devices).mesh
    assert mesh.shape["model"] == partitions
    assert mesh.size == num_cores(name)


@needs_compiler
def test_a_replica_is_a_box_of_the_slice():
    devices = slices.describe("v3:2x2x1").devices
    mesh = PjitPartitioner(model_parallel_submesh=(2, 1, 1, 2)).on(devices).mesh
    assert dict(mesh.shape) == {"data": 2, "model": 4}
    rows = [{(*d.coords, d.core_on_chip) for d in row} for row in mesh.devices]
    # Both cores of both chips of a row of the slice.
    for y, row in enumerate(rows):
        assert row == {(x, y, 0, core) for x in (0, 1) for core in (0, 1)}
