"""The command `prompt-tuning export`: to other programs, what a run added or the whole model that it tuned."""

import argparse
from collections.abc import Sequence

from etils import epath

from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.commands.export import added, model
from prompt_tuning.config import recorded
from prompt_tuning.config.flags import command_parser
from prompt_tuning.errors import check_choice
from prompt_tuning.run.task_prompt import read_task_prompt

_EPILOG = """\
SOURCE is a run's MODEL_DIR, one checkpoint_{step} of a run or of T5X, a numpy_checkpoints/checkpoint_{step} folder or
the file in it, a .npy or .safetensors file, a PEFT adapter, T-Few's .pt, or hf://owner/name[@revision]. TARGET is a
file, for peft a folder; it must not exist yet. Of a run that tuned a prompt and a method, SOURCE is the prompt; name
method.safetensors beside it for the other.

With --model, SOURCE is a MODEL_DIR or any checkpoint, and TARGET the folder of a whole model: for transformers, in
files of at most 5 GB with its configuration and its tokenizer, or for T5X, layer by layer. (IA)3's factors and LoRA's
products are taken into the weights; a prompt is not part of a model that transformers has.
"""
_DESCRIPTION = (
    "Writes a prompt, what a method added, or a whole model in the form of another program."
)


def main(argv: Sequence[str]) -> None:
    """Writes the model, the prompt, or where there is none what a method added, to TARGET.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If there is none at SOURCE, or it cannot be written in this form.
      ConfigError: If the flags do not fit SOURCE or TARGET.
    """
    flags = _parser().parse_args(list(argv))
    if flags.format is not None:
        formats = model.FORMATS if flags.model else write.FORMATS
        check_choice(
            f"--format {'with' if flags.model else 'without'} --model", flags.format, formats
        )
    if flags.model:
        print(model.export_model(flags))
        return
    target = epath.Path(flags.target)
    file_format = flags.format or added.format_of(target)
    if flags.task is not None:
        prompt, info = read_task_prompt(
            flags.source, flags.task, recorded.build_method, step=flags.step
        )
        write.write_prompt(
            target, prompt, info, file_format=file_format, base_model=flags.base_model
        )
        print(f"{target}: the prompt of {flags.task}, of length {len(prompt)}, as a plain one")
        return
    print(
        added.write_added(
            flags.source,
            target,
            step=flags.step,
            file_format=file_format,
            base_model=flags.base_model,
        )
    )


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = command_parser("export", _DESCRIPTION, _EPILOG)
    parser.add_argument("source", metavar="SOURCE", help="where it is")
    parser.add_argument("target", metavar="TARGET", help="what is written")
    parser.add_argument(
        "--format",
        choices=(*write.FORMATS, *model.FORMATS),
        help="default: as the ending of TARGET says, .npy or .safetensors; with --model huggingface or t5x, by default"
        " the first",
    )
    parser.add_argument("--model", action="store_true", help="write the whole model")
    parser.add_argument(
        "--step", help="of a MODEL_DIR: a number, latest (the default) or best, by the dev metric"
    )
    parser.add_argument(
        "--task",
        help="of a run that has a prompt for each task: the prompt of one of them, as a plain one",
    )
    parser.add_argument(
        "--base_model",
        help="of a PEFT adapter: name or path of the model it is for, as PEFT records it"
        " (default: the Hugging Face folder that the run started from, else none); with --model: a folder of a model of"
        " the same size and family, whose tokenizer is copied and whose config.json says what the weights do not",
    )
    return parser
