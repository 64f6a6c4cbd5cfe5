"""How alike tasks are by their prompts, and the best source for another one.

Source: Vu et al. 2022 (SPoT), https://arxiv.org/abs/2110.07904, section 4: a prompt stands for its task, and tasks
whose prompts are alike help one another when the prompt of one is what the other starts from.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints.prompt_files.read import FOLDER
from prompt_tuning.commands.inspect import neighbours
from prompt_tuning.config.flags import command_parser
from prompt_tuning.errors import CheckpointError, ConfigError, check_choice, check_count

# Measure -> what it is called where sources are ranked.
_MEASURES = {"of_means": "by the averaged rows", "of_pairs": "by all pairs of rows"}
_EPILOG = """\
Each prompt is named, NAME=PROMPT: a run's MODEL_DIR (its latest prompt), a numpy_checkpoints/checkpoint_{step} folder,
or anything else that PROMPT_FILE reads. They may differ in length, not in width.
"""


def main(argv: Sequence[str]) -> None:
    """Prints how alike prompts are, and draws it on request.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If a prompt cannot be read, or widths differ.
      ConfigError: If a flag is wrong.
    """
    flags = _parser().parse_args(list(argv))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from prompt_tuning.commands.inspect import pictures, tables

    pictures.check_name(flags.png)
    result = compare(_read_names(flags.prompts), target=flags.target, top=flags.top)
    if flags.png:
        pictures.write(pictures.draw_similarity(result), flags.png)
    if flags.format == "json":
        print(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        tables.print_similarity(result)


def compare(paths: Mapping[str, str], *, target: str | None = None, top: int = 3) -> dict[str, Any]:
    """Returns the similarities of prompts, as `--format=json` prints them.

    Args:
      paths: Name -> what the command takes as PROMPT; at least two.
      target: The name for which the others are ranked; None ranks none.
      top: How many of them are named.

    Raises:
      CheckpointError: If a prompt cannot be read, or widths differ.
      ConfigError: If there is no prompt called `target`, or `top` is below 1.
    """
    check_count("--top", top, "sources")
    if target is not None:
        check_choice("--target", target, paths)
    from prompt_tuning.checkpoints.prompt_files.source import read_source

    read = {name: read_source(path) for name, path in paths.items()}
    _check_comparable(read)
    prompts = [prompt for prompt, _ in read.values()]
    result: dict[str, Any] = {
        "prompts": [
            {
                "name": name,
                "path": info["exported_from"],
                "task": info.get("task"),
                "step": info.get("step"),
                "length": prompt.shape[0],
            }
            for name, (prompt, info) in read.items()
        ],
        "of_means": similarity_of_means(prompts).tolist(),
        "of_pairs": similarity_of_pairs(prompts).tolist(),
        "target": target,
        "sources": None,
    }
    if target is not None:
        result["sources"] = {
            title: _best_sources(result, measure, top) for measure, title in _MEASURES.items()
        }
    return result


def similarity_of_means(
    prompts: Sequence[Float[np.ndarray, "P H"]],
) -> Float[np.ndarray, "N N"]:
    """Returns the cosines of the prompts' averaged rows, SPoT's "cosine similarity of average tokens".

    Args:
      prompts: N prompts [P, H] float32, of any lengths.
    """
    means = np.stack([neighbours.unit(prompt.mean(axis=0, dtype=np.float64)) for prompt in prompts])
    return means @ means.T


def similarity_of_pairs(
    prompts: Sequence[Float[np.ndarray, "P H"]],
) -> Float[np.ndarray, "N N"]:
    """Returns the mean cosine over all pairs of rows, SPoT's "per-token average cosine similarity".

    The similarity of a prompt with itself is 1 only if all its rows have one direction.

    Args:
      prompts: N prompts [P, H] float32, of any lengths.
    """
    # The mean over all pairs is the product of the means of the rows at length 1.
    means = np.stack(
        [neighbours.unit(prompt.astype(np.float64)).mean(axis=0) for prompt in prompts]
    )
    return means @ means.T


def _best_sources(result: Mapping[str, Any], measure: str, top: int) -> list[dict[str, Any]]:
    """The sources that are most similar to the target, best first, and the flags that start from each."""
    prompts = result["prompts"]
    names = [prompt["name"] for prompt in prompts]
    values = result[measure][names.index(result["target"])]
    order = sorted(range(len(names)), key=lambda i: -values[i])
    return [
        {"name": names[i], "similarity": values[i], "flags": _starting_flags(prompts[i])}
        for i in order
        if names[i] != result["target"]
    ][:top]


def _starting_flags(prompt: Mapping[str, Any]) -> list[str]:
    """The flags of `prompt-tuning train` that start from a prompt."""
    path = epath.Path(prompt["path"])
    # A checkpoint holds more than a prompt; the run left that in a file of its own.
    beside = path.parent / FOLDER / path.name
    file = beside if beside.is_dir() else path
    return [
        "--gin_file=prompt_tuning/configs/prompts/from_file.gin",
        f"--gin.PROMPT_FILE=\"'{file}'\"",
        f"--gin.PROMPT_LENGTH={prompt['length']}",
    ]


def _check_comparable(read: Mapping[str, tuple[np.ndarray, Mapping[str, Any]]]) -> None:
    """Raises CheckpointError where widths differ, and warns where prompts belong to other frozen weights."""
    widths = {name: prompt.shape[1] for name, (prompt, _) in read.items()}
    if len(set(widths.values())) > 1:
        raise CheckpointError(
            "The prompts are for models of different widths",
            got=widths,
            expected="one width",
            fix="compare prompts that were tuned on one model",
        )
    digests = {info.get("frozen_digest") for _, info in read.values()} - {None}
    if len(digests) > 1:
        print(
            "warning: the prompts were tuned on different frozen weights: that they are alike or not says little",
            file=sys.stderr,
        )


def _read_names(arguments: Sequence[str]) -> dict[str, str]:
    """Reads NAME=PROMPT."""
    named = {name: path for name, _, path in (item.partition("=") for item in arguments)}
    if not all([*named, *named.values()]) or len(named) < max(2, len(arguments)):
        raise ConfigError(
            "Prompts are not named, or fewer than two, or a name is given twice",
            got=arguments,
            expected="NAME=PROMPT for each of at least two prompts",
            fix="write for example: prompt-tuning similarity mnli=/runs/mnli sst2=/prompts/sst2.npy",
        )
    return named


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = command_parser("similarity", __doc__, _EPILOG)
    add = parser.add_argument
    add("prompts", metavar="NAME=PROMPT", nargs="+", help="the prompts to compare")
    add("--target", metavar="NAME", help="rank the others as sources for this one")
    add("--top", type=int, default=3, help="how many sources to name (default: 3)")
    add("--format", choices=("table", "json"), default="table")
    add("--png", help="heat map to write")
    return parser
