"""Write a tuned prompt, or what a method added, as .npy, safetensors or a PEFT adapter."""

import argparse
import sys
from collections.abc import Sequence

from etils import epath

from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files import read as method_read
from prompt_tuning.checkpoints.method_files import write as method_write
from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.prompt_files import source, write
from prompt_tuning.config import recorded
from prompt_tuning.config.flags import command_parser
from prompt_tuning.errors import ConfigError
from prompt_tuning.params.names import PROMPT_PATH, PROMPT_REGEX
from prompt_tuning.run.task_prompt import read_task_prompt

_EPILOG = """\
SOURCE is a run's MODEL_DIR, one checkpoint_{step} of a run or of T5X, a numpy_checkpoints/checkpoint_{step} folder or
the file in it, a .npy or .safetensors file, a PEFT adapter, T-Few's .pt, or hf://owner/name[@revision]. TARGET is a
file, for peft a folder; it must not exist yet. Of a run that tuned a prompt and a method, SOURCE is the prompt; name
method.safetensors beside it for the other.
"""


def main(argv: Sequence[str]) -> None:
    """Writes the prompt at SOURCE, or where there is none what a method added, to TARGET.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If there is no prompt at SOURCE, or it is not one in front of the encoder's input.
      ConfigError: If the flags do not fit SOURCE or TARGET.
    """
    flags = _parser().parse_args(list(argv))
    target = epath.Path(flags.target)
    file_format = flags.format or format_of(target)
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
        write_added(
            flags.source,
            target,
            step=flags.step,
            file_format=file_format,
            base_model=flags.base_model,
        )
    )


def write_added(
    path: epath.PathLike,
    target: epath.Path,
    *,
    step: str | None,
    file_format: str,
    base_model: str | None,
) -> str:
    """Writes the prompt at a source, or where there is none what a method added, and returns what that is.

    Args:
      path: What the command takes as SOURCE.
      target: A file, for "peft" a folder, that does not exist.
      step: Of a MODEL_DIR; see `prompt_files.source.read_source`.
      file_format: One of `write.FORMATS`.
      base_model: See `prompt_files.write.write_prompt`.

    Raises:
      CheckpointError: If there is neither at `path`, or it is damaged.
      ConfigError: If the format does not fit what is there, or `target`.
    """
    if method_read.is_there(path, step=step):
        found = method_read.read_set(path, step=step, setting="SOURCE")
        method_write.write_set(target, found, file_format=file_format, base_model=base_model)
        count = sum(x.size for x in found.params.values())
        return f"{target}: {count:,} parameters of a method, from {found.info['exported_from']}"
    prompt, info = source.read_source(path, step=step)
    if file_format == "peft" and kinds.changes_prompt(info):
        found = method_read.read_set(path, step=step, setting="SOURCE")
        whole = MethodSet({**found.params, PROMPT_PATH: prompt}, found.info)
        method_write.write_set(target, whole, file_format=file_format, base_model=base_model)
        return f"{target}: a prompt and what belongs to its tasks, from {info['exported_from']}"
    write.write_prompt(target, prompt, info, file_format=file_format, base_model=base_model)
    if info.get("trainable_regex") not in (None, [*PROMPT_REGEX]):
        print(
            "warning: the run did not tune the prompt alone; what else it tuned is not exported",
            file=sys.stderr,
        )
    length, width = prompt.shape
    return f"{target}: a prompt of length {length} and width {width}, from {info['exported_from']}"


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = command_parser("export", __doc__, _EPILOG)
    parser.add_argument("source", metavar="SOURCE", help="where the prompt is")
    parser.add_argument("target", metavar="TARGET", help="what is written")
    parser.add_argument(
        "--format",
        choices=write.FORMATS,
        help="default: as the ending of TARGET says, .npy or .safetensors",
    )
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
        " (default: the Hugging Face folder that the run started from, else none)",
    )
    return parser


def format_of(target: epath.Path) -> str:
    """Returns the format that the ending of TARGET means; ConfigError if it means none."""
    ending = target.suffix.removeprefix(".")
    if ending not in ("npy", "safetensors"):
        raise ConfigError(
            "The format of TARGET is not known",
            got=str(target),
            expected="a name that ends in .npy or .safetensors, or --format",
            fix=f"add --format, one of {', '.join(write.FORMATS)}",
        )
    return ending
