"""Names of TPU slices in Google's interfaces, against those in Google's documents."""

import pytest

from prompt_tuning.commands.plan.generations import accelerator_of
from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import tpu_slices


@pytest.mark.parametrize(
    ("text", "accelerator", "machine_type", "vms"),
    [
        ("v4:2x2x1", "tpu-v4-8", "ct4p-hightpu-4t", 1),
        ("v4:2x2x4", "tpu-v4-32", "ct4p-hightpu-4t", 4),
        ("v5e:1x1", "tpu-v5litepod-1", "ct5lp-hightpu-1t", 1),
        ("v5e:2x2", "tpu-v5litepod-4", "ct5lp-hightpu-4t", 1),
        ("v5e:2x4", "tpu-v5litepod-8", "ct5lp-hightpu-8t", 1),
        ("v5e:4x4", "tpu-v5litepod-16", "ct5lp-hightpu-4t", 4),
        ("v5p:2x2x1", "tpu-v5p-8", "ct5p-hightpu-4t", 1),
        ("v5p:2x2x2", "tpu-v5p-16", "ct5p-hightpu-4t", 2),
        ("v6e:2x4", "tpu-v6e-8", "ct6e-standard-8t", 1),
        ("v6e:4x4", "tpu-v6e-16", "ct6e-standard-4t", 4),
    ],
)
def test_names(text, accelerator, machine_type, vms):
    tpu = tpu_slices.parse(text)
    assert tpu.topology == text
    assert (accelerator_of(text), tpu.machine_type, tpu.vms) == (accelerator, machine_type, vms)


def test_generations_that_one_interface_lacks():
    assert accelerator_of("v3:2x2x1") == "tpu-v3-8"
    with pytest.raises(ConfigError, match="GKE do not offer this TPU.*docs/machines/sky.md"):
        _ = tpu_slices.parse("v3:2x2x1").machine_type
    assert tpu_slices.parse("tpu7x:2x2x2").machine_type == "tpu7x-standard-4t"
    assert accelerator_of("tpu7x:2x2x2") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5:2x4", "Unknown TPU slice.*Closest matches: v5"),
        ("v5e", "Unknown TPU slice.*for example one of .*v5e:2x4"),
        ("v5e:2x2x1", "another shape"),
        ("v5p:2x2", "another shape.*such as v5p:2x2x1"),
        ("v5e:1x2", "No VM has this number of chips"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(ConfigError, match=message):
        tpu_slices.parse(text)
