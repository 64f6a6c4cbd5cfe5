"""What a run added to its model, as one file or as an adapter of PEFT."""

import sys

from etils import epath

from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files import read as method_read
from prompt_tuning.checkpoints.method_files import write as method_write
from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.prompt_files import source, write
from prompt_tuning.errors import ConfigError
from prompt_tuning.params.names import PROMPT_PATH, PROMPT_REGEX


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
