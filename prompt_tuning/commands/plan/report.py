"""The figures of `prompt-tuning plan` as text; what the compiler says and what is estimated stand apart."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.commands.plan.generations import accelerator_of, generation_of

_BINARY, _DECIMAL = ("GiB", "MiB", 1024), ("GB", "MB", 1000)
# What binds a step, as the lines above it are called.
_BOUNDS = {"compute": "operations", "memory": "memory traffic", "links": "what is sent"}


def size(num_bytes: float, units: tuple[str, str, int] = _BINARY) -> str:
    """Returns bytes with two decimals, in the larger unit or, where that would be almost 0, in the smaller one."""
    large, small, factor = units
    if num_bytes >= 0.1 * factor**3:
        return f"{num_bytes / factor**3:.2f} {large}"
    return f"{num_bytes / factor**2:.2f} {small}"


def table(result: Mapping[str, Any]) -> str:
    """Returns the figures of one step on one slice, one a line.

    Args:
      result: `Figures.to_json()`, with `change` where the step does not fit.
    """
    mesh = " x ".join(f"{count} {name}" for name, count in result["mesh"].items())
    cores = "1 core" if result["cores"] == 1 else f"{result['cores']} cores"
    lines = [
        f"{result['mode']} step on {result['topology']}: {cores}, mesh {mesh}",
        *_in_skypilot(result["topology"]),
        "",
        f"Memory of each core, by the compiler ({result['compiler']})",
        *_rows(
            ("fits", "yes" if result["fits"] else "NO"),
            ("available", size(result["hbm_bytes_per_core"])),
            (
                "peak, all included" if result["fits"] else "would take",
                size(result["peak_bytes_per_core"]),
            ),
            ("temporaries", size(result["temp_bytes_per_core"])),
        ),
        "Memory of each core for what a step is given, without padding",
        *_rows(
            ("weights", size(result["weight_bytes_per_core"])),
            ("optimizer and step", size(result["optimizer_bytes_per_core"])),
            ("batch", size(result["batch_bytes_per_core"])),
        ),
    ]
    if result["fits"]:
        lines += _work(result)
    else:
        lines += ["", f"The compiler: {result['message']}", *_change(result.get("change"))]
    return "\n".join(lines)


def _in_skypilot(topology: str) -> list[str]:
    """The line that says what launch/sky/*.yaml call the slice, where SkyPilot has it."""
    accelerator, version = accelerator_of(topology), generation_of(topology).runtime_version
    return [f"SkyPilot: {accelerator}, runtime_version {version}"] if accelerator else []


def _work(result: Mapping[str, Any]) -> list[str]:
    """The lines on operations and time."""
    if result["flops_per_core"] is None:
        return ["", f"The compiler's program cannot be read: {result['message']}"]
    kinds = [(f"  {kind}", size(sent, _DECIMAL)) for kind, sent in result["collectives"].items()]
    bound = _BOUNDS[result["bound_by"]]
    lines = [
        "Work of each core in a step, counted in the compiled program",
        *_rows(
            ("operations", f"{result['flops_per_core'] / 1e12:.3f} TFLOP"),
            ("sent to other cores", size(result["collective_bytes_per_core"], _DECIMAL)),
            *kinds,
        ),
        "Estimates, at the peak rates of the hardware: a run is slower",
        *_rows(
            ("memory traffic", size(result["bytes_moved_per_core"], _DECIMAL)),
            ("step", f"{_seconds(result['estimated_step_seconds'])}, bound by {bound}"),
        ),
    ]
    if result["hours"] is not None:
        hours = f"{result['hours']:.2f} h, {result['chip_hours']:.2f} chip-hours"
        # Training cuts most of them; the widest is compiled here.
        steps = (
            f"{result['num_steps']:,} steps",
            f"{hours}, with every batch as wide as TASK_FEATURE_LENGTHS",
        )
        lines += _rows(steps)
    if result["unknown_loops"]:
        lines.append(f"  {result['unknown_loops']} loop(s) of unknown length are counted once")
    return lines


def _change(change: Mapping[str, Any] | None) -> list[str]:
    """The lines on what would make it fit."""
    if change is None:
        return ["No change of partitioning, rematerialization, microbatches or weights was found."]
    estimate = f"{_seconds(change['estimated_step_seconds'])} a step (estimate)"
    return [
        "The closest change with which it fits:",
        *(f"  {flag}" for flag in change["flags"]),
        f"  -> peak {size(change['peak_bytes_per_core'])} a core, {estimate}",
    ]


def search_table(result: Mapping[str, Any]) -> str:
    """Returns what `--search` found and tried.

    Args:
      result: As the command's JSON.
    """
    lines = ["tried"]
    for row in result["tried"]:
        seconds = _seconds(row["estimated_step_seconds"])
        verdict = f"fits, {seconds} (estimate)" if row["fits"] else "too large"
        peak = size(row["peak_bytes_per_core"])
        lines.append(f"  {row['topology']:<12} {peak:>11}  {verdict:<26} {' '.join(row['flags'])}")
    if not result["fits"]:
        return "\n".join([*lines, "", "No slice that is known here holds this step."])
    flags = [f"  {flag}" for flag in (f"--topology={result['topology']}", *result["flags"])]
    return "\n".join([*lines, "", "The smallest slice that fits:", *flags, "", table(result)])


def _seconds(seconds: float | None) -> str:
    """A time, where there is an estimate."""
    return "unknown time" if seconds is None else f"{seconds:.4f} s"


def _rows(*rows: tuple[str, str]) -> list[str]:
    """Names and values in two columns."""
    return [f"  {name:<22} {value}" for name, value in rows]
