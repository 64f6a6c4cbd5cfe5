"""The command `prompt-tuning plan`: compiles the step of a run for a TPU slice and prints what it takes there."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Any

from prompt_tuning.config.flags import gin_parser, parse
from prompt_tuning.errors import ConfigError

_FORMATS = ("table", "json")


def main(argv: Sequence[str]) -> int:
    """Plans a run.

    Args:
      argv: Flags.

    Returns:
      Exit code: 0 if the step fits, 1 if it does not.

    Raises:
      ConfigError: If a flag, the config or the slice is wrong.
    """
    parser = gin_parser("plan", __doc__)
    add = parser.add_argument
    add("--topology", help="slice to compile for, KIND:LAYOUT in chips, e.g. v5e:2x4 or v3:2x2x1")
    add("--mode", help="train, eval (teacher forcing) or decode; default: what the gin files do")
    add("--format", default="table", choices=_FORMATS, help="table (default) or json")
    add(
        "--search",
        action="store_true",
        help="find the smallest slice that fits; --topology=KIND keeps to one generation",
    )
    flags = parse(parser, argv)
    # The step is compiled for described devices; those of this machine, if any, are left alone.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from prompt_tuning.commands.plan import report, run_step, search, slices

    slices.prepare_process()
    if flags.mode not in (None, *run_step.MODES):
        raise ConfigError(
            "Unknown --mode",
            got=flags.mode,
            expected=f"one of {', '.join(run_step.MODES)}",
            fix="write one of them",
            name=flags.mode,
            candidates=run_step.MODES,
        )
    variants = search.Variants(flags.gin_file, flags.bindings, flags.gin_search_paths, flags.mode)
    if flags.search:
        return _search(flags, variants)
    if not flags.topology:
        raise ConfigError(
            "No slice is named",
            got=None,
            expected="--topology=KIND:LAYOUT, or --search",
            fix="add for example --topology=v5e:2x4",
        )
    figures = variants.measure(flags.topology)
    result: dict[str, Any] = figures.to_json()
    result["change"] = None if figures.fits else search.closest_change(variants, figures)
    print(json.dumps(result) if flags.format == "json" else report.table(result), flush=True)
    return 0 if figures.fits else 1


def _search(flags: argparse.Namespace, variants: Any) -> int:
    """Runs `--search`."""
    from prompt_tuning.commands.plan import report, search

    found, change, tried = search.smallest_slice(variants, flags.topology)
    result = {
        **(found.to_json() if found else {"fits": False}),
        "flags": change.flags,
        "tried": tried,
    }
    print(json.dumps(result) if flags.format == "json" else report.search_table(result), flush=True)
    return 0 if found else 1
