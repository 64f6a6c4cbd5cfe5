"""Looks for what fits: the closest change of a run's settings, or the smallest slice."""

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from prompt_tuning.commands.plan import figures, run_step, slices
from prompt_tuning.commands.plan.figures import Figures
from prompt_tuning.commands.plan.generations import GENERATIONS, generation_of, num_cores
from prompt_tuning.commands.plan.run_step import PlannedRun
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.config import REMAT_POLICIES

_PARTITIONS = "partitioning.PjitPartitioner.num_partitions"
_SUBMESH = "partitioning.PjitPartitioner.model_parallel_submesh"
_PARAMETER_DIMS = "partitioning.standard_logical_axis_rules.parameter_partitioning_dims"
_MICROBATCHES = "trainer.Trainer.num_microbatches"
_DTYPE = "utils.RestoreCheckpointConfig.dtype"


@dataclasses.dataclass(frozen=True)
class Change:
    """Settings added to a run: parameter -> gin value."""

    settings: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: "Change") -> "Change":
        """Returns both."""
        return Change(tuple(dict(self.settings + other.settings).items()))

    @property
    def flags(self) -> list[str]:
        """The flags that make it, as a shell takes them."""
        return [
            f'--gin.{name}="{value}"' if "'" in value else f"--gin.{name}={value}"
            for name, value in self.settings
        ]


@dataclasses.dataclass
class Variants:
    """A gin run and its variants.

    Attributes:
      gin_files: See `run_step.read_run`.
      bindings: See `run_step.read_run`.
      search_paths: See `run_step.read_run`.
      mode: See `run_step.read_run`.
    """

    gin_files: Sequence[str]
    bindings: Sequence[tuple[str, str]]
    search_paths: Sequence[str] = ()
    mode: str | None = None

    def read(self, change: Change = Change()) -> PlannedRun:
        """Returns the run with a change.

        Raises:
          ConfigError: If the config is wrong, or does not take the change.
        """
        added = [
            (f"{name} = {value}", flag)
            for (name, value), flag in zip(change.settings, change.flags, strict=True)
        ]
        return run_step.read_run(
            self.gin_files, [*self.bindings, *added], self.search_paths, self.mode
        )

    def measure(self, topology: str, change: Change = Change()) -> Figures:
        """Returns the figures of the run with a change; raises ConfigError as `figures.measure`."""
        return figures.measure(self.read(change), topology)

    def fitting(self, topology: str, change: Change) -> Figures | None:
        """Returns the figures of a variant that the slice may hold; None where that is known without compiling."""
        try:
            run = self.read(change)
            devices = slices.describe(topology).devices
            if run_step.argument_bytes(run, devices) > generation_of(topology).hbm_bytes:
                return None
            print(f"trying {topology} {' '.join(change.flags)}", file=sys.stderr, flush=True)
            return figures.measure(run, topology)
        except ConfigError:
            return None


def closest_change(variants: Variants, too_large: Figures) -> dict[str, Any] | None:
    """Returns the first change, cheapest in time first, with which a step that is too large fits.

    Args:
      variants: The run.
      too_large: Its figures.

    Returns:
      `flags` and the figures of the changed run; None if no change was found.
    """
    for change in changes(variants.read(), too_large):
        found = variants.fitting(too_large.topology, change)
        if found is not None and found.fits:
            return {"flags": change.flags, **found.to_json()}
    return None


def changes(run: PlannedRun, too_large: Figures) -> Iterator[Change]:
    """Yields changes that save memory, first each alone, then all so far together.

    The order is that of their cost: the model on more devices (more sent between them), frozen weights spread over the
    replicas too (sent before use), activations computed twice, microbatches, int8 weights.

    Args:
      run: The run.
      too_large: Its figures.
    """
    cores, now = too_large.cores, too_large.mesh["model"]
    partitions = [_partitions(n) for n in _divisors(cores) if n > now]
    levers: list[list[Change]] = [partitions]
    if run.mode == "train" and now < cores:
        levers.append([Change(((_PARAMETER_DIMS, "2"),))])
    if run.mode == "train":
        assert run.trainer is not None
        policies = list(REMAT_POLICIES)
        later = policies[policies.index(run.model.config.remat_policy) + 1 :]
        remat = f"network.{type(run.model.config).__name__}.remat_policy"
        levers.append([Change(((remat, f"'{name}'"),)) for name in later])
        current = run.trainer.num_microbatches or 1
        # M microbatches divide the temporaries by M at best.
        held = too_large.weight_bytes_per_core + too_large.optimizer_bytes_per_core
        room = max(1, too_large.hbm_bytes_per_core - held)
        least = current * max(1.0, too_large.temp_bytes_per_core / room)
        counts = [n for n in _divisors(run.batch_size) if n > current and n >= least]
        levers.append([Change(((_MICROBATCHES, str(n)),)) for n in counts])
    if run.frozen_dtype == "float32":
        levers.append([Change(((_DTYPE, "'bfloat16'"),))])
    levers.append([Change(((_DTYPE, "'int8'"),))])
    yield from itertools.chain.from_iterable(levers)
    together = Change()
    for lever in filter(None, levers):
        for change in lever if together.settings else ():
            yield together + change
        together = together + lever[-1]


def smallest_slice(variants: Variants, kind: str | None) -> tuple[Figures | None, Change, list]:
    """Returns the figures of the smallest slice that holds the run's step, on its fastest partitioning.

    Args:
      variants: The run.
      kind: Generation to keep to, or None for all.

    Returns:
      The figures or None, the partitioning, and what was tried: slice, flags, whether it fits, peak and estimate.
    """
    if kind is not None and kind not in GENERATIONS:
        raise ConfigError(
            "Unknown kind of TPU",
            got=kind,
            expected=f"one of {', '.join(GENERATIONS)}",
            fix="give --search one of these as --topology, or leave --topology out",
            name=kind,
            candidates=GENERATIONS,
        )
    generations = [GENERATIONS[kind]] if kind else list(GENERATIONS.values())
    names = [name for generation in generations for name in generation.slices]
    tried = []
    for name in sorted(names, key=_size):
        best, how, least = None, Change(), math.inf
        for change in _layouts(name):
            found = variants.fitting(name, change)
            if found is None:
                continue
            tried.append(
                {
                    "topology": name,
                    "flags": change.flags,
                    "fits": found.fits,
                    "peak_bytes_per_core": found.peak_bytes_per_core,
                    "estimated_step_seconds": found.estimated_step_seconds,
                }
            )
            # Without an estimate it is the last choice of those that fit.
            seconds = math.inf if not found.estimated_step_seconds else found.estimated_step_seconds
            if found.fits and (best is None or seconds < least):
                best, how, least = found, change, seconds
        if best is not None:
            return best, how, tried
    return None, Change(), tried


def _layouts(topology: str) -> Iterator[Change]:
    """Partitionings of a slice: one and two dimensions for parameters, few model partitions first."""
    cores = num_cores(topology)
    for count in _divisors(cores):
        yield _partitions(count)
        if count < cores:
            yield _partitions(count) + Change(((_PARAMETER_DIMS, "2"),))


def _partitions(count: int) -> Change:
    """`count` devices for each replica of the model."""
    return Change(((_PARTITIONS, str(count)), (_SUBMESH, "None")))


def _divisors(number: int) -> list[int]:
    """All divisors in order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _size(topology: str) -> tuple[int, int]:
    """Chips, then memory."""
    generation, cores = generation_of(topology), num_cores(topology)
    return cores // generation.cores_per_chip, cores * generation.hbm_bytes
