"""TPU slices, spelled as `prompt-tuning plan --topology=` spells them, and what each of Google's interfaces calls them.

Sources, read in 2026: docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x; runtime versions; OS images),
docs.cloud.google.com/compute/docs/tpus/tpu-machines, and pkg/config/hardware.go of GoogleCloudPlatform/cluster-toolkit.
"""

import dataclasses
import math
import re

from prompt_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPUs.

    Args:
      accelerator_type: Prefix of the Cloud TPU API's accelerator type; "" where that API does not take it.
      counts_cores: Whether the number in that type counts cores, two a chip, instead of chips.
      runtime_version: The Cloud TPU API's software version for JAX.
      machine_type: Compute Engine's and GKE's machine type without its last part, the number of chips of one VM.
      gke_accelerator: GKE's node label.
      image_family: Compute Engine's image; "" where Compute Engine's own interface does not offer the generation.
      dimensions: Numbers in a topology.
      single_host: Chips of the VMs that are a slice alone.
    """

    accelerator_type: str = ""
    counts_cores: bool = False
    runtime_version: str = ""
    machine_type: str = ""
    gke_accelerator: str = ""
    image_family: str = ""
    dimensions: int = 3
    single_host: tuple[int, ...] = (4,)


_OLDER_IMAGE = "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e"
_BASE = "tpu-ubuntu2204-base"
GENERATIONS = {
    "v2": Generation("v2", True, _BASE),
    "v3": Generation("v3", True, _BASE),
    "v4": Generation("v4", True, _BASE, "ct4p-hightpu", "tpu-v4-podslice"),
    "v5e": Generation(
        "v5litepod",
        False,
        "v2-alpha-tpuv5-lite",
        "ct5lp-hightpu",
        "tpu-v5-lite-podslice",
        dimensions=2,
        single_host=(1, 4, 8),
    ),
    "v5p": Generation("v5p", True, "v2-alpha-tpuv5", "ct5p-hightpu", "tpu-v5p-slice", _OLDER_IMAGE),
    "v6e": Generation(
        "v6e",
        False,
        "v2-alpha-tpuv6e",
        "ct6e-standard",
        "tpu-v6e-slice",
        _OLDER_IMAGE,
        dimensions=2,
        single_host=(1, 4, 8),
    ),
    "tpu7x": Generation(
        "",
        machine_type="tpu7x-standard",
        gke_accelerator="tpu7x",
        image_family="ubuntu-accel-2404-amd64-tpu-tpu7x",
    ),
}
_CHIPS_A_VM_OF_MANY = 4


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of TPU chips.

    Args:
      generation: A key of `GENERATIONS`.
      shape: Chips in each dimension, such as `2x4`.
    """

    generation: str
    shape: str

    @property
    def topology(self) -> str:
        """The name that `prompt-tuning plan` knows it by."""
        return f"{self.generation}:{self.shape}"

    @property
    def kind(self) -> Generation:
        """What holds for the whole generation."""
        return GENERATIONS[self.generation]

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(int(size) for size in self.shape.split("x"))

    @property
    def chips_a_vm(self) -> int:
        """Chips of one VM of the slice."""
        return self.chips if self.chips in self.kind.single_host else _CHIPS_A_VM_OF_MANY

    @property
    def vms(self) -> int:
        """VMs of the slice on Compute Engine and GKE."""
        return self.chips // self.chips_a_vm

    @property
    def accelerator_type(self) -> str:
        """The Cloud TPU API's name, such as `v5litepod-8`.

        Raises:
          ConfigError: If that API does not take the generation.
        """
        if not self.kind.accelerator_type:
            raise ConfigError(
                "The Cloud TPU API does not offer this TPU",
                got=self.topology,
                expected="v2 to v6e: newer generations are Compute Engine's and GKE's alone",
                fix="use prompt_tuning.launch.compute_engine or prompt_tuning.launch.gke_jobset",
            )
        number = self.chips * (2 if self.kind.counts_cores else 1)
        return f"{self.kind.accelerator_type}-{number}"

    @property
    def machine_type(self) -> str:
        """Compute Engine's and GKE's machine type of one VM, such as `ct6e-standard-4t`.

        Raises:
          ConfigError: If there is none.
        """
        if not self.kind.machine_type:
            raise ConfigError(
                "Compute Engine and GKE do not offer this TPU",
                got=self.topology,
                expected="v4 or newer",
                fix="use prompt_tuning.launch.tpu_vm",
            )
        return f"{self.kind.machine_type}-{self.chips_a_vm}t"


def parse(text: str) -> Slice:
    """Reads a slice.

    Args:
      text: A generation and a shape, such as `v5e:2x4`.

    Returns:
      The slice.

    Raises:
      ConfigError: If the generation is unknown or the shape has another form.
    """
    generation, _, shape = text.partition(":")
    if generation not in GENERATIONS:
        raise ConfigError(
            "Unknown TPU generation",
            got=text,
            expected=f"GENERATION:SHAPE with one of {', '.join(GENERATIONS)}",
            fix="write it as in --topology=v5e:2x4",
            name=generation,
            candidates=GENERATIONS,
        )
    dimensions = GENERATIONS[generation].dimensions
    numbers = r"[1-9]\d*"
    allowed = {dimensions} | ({2, 3} if generation in ("v2", "v3") else set())
    if not any(re.fullmatch("x".join([numbers] * count), shape) for count in allowed):
        example = "2x4" if dimensions == 2 else "2x2x1"
        raise ConfigError(
            "A TPU topology has another shape",
            got=text,
            expected=f"{dimensions} numbers of chips joined by x, such as {generation}:{example}",
            fix="write the shape of a slice that Google offers",
        )
    found = Slice(generation, shape)
    if found.chips not in found.kind.single_host and found.chips % _CHIPS_A_VM_OF_MANY:
        raise ConfigError(
            "No VM has this number of chips",
            got=text,
            expected=f"{', '.join(map(str, found.kind.single_host))} chips, or a multiple of four",
            fix="write the shape of a slice that Google offers",
        )
    return found
