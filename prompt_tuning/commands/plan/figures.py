"""Compiles a run's step for a slice and gathers the compiler's figures and the estimates that follow from them."""

import dataclasses
import re
from typing import Any

from prompt_tuning.commands.plan import hlo, hlo_costs, slices
from prompt_tuning.commands.plan.generations import Generation
from prompt_tuning.commands.plan.run_step import PlannedRun, StepOnCores, step_on

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TOO_LARGE = "RESOURCE_EXHAUSTED"
_UNWRITABLE = "hlo_instruction"


@dataclasses.dataclass(frozen=True)
class Figures:
    """What is known of a step on a slice; memory, operations and bytes are those of one core.

    Attributes:
      topology: Name of the slice.
      mode: `train`, `eval` or `decode`.
      fits: Whether the compiler accepts the program.
      mesh: Devices along `data` and `model`.
      cores: Devices of the slice.
      hbm_bytes_per_core: What the compiler gives to a program.
      peak_bytes_per_core: Most memory in use at once, by the compiler. Where it does not fit, what it would take.
      weight_bytes_per_core: All parameters, from their shardings.
      optimizer_bytes_per_core: The rest of the training state, from its shardings.
      batch_bytes_per_core: The batch, from its sharding.
      temp_bytes_per_core: Intermediate values, by the compiler.
      flops_per_core: See `hlo_costs.Costs`; None where it does not fit or the program cannot be read, as below.
      bytes_moved_per_core: An estimate; see `hlo_costs.Costs`.
      collective_bytes_per_core: Sum of the next.
      collectives: Bytes sent, by kind.
      unknown_loops: Loops that were counted once.
      estimated_step_seconds: The largest of three quotients (roofline): operations, memory and links at their peaks.
      bound_by: Which of the three: `compute`, `memory` or `links`.
      num_steps: Updates of the run.
      hours: `num_steps` times the estimate.
      chip_hours: Times the chips.
      compiler: Version of libtpu.
      message: The compiler's own words where it does not fit or its program cannot be read.
    """

    topology: str
    mode: str
    fits: bool
    mesh: dict[str, int]
    cores: int
    hbm_bytes_per_core: int
    peak_bytes_per_core: int
    weight_bytes_per_core: int
    optimizer_bytes_per_core: int
    batch_bytes_per_core: int
    temp_bytes_per_core: int
    flops_per_core: float | None = None
    bytes_moved_per_core: float | None = None
    collective_bytes_per_core: float | None = None
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0
    estimated_step_seconds: float | None = None
    bound_by: str | None = None
    num_steps: int | None = None
    hours: float | None = None
    chip_hours: float | None = None
    compiler: str = ""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as JSON values."""
        return dataclasses.asdict(self)


def measure(run: PlannedRun, name: str) -> Figures:
    """Compiles the step of a run for a slice.

    Args:
      run: The run.
      name: The slice.

    Returns:
      The figures, whether or not the step fits.

    Raises:
      ConfigError: If there is no such slice, or the run's batch or parameters cannot be spread over it.
    """
    where = slices.describe(name)
    step = step_on(run, where.devices)
    mesh = run.partitioner.on(where.devices).mesh
    known = {
        "topology": name,
        "mode": run.mode,
        "mesh": dict(mesh.shape),
        "cores": len(where.devices),
        "weight_bytes_per_core": step.weight_bytes,
        "optimizer_bytes_per_core": step.optimizer_bytes,
        "batch_bytes_per_core": step.batch_bytes,
        "num_steps": run.num_steps if run.mode == "train" else None,
        "compiler": f"libtpu {slices.libtpu_version()}",
    }
    try:
        with slices.compiler_flags():
            compiled = step.lowered.compile()
    except Exception as error:
        # JAX has one error for everything that a compiler says.
        if _TOO_LARGE not in str(error):
            raise
        return Figures(
            fits=False, **known, **too_large(str(error), step, where.generation.hbm_bytes)
        )
    memory = compiled.memory_analysis()
    return Figures(
        fits=True,
        hbm_bytes_per_core=where.generation.hbm_bytes,
        peak_bytes_per_core=memory.peak_memory_in_bytes,
        temp_bytes_per_core=memory.temp_size_in_bytes,
        **known,
        **cost_figures(compiled, where, known["num_steps"]),
    )


def cost_figures(compiled: Any, where: slices.Slice, num_steps: int | None) -> dict[str, Any]:
    """Returns the figures that come from the compiled program's text.

    Args:
      compiled: The program.
      where: Its slice.
      num_steps: Updates of the run; None if it makes none.

    Returns:
      Fields of `Figures`; only `message` where libtpu cannot write the program down: 0.0.52 sometimes cannot for v6e.
    """
    try:
        text = compiled.as_text()
    except Exception as error:
        # JAX has one error for everything that a compiler says.
        if _UNWRITABLE not in str(error):
            raise
        return {"message": f"no operations and bytes: {str(error).splitlines()[0]}"}
    costs = hlo_costs.costs_of(hlo.parse(text))
    seconds, bound_by = estimate_seconds(costs, where.generation)
    hours = num_steps * seconds / 3600 if num_steps else None
    return {
        "flops_per_core": costs.flops,
        "bytes_moved_per_core": costs.bytes_moved,
        "collective_bytes_per_core": sum(costs.collectives.values()),
        "collectives": costs.collectives,
        "unknown_loops": costs.unknown_loops,
        "estimated_step_seconds": seconds,
        "bound_by": bound_by,
        "hours": hours,
        "chip_hours": hours * where.chips if hours is not None else None,
    }


def estimate_seconds(costs: hlo_costs.Costs, generation: Generation) -> tuple[float, str]:
    """Returns the roofline estimate of a step: the time of what takes longest if nothing ever waits.

    Args:
      costs: Of one core.
      generation: Its peaks.

    Returns:
      Seconds, and which peak binds.
    """
    sent = sum(costs.collectives.values())
    # A chip's rates were shared out among its cores.
    quotients = {
        "compute": costs.flops / generation.peak_flops,
        "memory": costs.bytes_moved / generation.hbm_bandwidth,
        "links": sent / generation.ici_bandwidth,
    }
    bound_by = max(quotients, key=lambda name: quotients[name])
    return quotients[bound_by], bound_by


def too_large(message: str, step: StepOnCores, hbm_bytes: int) -> dict[str, Any]:
    """Returns the memory figures in the compiler's refusal.

    Args:
      message: What it said.
      step: What the arguments take.
      hbm_bytes: What the table says is there; the message's own figure wins.
    """
    arguments = step.weight_bytes + step.optimizer_bytes + step.batch_bytes
    available = _bytes_in(message, r"exceeds available HBM \(([\d.]+)([KMGT]?)\)") or _bytes_in(
        message, r"of ([\d.]+)([KMGT]?) hbm"
    )
    temporaries = _bytes_in(message, r"HLO temporaries \(([\d.]+)([KMGT]?)\)") or _bytes_in(
        message, r"HLO temp\s+([\d.]+)([KMGT]?)"
    )
    used = _bytes_in(message, r"Used ([\d.]+)([KMGT]?) of")
    temporaries = temporaries if temporaries is not None else max(0, (used or 0) - arguments)
    return {
        "hbm_bytes_per_core": available or hbm_bytes,
        "peak_bytes_per_core": used or arguments + temporaries,
        "temp_bytes_per_core": temporaries,
        "message": message.strip().splitlines()[0],
    }


def _bytes_in(message: str, pattern: str) -> int | None:
    """The size that a pattern finds as number and unit."""
    found = re.search(pattern, message)
    return int(float(found.group(1)) * _UNITS[found.group(2)]) if found else None
