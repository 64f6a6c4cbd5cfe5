"""`prompt-tuning reproduce`: measures published numbers again and prints expected beside got.

`released-prompts` evaluates the authors' prompts for T5 1.1 LM-adapted Base (`commands/reproduce/released_prompts.py`
says what they are and how their README is read here) on the public checkpoint, as `prompt-tuning eval` with the
shipped `configs/paper/released_prompts.gin` does. It downloads what it is not given.

`t0` evaluates a published T0 over all templates (`commands/reproduce/t0.py`), as `prompt-tuning eval` with
`configs/runs/t0_eval.gin` does.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands.reproduce import released_prompts, t0
from prompt_tuning.commands.reproduce.released_prompts import EVALUATIONS, Evaluation
from prompt_tuning.config.flags import binding, command_parser, split
from prompt_tuning.data import dataset_checks
from prompt_tuning.errors import CheckpointError, ConfigError, DataError, PromptTuningError
from prompt_tuning.run.text_table import aligned

_GIN_FILE = "prompt_tuning/configs/paper/released_prompts.gin"
_EPILOG = """\
--gin.NAME=VALUE sets what `prompt-tuning eval` would read, for all evaluations:
  prompt-tuning reproduce released-prompts --gin.ACTIVATION_DTYPE="'float32'"
"""
# Flags of one of the two alone.
_ONLY = {"released-prompts": ("prompts_dir", "tfds_data_dir"), "t0": ("model", "templates")}
_COLUMNS = ("prompt", "task", "metric", "examples", "published", "measured", "difference")


@dataclasses.dataclass(frozen=True)
class _Run:
    """An evaluation, ready to run: the prompt's file and the arguments of `evaluate.evaluate`."""

    evaluation: Evaluation
    prompt_path: epath.Path
    arguments: dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Runs `prompt-tuning reproduce`; whether the numbers agree is for the reader to judge.

    Args:
      argv: `released-prompts` or `t0`, and flags.

    Raises:
      CheckpointError: If the checkpoint or a prompt is missing, damaged or of another size.
      ConfigError: If a flag or setting is wrong.
      DataError: If the vocabulary or a data set cannot be had.
    """
    flags = _parse(list(argv))
    # TensorFlow only reads data here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What evaluation says on the way must not end up in the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        output_dir = flags.output_dir or tempfile.mkdtemp(prefix="prompt-tuning-reproduce-")
        measure, table = _REPORTS[flags.what]
        report = measure(flags, output_dir)
    print(json.dumps(report, indent=2) if flags.format == "json" else table(report), flush=True)


def _parse(argv: list[str]) -> argparse.Namespace:
    """Reads the flags; `bindings` holds the gin settings as `files.read` takes them."""
    about = "Measures published numbers again and prints expected beside got."
    parser = command_parser("reproduce", about, _EPILOG)
    add = parser.add_argument
    add("what", choices=list(_ONLY), help="the numbers to measure again")
    add(
        "--checkpoint",
        help="T5 1.1 LM-adapted Base, if not the public one on gs://t5-data; of t0: the folder of the model",
    )
    add(
        "--vocabulary",
        help="T5's SentencePiece model, if not the public one on gs://t5-data, or of t0 the one beside the weights",
    )
    add("--model", help=f"of t0: {', '.join(t0.MODELS)} (default: {next(iter(t0.MODELS))})")
    add("--templates", help="of t0: promptsource's source archive, or a folder of its templates")
    add(
        "--prompts_dir",
        help=f"folder with {', '.join(f'{n}.npy' for n in released_prompts.DIGESTS)};"
        f" without it they are downloaded to {released_prompts.CACHE_DIR}",
    )
    files = ", ".join(e.data_file for e in EVALUATIONS)
    add(
        "--data_dir",
        help=f"folder with the original files ({files}), instead of TensorFlow's;"
        " of t0: folder of JSONL, instead of Hugging Face's data sets",
    )
    add("--tfds_data_dir", help="folder of TensorFlow Datasets; without --data_dir, data is there")
    add("--output_dir", help="folder for predictions and metrics (default: a new one)")
    add("--format", choices=["table", "json"], default="table", help="of what is printed")
    others, bindings = split(argv)
    flags = parser.parse_args(others)
    flags.bindings = bindings
    for what, names in _ONLY.items():
        for name in names:
            if what != flags.what and getattr(flags, name) is not None:
                raise ConfigError(
                    f"reproduce {flags.what} has no flag --{name}",
                    got=getattr(flags, name),
                    expected=f"--{name} with `reproduce {what}`",
                    fix="leave it out",
                )
    return flags


def _reproduce(flags: argparse.Namespace, output_dir: str) -> dict[str, Any]:
    """Checks everything, then evaluates, and returns the report."""
    import jax

    from prompt_tuning import evaluate
    from prompt_tuning.config import resolve

    resolve.set_data_dirs(flags.tfds_data_dir, [])
    runs = [_prepare(evaluation, flags, output_dir) for evaluation in EVALUATIONS]
    # All of it now: a run must not fail over its last data set after an hour of the others.
    _check_model(runs)
    counts = [_check_data(run, flags) for run in runs]
    rows, notes = [], []
    for run, num_examples in zip(runs, counts, strict=True):
        results = evaluate.evaluate(**run.arguments)
        rows += _rows(run, num_examples, results[run.evaluation.task])
        notes += _notes(run, num_examples)
    if flags.bindings:
        given = " ".join(flag for _, flag in flags.bindings)
        notes.append(f"The authors' setting was changed by {given}")
    notes.append(
        "The authors' table does not say whether RTE is GLUE's or SuperGLUE's; the texts differ, and both are measured."
    )
    return {
        "published_in": released_prompts.SCORES_URL,
        "measured_on": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "checkpoint": str(runs[0].arguments["restore_checkpoint_cfg"].path),
        "output_dir": str(output_dir),
        "rows": rows,
        "notes": list(dict.fromkeys(notes)),
    }


def _prepare(evaluation: Evaluation, flags: argparse.Namespace, output_dir: str) -> _Run:
    """Finds the prompt and builds everything that the config of one evaluation describes."""
    from prompt_tuning import evaluate
    from prompt_tuning.config import files, resolve

    if flags.prompts_dir:
        prompt_path = released_prompts.find(evaluation.prompt, flags.prompts_dir)
    else:
        prompt_path = released_prompts.fetch(evaluation.prompt)
    settings = {
        "MIXTURE_OR_TASK_NAME": evaluation.task,
        "MIXTURE_OR_TASK_MODULE": evaluation.module,
        "BATCH_SIZE": evaluation.batch_size,
        "PROMPT_FILE": str(prompt_path),
        "EVAL_OUTPUT_DIR": str(epath.Path(output_dir) / evaluation.name),
        "CHECKPOINT_PATH": flags.checkpoint,
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": flags.vocabulary,
        "TASK_DATA_DIR": flags.data_dir,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    bindings = [binding(f"--gin.{name}={value!r}") for name, value in given.items()]
    parsed = files.read([_GIN_FILE], [*bindings, *flags.bindings], [])
    resolved = resolve.resolve(parsed, evaluate.evaluate, command="eval")
    for warning in resolved.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _Run(evaluation, prompt_path, {**resolved.arguments(), "config_text": resolved.text})


def _check_model(runs: Sequence[_Run]) -> None:
    """Checks the prompts, the vocabulary and the checkpoint, and that batches fit the devices."""
    from prompt_tuning.checkpoints.prompt_files import read
    from prompt_tuning.data import context, vocabularies

    for run in runs:
        arguments = run.arguments
        width = arguments["model"].config.emb_dim
        read.load_prompt(run.prompt_path, setting="--prompts_dir", width=width)
        arguments["partitioner"].check_batch_size(arguments["dataset_cfg"].batch_size)
    arguments = runs[0].arguments
    vocabulary, restore = arguments["model"].output_vocabulary, arguments["restore_checkpoint_cfg"]
    context.set_context(vocabulary=vocabulary)
    try:
        vocabularies.check_vocabulary(vocabulary)
    except DataError as error:
        raise DataError(
            f"T5's vocabulary cannot be read ({_cause(error)})",
            got=str(getattr(vocabulary, "sentencepiece_model_file", vocabulary)),
            expected=f"the model published at {vocabularies.T5_VOCABULARY}",
            fix="download it and name the copy with --vocabulary=FILE",
        ) from error
    try:
        open_source(restore.path, mode=restore.mode)
    except ImportError:
        raise
    # Cloud storage raises errors of its own.
    except Exception as error:
        raise CheckpointError(
            f"The checkpoint cannot be read ({_cause(error)})",
            got=restore.path,
            expected=f"the T5X checkpoint published at {released_prompts.CHECKPOINT}",
            fix="download that folder (`gsutil -m cp -r`) and name the copy with --checkpoint=DIR",
        ) from error


def _check_data(run: _Run, flags: argparse.Namespace) -> int:
    """Checks the data of one evaluation and returns how many examples it has."""
    from prompt_tuning.data import batches, context

    cfg, evaluation = run.arguments["dataset_cfg"], run.evaluation
    vocabulary = run.arguments["model"].output_vocabulary
    context.set_context(vocabulary=vocabulary, data_dir=cfg.data_dir)
    try:
        dataset_checks.check_dataset(cfg)
        return batches.get_task(cfg).num_input_examples(cfg.split) or 0
    except DataError as error:
        raise DataError(
            f"The data of {evaluation.task} cannot be used ({_cause(error)})",
            got=flags.data_dir or flags.tfds_data_dir or "TensorFlow Datasets",
            expected=f"the {evaluation.num_examples} validation examples published at {evaluation.data_url}",
            fix=f"name a folder that holds {evaluation.data_file} with --data_dir=DIR,"
            " or one that TensorFlow Datasets prepared with --tfds_data_dir=DIR",
        ) from error


def _cause(error: Exception) -> str:
    """What went wrong, to be quoted in another error, which has a value and an action of its own."""
    text = " ".join(str(error).split())
    if isinstance(error, PromptTuningError):
        return text.partition(": got ")[0]
    return f"{type(error).__name__}: {text}"


def _rows(run: _Run, num_examples: int, measured: dict[str, float]) -> list[dict[str, Any]]:
    """The rows of the report: one for each published metric."""
    evaluation = run.evaluation
    return [
        {
            "prompt": evaluation.prompt,
            "task": evaluation.task,
            "split": run.arguments["dataset_cfg"].split,
            "examples": num_examples,
            "batch_size": run.arguments["dataset_cfg"].batch_size,
            "metric": metric,
            "published": published,
            "measured": float(measured[metric]),
            "difference": float(measured[metric]) - published,
        }
        for metric, published in evaluation.published.items()
    ]


def _notes(run: _Run, num_examples: int) -> list[str]:
    """What makes a row something else than a reproduction."""
    evaluation, notes = run.evaluation, []
    if not released_prompts.is_released(evaluation.prompt, run.prompt_path):
        notes.append(
            f"{run.prompt_path} is not the released prompt, so its published score does not apply."
        )
    if num_examples != evaluation.num_examples:
        notes.append(
            f"{evaluation.task} has {num_examples} examples here; its score was published for"
            f" {evaluation.num_examples}."
        )
    return notes


def _table(report: dict[str, Any]) -> str:
    """The report for people."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for row in report["rows"]:
        values = (f"{row['published']:g}", f"{row['measured']:.2f}", f"{row['difference']:+.2f}")
        rows.append((row["prompt"], row["task"], row["metric"], str(row["examples"]), *values))
    return "\n".join(
        [
            aligned(rows, num_left=3),
            "",
            f"published: by the authors, in {report['published_in']}",
            f"measured:  here, on {report['measured_on']}, with {report['checkpoint']}",
            *(f"note:      {note}" for note in report["notes"]),
            f"predictions are in {report['output_dir']}",
        ]
    )


# What is measured -> what measures it, and what makes text of that.
_REPORTS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[dict[str, Any]], str]]] = {
    "released-prompts": (_reproduce, _table),
    "t0": (t0.reproduce, t0.table),
}
