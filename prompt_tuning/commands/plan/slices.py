"""Descriptions of TPU slices that the compiler takes on any machine."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Iterator
from typing import Any

from prompt_tuning.commands.plan import generations
from prompt_tuning.commands.plan.generations import Generation
from prompt_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice that the compiler can compile for.

    Attributes:
      name: For example `v5e:2x4`.
      generation: What each device has.
      devices: Descriptions of the devices; no array can be put there.
    """

    name: str
    generation: Generation
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return len(self.devices) // self.generation.cores_per_chip


@functools.cache
def describe(name: str) -> Slice:
    """Returns a slice; no TPU is needed.

    Args:
      name: `KIND:LAYOUT`, the layout in chips: `v3:2x2x1` has 8 cores on 4 chips.

    Raises:
      ConfigError: If libtpu is missing, or does not know such a slice.
    """
    generation = generations.generation_of(name)
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
        raise generations.unknown(name, str(error).splitlines()[0]) from error
    return Slice(name, generation, tuple(topology.devices))


def _host(name: str) -> dict[str, tuple[int, ...]]:
    """What libtpu up to 0.0.42 has to be told of a slice that is smaller than the 2 x 2 chips of a host."""
    sizes = generations.sizes_of(name)
    if min(sizes[:2]) >= 2:
        return {}
    return {"chips_per_host_bounds": (*(min(2, size) for size in sizes[:2]), 1)}


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
