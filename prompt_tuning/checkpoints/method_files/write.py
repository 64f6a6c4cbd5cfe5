"""Writes what a method added to a model as one file, or as an adapter of PEFT."""

from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.method_files import ia3
from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.errors import ConfigError


def write_set(
    target: epath.PathLike,
    found: MethodSet,
    *,
    file_format: str,
    base_model: str | None = None,
) -> None:
    """Writes parameters and what they belong to, so that a reader sees all of it or none.

    Args:
      target: A file, for "peft" a folder, that does not exist; local or gs://.
      found: The parameters.
      file_format: "safetensors" or "peft".
      base_model: See `prompt_files.write.write_prompt`.

    Raises:
      ConfigError: As `prompt_files.write.write_prompt`; or if the format cannot hold them.
    """
    target = epath.Path(target)
    write.check_target(target, file_format=file_format, base_model=base_model)
    if file_format == "npy":
        raise ConfigError(
            "A .npy file holds one array",
            got=f"{len(found.params)} that a method added",
            expected="--format=safetensors or --format=peft",
            fix="name TARGET something.safetensors",
        )
    if file_format == "peft":
        files = ia3.encode_adapter(found, base_model=write.base_model_of(base_model, found.info))
        target.parent.mkdir(parents=True, exist_ok=True)
        write.write_folder(target, files)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        json_files.write_atomically(target, write.encode_set(found.params, found.info))
