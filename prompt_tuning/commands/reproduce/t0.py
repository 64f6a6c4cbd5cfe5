"""T0's zero-shot evaluation of a published checkpoint: every template of every task, ours beside the published numbers.

Neither the weights (https://huggingface.co/bigscience) nor the templates (promptsource, of which the source archive is
enough) come with this package or are downloaded by it: errors say where they are.
"""

import argparse
import sys
from typing import Any

from etils import epath

from prompt_tuning.config.flags import binding
from prompt_tuning.data.t0 import published
from prompt_tuning.errors import ConfigError, check_choice
from prompt_tuning.run import template_table

# Published checkpoint -> the size of its model.
MODELS = {"T0_3B": "xl", "T0": "xxl", "T0p": "xxl", "T0pp": "xxl"}
HUB = "https://huggingface.co/bigscience"
TEMPLATES = "pip download --no-deps --no-binary=:all: --python-version=3.7 promptsource==0.1.0"
_GIN_FILES = (
    "prompt_tuning/configs/models/t5_1_1_{size}.gin",
    "prompt_tuning/configs/runs/t0_eval.gin",
)


def reproduce(flags: argparse.Namespace, output_dir: str) -> dict[str, Any]:
    """Evaluates a checkpoint and returns the report.

    Args:
      flags: Those of the command: `model`, `checkpoint`, `templates`, `vocabulary`, `data_dir`, `bindings`.
      output_dir: Where metrics, predictions and `template_scores.json` go.

    Returns:
      What `template_table.summarize` returns, with `model`, `checkpoint`, `measured_on`, `output_dir` and `notes`.

    Raises:
      ConfigError: If the checkpoint or the templates are not named, or a setting is wrong.
      CheckpointError: If the checkpoint is damaged or of another size.
      DataError: If templates or data cannot be had.
    """
    import jax

    from prompt_tuning import evaluate
    from prompt_tuning.config import files, resolve

    model = flags.model or next(iter(MODELS))
    check_choice("--model", model, MODELS)
    _check_what_is_needed(flags, model)
    settings = {
        "CHECKPOINT_PATH": flags.checkpoint,
        "EVAL_OUTPUT_DIR": output_dir,
        "tasks.t0.templates": flags.templates,
        "tasks.t0.data": flags.data_dir,
        **_vocabulary(flags),
    }
    given = {name: value for name, value in settings.items() if value is not None}
    bindings = [binding(f"--gin.{name}={value!r}") for name, value in given.items()]
    gin_files = [name.format(size=MODELS[model]) for name in _GIN_FILES]
    parsed = files.read(gin_files, [*bindings, *flags.bindings], [])
    resolved = resolve.resolve(parsed, evaluate.evaluate, command="eval")
    for warning in resolved.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    results = evaluate.evaluate(**resolved.arguments(), config_text=resolved.text)
    summary = template_table.summarize(results)
    if summary is None:
        raise ConfigError(
            "The tasks that were evaluated are not made of templates",
            got=", ".join(results),
            expected="T0's evaluation, or another mixture of templates",
            fix="leave MIXTURE_OR_TASK_NAME as it is",
        )
    return {
        **summary,
        "model": model,
        "checkpoint": str(flags.checkpoint),
        "measured_on": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "output_dir": output_dir,
        "notes": _notes(flags, summary),
    }


def table(report: dict[str, Any]) -> str:
    """Returns the report for people.

    Args:
      report: From `reproduce`.
    """
    return "\n".join(
        [
            template_table.text(report),
            "",
            f"measured: here, on {report['measured_on']}, {report['model']} of {report['checkpoint']}",
            *(f"note:     {note}" for note in report["notes"]),
            f"scores of every template are in {report['output_dir']}",
        ]
    )


def _notes(flags: argparse.Namespace, summary: dict[str, Any]) -> list[str]:
    """What makes the numbers others than T0's."""
    notes = []
    missing = [name for name in published.MODELS[0]["scores"] if name not in summary["datasets"]]
    if missing:
        notes.append(f"Not measured, and in no mean: {', '.join(missing)}")
    if flags.bindings:
        notes.append(f"T0's setting was changed by {' '.join(flag for _, flag in flags.bindings)}")
    return notes


def _check_what_is_needed(flags: argparse.Namespace, model: str) -> None:
    """Raises ConfigError, with where to get it, if the checkpoint or the templates are not there."""
    needed = {
        "checkpoint": (
            f"the folder of {HUB}/{model}, with config.json and its weights",
            f"download it (`hf download bigscience/{model} --local-dir=DIR`) and name it with --checkpoint=DIR",
        ),
        "templates": (
            "promptsource's source archive, or a folder of its templates",
            f"download it (`{TEMPLATES}`) and name it with --templates=FILE",
        ),
    }
    for flag, (expected, fix) in needed.items():
        path = getattr(flags, flag)
        if path is None or not epath.Path(path).exists():
            raise ConfigError(f"reproduce t0 needs --{flag}", got=path, expected=expected, fix=fix)


def _vocabulary(flags: argparse.Namespace) -> dict[str, Any]:
    """T5's SentencePiece model: the user's file, else the one beside the weights, else the public one."""
    if flags.vocabulary:
        return {"seqio.SentencePieceVocabulary.sentencepiece_model_file": flags.vocabulary}
    beside = epath.Path(flags.checkpoint) / "spiece.model"
    if not beside.exists():
        return {}
    # Hugging Face's file has no sentinels.
    return {
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": str(beside),
        "seqio.SentencePieceVocabulary.extra_ids": 100,
    }
