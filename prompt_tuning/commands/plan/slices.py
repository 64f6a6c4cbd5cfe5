"""TPU slices by name: what their cores have, and descriptions of them that the compiler takes on any machine."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
import re
from collections.abc import Iterator
from typing import Any

from prompt_tuning.errors import ConfigError

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Core:
    """What JAX takes for one device of a generation.

    Attributes:
      kind: The generation, as in names of slices.
      cores_per_chip: Devices on one chip.
      hbm_bytes: What the compiler gives to a program.
      peak_flops: bfloat16. Unit: operations a second.
      hbm_bandwidth: Unit: bytes a second.
      ici_bandwidth: Sent to other chips over all links. Unit: bytes a second.
      layouts: Slices to try, smallest first.
    """

    kind: str
    cores_per_chip: int
    hbm_bytes: int
    peak_flops: float
    hbm_bandwidth: float
    ici_bandwidth: float
    layouts: tuple[str, ...]

    @property
    def slices(self) -> tuple[str, ...]:
        """Names of the layouts."""
        return tuple(f"{self.kind}:{layout}" for layout in self.layouts)


def _core(
    kind: str,
    cores: int,
    hbm_gib: float,
    tflops: float,
    hbm_gbps: float,
    ici_gbps: float,
    *layouts: str,
) -> Core:
    """A row of the table below, whose rates are those of a chip."""
    return Core(
        kind,
        cores,
        int(hbm_gib * _GIB),
        tflops * 1e12 / cores,
        hbm_gbps * 1e9 / cores,
        ici_gbps * 1e9 / cores,
        layouts,
    )


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8")
# HBM: what libtpu's compiler names as available when a program is too large (libtpu 0.0.52; the rest is its own).
# Rates of a chip: cloud.google.com/tpu/docs, pages v2 to v6e and tpu7x. What a chip sends over all its links is half of
# the bidirectional figure there; for v2 and v3 it is 4 links of 496 and 656 Gbit/s, and for v4 6 links of 50 GB/s
# (Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural networks", and 2023, "TPU v4").
CORES = {
    core.kind: core
    for core in (
        _core("v2", 2, 7.48, 45, 700, 248, "2x2x1", "4x4", "4x8", "8x8", "8x16"),
        _core("v3", 2, 15.48, 123, 900, 328, "2x2x1", "4x4", "4x8", "8x8", "8x16"),
        _core("v4", 2, 15.25, 275, 1200, 300, *_CUBE),
        _core("v5e", 1, 15.75, 197, 819, 200, *_FLAT),
        _core("v5p", 1, 95.73, 459, 2765, 600, *_CUBE),
        _core("v6e", 1, 31.24, 918, 1638, 400, *_FLAT),
        _core("tpu7x", 2, 94.74, 2307, 7380, 600, *_CUBE),
    )
}
_NAME = re.compile(r"([a-z0-9]+):(\d+(?:x\d+)*)")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice that the compiler can compile for.

    Attributes:
      name: For example `v5e:2x4`.
      core: What each device has.
      devices: Descriptions of the devices; no array can be put there.
    """

    name: str
    core: Core
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.devices) // self.core.cores_per_chip


def core_of(name: str) -> Core:
    """Returns what the cores of a slice have.

    Args:
      name: `KIND:LAYOUT`.

    Raises:
      ConfigError: If there is no such generation.
    """
    found = _NAME.fullmatch(name)
    if found is None or found.group(1) not in CORES:
        raise _unknown(name)
    return CORES[found.group(1)]


def num_cores(name: str) -> int:
    """Returns the number of devices of a slice, without asking the compiler."""
    return core_of(name).cores_per_chip * math.prod(_layout(name))


@functools.cache
def describe(name: str) -> Slice:
    """Returns a slice; no TPU is needed.

    Args:
      name: `KIND:LAYOUT`, the layout in chips: `v3:2x2x1` has 8 cores on 4 chips.

    Raises:
      ConfigError: If libtpu is missing, or does not know such a slice.
    """
    core = core_of(name)
    prepare_process()
    # Imported here: the environment above has to be set before JAX loads libtpu.
    from jax.experimental import topologies

    if libtpu_version() is None:
        raise ConfigError(
            "The TPU compiler is not installed",
            got="no package libtpu",
            expected="libtpu, which needs no TPU",
            fix="run `pip install 'prompt-tuning[tpu]'` (Linux on x86)",
        )
    try:
        with compiler_flags():
            topology = topologies.get_topology_desc(name, "tpu", **_host(name))
    except Exception as error:
        # JAX raises its run-time error for all of these.
        if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
            raise
        raise _unknown(name, str(error).splitlines()[0]) from error
    return Slice(name, core, tuple(topology.devices))


def _layout(name: str) -> list[int]:
    """Chips along each direction."""
    return [int(size) for size in name.split(":")[1].split("x")]


def _host(name: str) -> dict[str, tuple[int, ...]]:
    """What libtpu up to 0.0.42 has to be told of a slice that is smaller than the 2 x 2 chips of a host."""
    layout = _layout(name)
    if min(layout[:2]) >= 2:
        return {}
    return {"chips_per_host_bounds": (*(min(2, size) for size in layout[:2]), 1)}


def prepare_process() -> None:
    """Lets libtpu load as a compiler beside whatever else uses it; settings that the user made stay."""
    for variable in ("ALLOW_MULTIPLE_LIBTPU_LOAD", "TPU_SKIP_MDS_QUERY"):
        os.environ.setdefault(variable, "1")
    # Without these libtpu asks for the name of the machine's slice and complains that it has none.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


@contextlib.contextmanager
def compiler_flags() -> Iterator[None]:
    """Hides XLA_FLAGS from libtpu, which ends the process at a flag that it does not know; LIBTPU_INIT_ARGS stay."""
    import jax

    # XLA for the CPU reads them when it starts.
    jax.local_devices(backend="cpu")
    hidden = os.environ.pop("XLA_FLAGS", None)
    try:
        yield
    finally:
        if hidden is not None:
            os.environ["XLA_FLAGS"] = hidden


def libtpu_version() -> str | None:
    """Returns the version of the compiler, or None where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("libtpu")
    return None


def _unknown(name: str, reason: str = "") -> ConfigError:
    """The error of a slice that does not exist."""
    known = [slice_name for core in CORES.values() for slice_name in core.slices]
    return ConfigError(
        "Unknown TPU slice" + (f" ({reason})" if reason else ""),
        got=name,
        expected=f"KIND:LAYOUT in chips, for example one of {', '.join(known)}",
        fix="give --topology one of these",
        name=name,
        candidates=known,
    )
