"""TPU generations and the names of their slices: one table for the compiler and for the launchers.

Sources of `generations.json`:
  HBM: what libtpu's compiler names as available when a program is too large (libtpu 0.0.52; the rest is its own).
  Rates of a chip: cloud.google.com/tpu/docs, pages v2 to v6e and tpu7x. What a chip sends over all its links is half
    of the bidirectional figure there; for v2 and v3 it is 4 links of 496 and 656 Gbit/s, and for v4 6 links of 50 GB/s
    (Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural networks", and 2023, "TPU v4").
  Names, read in 2026: docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x; runtime versions),
    docs.cloud.google.com/compute/docs/tpus/tpu-machines, and pkg/config/hardware.go of
    GoogleCloudPlatform/cluster-toolkit.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPUs.

    Attributes:
      name: As in names of slices.
      cores_per_chip: What JAX takes for devices, on one chip.
      hbm_gib: What the compiler gives to a program on one core. Unit: GiB.
      tflops: bfloat16, of a chip. Unit: 10^12 operations a second.
      hbm_gbps: Of a chip. Unit: 10^9 bytes a second.
      ici_gbps: Sent to other chips over all links of a chip. Unit: 10^9 bytes a second.
      layouts: Slices to try, smallest first, in chips.
      single_host: Chips of the VMs that are a slice alone.
      accelerator_type: Prefix of the Cloud TPU API's accelerator type; "" where that API does not take it.
      counts_cores: Whether the number in that type counts cores, two a chip, instead of chips.
      runtime_version: The Cloud TPU API's software version for JAX.
      machine_type: Compute Engine's and GKE's machine type without its last part, the number of chips of one VM.
      gke_accelerator: GKE's node label.
    """

    name: str
    cores_per_chip: int
    hbm_gib: float
    tflops: float
    hbm_gbps: float
    ici_gbps: float
    layouts: Sequence[str]
    single_host: Sequence[int] = (4,)
    accelerator_type: str = ""
    counts_cores: bool = False
    runtime_version: str = ""
    machine_type: str = ""
    gke_accelerator: str = ""

    @property
    def slices(self) -> list[str]:
        """Names of the layouts."""
        return [f"{self.name}:{layout}" for layout in self.layouts]

    @property
    def hbm_bytes(self) -> int:
        """What the compiler gives to a program on one core. Unit: bytes."""
        return int(self.hbm_gib * 2**30)

    @property
    def peak_flops(self) -> float:
        """One core's share of its chip. Unit: operations a second."""
        return self.tflops * 1e12 / self.cores_per_chip

    @property
    def hbm_bandwidth(self) -> float:
        """One core's share of its chip. Unit: bytes a second."""
        return self.hbm_gbps * 1e9 / self.cores_per_chip

    @property
    def ici_bandwidth(self) -> float:
        """One core's share of its chip. Unit: bytes a second."""
        return self.ici_gbps * 1e9 / self.cores_per_chip


_ROWS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
GENERATIONS = {row["name"]: Generation(**row) for row in _ROWS}


def generation_of(name: str) -> Generation:
    """Returns the generation of a slice.

    Args:
      name: `KIND:LAYOUT`.

    Raises:
      ConfigError: If there is no such generation, or the layout has another form.
    """
    found = re.fullmatch(r"([a-z0-9]+):[1-9]\d*(x[1-9]\d*)*", name)
    if found is None or found[1] not in GENERATIONS:
        raise unknown(name)
    return GENERATIONS[found[1]]


def sizes_of(name: str) -> list[int]:
    """Returns the chips of a slice along each direction."""
    return [int(size) for size in name.split(":")[1].split("x")]


def accelerator_of(name: str) -> str | None:
    """Returns what SkyPilot calls a slice, such as `tpu-v5litepod-8`; None where the Cloud TPU API does not take it."""
    generation = generation_of(name)
    number = math.prod(sizes_of(name)) * (2 if generation.counts_cores else 1)
    return f"tpu-{generation.accelerator_type}-{number}" if generation.accelerator_type else None


def num_cores(name: str) -> int:
    """Returns the number of devices of a slice, without asking the compiler."""
    return generation_of(name).cores_per_chip * math.prod(sizes_of(name))


def unknown(name: str, reason: str = "") -> ConfigError:
    """Returns the error of a slice that does not exist.

    Args:
      name: As it was written.
      reason: Who says so and why, where it was not this table.
    """
    known = [slice_name for row in GENERATIONS.values() for slice_name in row.slices]
    return ConfigError(
        "Unknown TPU slice" + (f" ({reason})" if reason else ""),
        got=name,
        expected=f"KIND:LAYOUT in chips, for example one of {', '.join(known)}",
        fix="give --topology one of these",
        name=name,
        candidates=known,
    )
