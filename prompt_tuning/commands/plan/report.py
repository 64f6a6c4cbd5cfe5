"""The figures of `prompt-tuning plan` as text; what the compiler says and what is estimated stand apart."""

from collections.abc import Mapping
from typing import Any

_GIB = 2**30


def gib(num_bytes: float | None) -> str:
    """Returns bytes as GiB with two decimals."""
    return "-" if num_bytes is None else f"{num_bytes / _GIB:.2f} GiB"


def table(result: Mapping[str, Any]) -> str:
    """Returns the figures of one step on one slice, one a line.

    Args:
      result: `Figures.to_json()`, with `change` where the step does not fit.
    """
    mesh = " x ".join(f"{size} {name}" for name, size in result["mesh"].items())
    lines = [
        f"{result['mode']} step on {result['topology']}: {result['cores']} cores, mesh {mesh}",
        "",
        f"By the compiler ({result['compiler']}), for each core",
        *_rows(
            ("fits", "yes" if result["fits"] else "NO"),
            ("memory available", gib(result["hbm_bytes_per_core"])),
            ("peak" if result["fits"] else "would take", gib(result["peak_bytes_per_core"])),
            ("temporaries", gib(result["temp_bytes_per_core"])),
        ),
        "From the shardings, for each core",
        *_rows(
            ("weights", gib(result["weight_bytes_per_core"])),
            ("optimizer and step", gib(result["optimizer_bytes_per_core"])),
            ("batch", gib(result["batch_bytes_per_core"])),
        ),
    ]
    if result["fits"]:
        lines += _work(result)
    else:
        lines += ["", f"The compiler: {result['message']}", *_change(result.get("change"))]
    return "\n".join(lines)


def _work(result: Mapping[str, Any]) -> list[str]:
    """The lines on operations and time."""
    if result["flops_per_core"] is None:
        return ["", f"The compiler's program cannot be read: {result['message']}"]
    kinds = [(f"  {kind}", f"{sent / 1e9:.3f} GB") for kind, sent in result["collectives"].items()]
    lines = [
        "Counted in the compiled program, loops by their trips, for each core and step",
        *_rows(
            ("operations", f"{result['flops_per_core'] / 1e12:.3f} TFLOP"),
            ("sent to other cores", f"{result['collective_bytes_per_core'] / 1e9:.3f} GB"),
            *kinds,
        ),
        "Estimates (peaks of the hardware; a run is slower)",
        *_rows(
            ("memory traffic", f"{result['bytes_moved_per_core'] / 1e9:.2f} GB"),
            ("step", f"{result['estimated_step_seconds']:.4f} s, bound by {result['bound_by']}"),
        ),
    ]
    if result["hours"] is not None:
        steps = f"{result['num_steps']:,} steps"
        lines += _rows(
            (steps, f"{result['hours']:.2f} h, {result['chip_hours']:.2f} chip-hours"),
        )
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
        f"  -> peak {gib(change['peak_bytes_per_core'])} a core, {estimate}",
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
        size = gib(row["peak_bytes_per_core"])
        lines.append(f"  {row['topology']:<12} {size:>11}  {verdict:<26} {' '.join(row['flags'])}")
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
