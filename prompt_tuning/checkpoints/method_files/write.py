"""Writes what a method added to a model as one file, or as an adapter of PEFT."""

from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.method_set import ABSENT, METHOD, MethodSet
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
        kind = kinds.of_set(found)
        if kind is None or kind.encode_adapter is None:
            raise ConfigError(
                "PEFT has no adapter for this method",
                got=(found.info.get(METHOD) or {}).get("name"),
                expected=kinds.names_of("encode_adapter"),
                fix="export it as .safetensors",
            )
        # PEFT names modules as transformers does, and the names that adapters are written with are T5's.
        if "encoder" in (found.info.get("model") or {}):
            raise ConfigError(
                "An adapter of this method is written for a T5 only",
                got="a T5Gemma's parameters",
                expected="--format=safetensors",
                fix="export it as .safetensors",
            )
        base_model = write.base_model_of(base_model, found.info)
        files = kind.encode_adapter(found, base_model=base_model)
        target.parent.mkdir(parents=True, exist_ok=True)
        write.write_folder(target, files)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        left_out = {} if found.absent is None else {ABSENT: found.absent}
        encoded = write.encode_set(found.params, {**found.info, **left_out})
        json_files.write_atomically(target, encoded)
