"""The command `prompt-tuning inspect`: which words of the frozen model a tuned prompt is near to.

Source: Lester et al. 2021, section 7. The paper shows examples; here every figure stands beside that of random vectors
of the same norms, of the prompt's start, and of every prompt that the run saved.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.config.flags import add_allow_imports, command_parser, whole_number
from prompt_tuning.errors import ConfigError, PromptTuningError

if TYPE_CHECKING:
    from prompt_tuning.checkpoints.source import ParamSource
    from prompt_tuning.commands.inspect.analysis import Analysis
    from prompt_tuning.commands.inspect.frozen_tokens import FrozenTokens
    from prompt_tuning.commands.inspect.origin import Origin

_SEED = 0
_EPILOG = """\
RUN_OR_PROMPT is a run's MODEL_DIR, one of its checkpoint_{step} or numpy_checkpoints/checkpoint_{step} folders, or any
prompt that PROMPT_FILE reads. A run names its own frozen weights, vocabulary and class labels, and is also shown over
time, from its start to every prompt that it saved; of a file from elsewhere these are to be named.
"""


def main(argv: Sequence[str]) -> None:
    """Prints the figures of prompts, and draws them on request.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If a prompt or its frozen weights cannot be read.
      ConfigError: If a flag is wrong, or something that no run recorded is not named.
    """
    flags = _parser().parse_args(list(argv))
    # Only matrices of a few thousand columns are multiplied: accelerators are left to whoever trains.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from prompt_tuning.commands.inspect import pictures, tables

    pictures.check_name(flags.png)
    opened: dict[tuple[str, int], FrozenTokens] = {}
    results = [inspect(source, flags, opened) for source in flags.sources]
    if flags.png:
        pictures.write(pictures.draw_inspections(results), flags.png)
    if flags.format == "json":
        print(json.dumps(results, ensure_ascii=False, indent=1))
    else:
        for result in results:
            tables.print_inspection(result)


def inspect(
    source: str, flags: argparse.Namespace, opened: dict[tuple[str, int], "FrozenTokens"]
) -> dict[str, Any]:
    """Returns the figures of one prompt, as `--format=json` prints them.

    Args:
      source: What the command takes as RUN_OR_PROMPT.
      flags: Parsed flags.
      opened: Frozen tokens that were read before; those of this prompt are added.
    """
    from prompt_tuning.checkpoints.prompt_files.source import read_source
    from prompt_tuning.commands.inspect import analysis, frozen_tokens, origin

    prompt, info = read_source(source, step=flags.step)
    found = origin.find_origin(source, info, flags.allow_imports)
    vocabulary = found.vocabulary(flags.vocabulary, flags.extra_ids)
    checkpoint = found.open_frozen(flags.checkpoint)
    key = (str(checkpoint.path), prompt.shape[1])
    if key not in opened:
        table = frozen_tokens.read_table(checkpoint, prompt.shape[1])
        opened[key] = frozen_tokens.make_tokens(table, vocabulary)
    tokens = opened[key]
    if flags.top > tokens.num_tokens:
        raise ConfigError(
            "More neighbours than there are tokens",
            got=f"--top={flags.top}",
            expected=f"a number from 1 to {tokens.num_tokens}",
            fix="correct the flag",
        )
    names = found.labels if flags.labels is None else flags.labels
    labels = {label: list(vocabulary.encode(label)) for label in names}
    start = _start_of(found, tokens.table, checkpoint, vocabulary)
    saved = found.saved_prompts(prompt.shape[1])
    draws = analysis.random_prompts(prompt, draws=flags.draws, seed=_SEED)
    starts = [] if start is None else [start]
    analyses = analysis.analyse(
        [prompt, *draws, *starts, *saved.values()], tokens, top=flags.top, labels=labels
    )
    shown, analyses = analyses[0], analyses[1:]
    drawn, analyses = analyses[: flags.draws], analyses[flags.draws :]
    first = analyses[0] if starts else None
    course = dict(zip(saved, analyses[len(starts) :], strict=True))
    return {
        "source": info["exported_from"],
        "task": info.get("task"),
        "step": info.get("step"),
        "frozen_weights": str(checkpoint.path),
        "length": prompt.shape[0],
        "width": prompt.shape[1],
        "tokens": tokens.num_tokens,
        "top": flags.top,
        "near_cosine": tokens.near_cosine,
        "token_norm": tokens.mean_norm(),
        "rows": _rows(shown, first, drawn, tokens),
        "groups": _groups(shown, tokens),
        "labels": {name: rows for name, rows in shown.found_in.items()} or None,
        "figures": _figures(shown, first),
        "start": first and first.figures(),
        "random": {"draws": flags.draws, "seed": _SEED, **_mean_and_sd(drawn)},
        "course": _course(first, course),
    }


def _start_of(
    found: "Origin", table: np.ndarray, checkpoint: "ParamSource", vocabulary: Any
) -> np.ndarray | None:
    """The prompt before the first step; None, with a warning, where it cannot be made again."""
    try:
        return found.start(table, checkpoint, vocabulary)
    except PromptTuningError as error:
        print(f"warning: shown without the start of the run: {error}", file=sys.stderr)
        return None


def _rows(
    shown: "Analysis", first: "Analysis | None", drawn: Sequence["Analysis"], tokens: "FrozenTokens"
) -> list[dict[str, Any]]:
    """What is shown of each row."""
    nearest_of_random = np.stack([draw.nearest.distances[:, 0] for draw in drawn])

    def start_of(row: int, first: "Analysis") -> dict[str, Any]:
        return {
            "nearest": tokens.text_of(int(first.nearest.ids[row, 0])),
            "nearest_distance": float(first.nearest.distances[row, 0]),
            "moved": float(np.linalg.norm(shown.prompt[row] - first.prompt[row])),
        }

    return [
        {
            "row": row,
            "norm": float(shown.norms[row]),
            "neighbours": [
                {"id": int(id_), "token": tokens.text_of(int(id_)), "distance": float(distance)}
                for id_, distance in zip(ids, distances, strict=True)
            ],
            "cluster": [tokens.text_of(token) for token in shown.clusters[row]],
            "near_one_another": float(shown.near_one_another[row]),
            "labels": [label for label, found in shown.found_in.items() if row in found],
            "start": first and start_of(row, first),
            "random_nearest_distance": float(nearest_of_random[:, row].mean()),
        }
        for row, (ids, distances) in enumerate(zip(*shown.nearest, strict=True))
    ]


def _groups(shown: "Analysis", tokens: "FrozenTokens") -> list[dict[str, Any]]:
    """Rows that share neighbours, and the tokens that they share, the most shared first."""
    groups = []
    for rows in shown.groups:
        ids, counts = np.unique(shown.nearest.ids[rows], return_counts=True)
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i] > 1]
        shared = [{"token": tokens.text_of(int(ids[i])), "rows": int(counts[i])} for i in order]
        groups.append({"rows": rows, "shared": shared})
    return groups


def _figures(one: "Analysis", first: "Analysis | None") -> dict[str, float]:
    """The figures of a prompt, and how far it is from the start where that is known."""
    return one.figures() | (one.figures_from(first) if first else {})


def _mean_and_sd(drawn: Sequence["Analysis"]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of the draws' figures; with one draw the latter is 0."""
    figures = [draw.figures() for draw in drawn]
    columns = {name: np.array([row[name] for row in figures]) for name in figures[0]}
    spread = 1 if len(drawn) > 1 else 0
    return {
        "mean": {name: float(values.mean()) for name, values in columns.items()},
        "sd": {name: float(values.std(ddof=spread)) for name, values in columns.items()},
    }


def _course(first: "Analysis | None", course: Mapping[int, "Analysis"]) -> list[dict[str, float]]:
    """The figures of the start and of every saved prompt, by step."""
    found = [{"step": 0, **_figures(first, first)}] if first and course else []
    return found + [{"step": step, **_figures(one, first)} for step, one in course.items()]


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = command_parser("inspect", __doc__, _EPILOG)
    add = parser.add_argument
    add("sources", metavar="RUN_OR_PROMPT", nargs="+", help="what to look at")
    add_allow_imports(parser)
    add("--step", help="of a MODEL_DIR: a number, latest (the default) or best, by the dev metric")
    add("--top", type=whole_number(1), default=5, help="neighbours of each row (default: 5)")
    add(
        "--labels",
        type=lambda text: [label for label in text.split(",") if label],
        help="class labels to look for, comma-separated (default: those that the run started from)",
    )
    add(
        "--draws",
        type=whole_number(1),
        default=5,
        help="random prompts to compare with (default: 5)",
    )
    add("--checkpoint", help="the frozen weights (default: those that the run recorded)")
    add("--vocabulary", help="SentencePiece model (default: that of the run)")
    add(
        "--extra_ids",
        type=whole_number(0),
        default=100,
        help="sentinels added to it (default: 100)",
    )
    add("--format", choices=("table", "json"), default="table")
    add("--png", help="picture to write: distances by row and over time")
    return parser
