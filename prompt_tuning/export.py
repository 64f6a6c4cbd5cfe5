"""The `export` command: a tuned prompt as a NumPy file, a safetensors file or a PEFT adapter."""

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning import matrix_files, peft_adapter, prompt_formats
from prompt_tuning.checkpoints import (
    json_files,
    paths,
    run_format,
    sources,
    t5x_format,
    t5x_orbax_format,
)
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.initialization import PROMPT_REGEX
from prompt_tuning.prompts.prompt import PROMPT_PATH

FORMATS = ("npy", "safetensors", "peft")
# The steps that a MODEL_DIR names itself.
_LATEST, _BEST = "latest", "best"
_LEDGER = "best.json"
_EPILOG = """\
SOURCE is a run's MODEL_DIR, one checkpoint_{step} of a run or of T5X, a numpy_checkpoints/checkpoint_{step} folder or
the file in it, a .npy or .safetensors file, or a PEFT adapter. TARGET is a file, for peft a folder; it must not exist
yet.
"""


def main(argv: Sequence[str]) -> None:
    """Writes the prompt at SOURCE to TARGET.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If there is no prompt at SOURCE, or it is not one in front of the encoder's input.
      ConfigError: If the flags do not fit SOURCE or TARGET.
    """
    flags = _parser().parse_args(list(argv))
    target = epath.Path(flags.target)
    file_format = flags.format or _format_of(target)
    prompt, info = read_source(flags.source, step=flags.step)
    write_prompt(target, prompt, info, file_format=file_format, base_model=flags.base_model)
    if info.get("trainable_regex") not in (None, [*PROMPT_REGEX]):
        print(
            "warning: the run did not tune the prompt alone; what else it tuned is not exported",
            file=sys.stderr,
        )
    length, width = prompt.shape
    print(f"{target}: a prompt of length {length} and width {width}, from {info['exported_from']}")


def read_source(
    source: epath.PathLike, *, step: str | None = None, setting: str = "SOURCE"
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns the prompt [P, H] float32 at a source, and what it belongs to.

    Args:
      source: What the command takes as SOURCE; local or gs://.
      step: A step of a MODEL_DIR, "latest" or "best"; None means "latest".
      setting: What names it, for messages.

    Raises:
      CheckpointError: If there is no prompt, or it is damaged.
      ConfigError: If a step is asked for that is not there, or of something that has no steps.
    """
    path = paths.absolute(source)
    folder = path / prompt_formats.FOLDER
    if folder.is_dir():
        path = folder / f"{prompt_formats.STEP_PREFIX}{_choose_step(path, folder, step)}"
    elif step is not None:
        raise ConfigError(
            "--step chooses among the prompts of a run",
            got=f"--step={step} of {path}",
            expected=f"a MODEL_DIR that holds {prompt_formats.FOLDER}",
            fix="leave --step out, or name the MODEL_DIR",
        )
    if run_format.is_run_checkpoint(path):
        shapes = run_format.read_trainable(path)
        _check_place(path, shapes)
        prompt = run_format.read_leaf(path, run_format.TRAINABLE + PROMPT_PATH)
        info: dict[str, Any] = run_format.read_metadata(path)
    elif t5x_format.is_t5x_checkpoint(path) or t5x_orbax_format.is_t5x_orbax_checkpoint(path):
        checkpoint = sources.open_source(path)
        _check_place(path, checkpoint.shapes())
        prompt = checkpoint.read(PROMPT_PATH)
        info = {"step": checkpoint.step}
    else:
        prompt, recorded = prompt_formats.load_prompt(path, setting=setting)
        info = recorded or {}
    model = info.get("model")
    width = model.get("emb_dim") if isinstance(model, dict) else None
    prompt = matrix_files.check_matrix(prompt, path, what="prompt", setting=setting, width=width)
    return prompt, {**info, "exported_from": str(path)}


def write_prompt(
    target: epath.PathLike,
    prompt: Float[np.ndarray, "P H"],
    info: Mapping[str, Any],
    *,
    file_format: str,
    base_model: str | None = None,
) -> None:
    """Writes a prompt and what it belongs to, so that a reader sees all of it or none.

    Args:
      target: A file, for "peft" a folder, that does not exist; local or gs://.
      prompt: [P, H] float32.
      info: What it belongs to: in a JSON file beside a `.npy`, in the metadata of a `.safetensors` file.
      file_format: One of `FORMATS`.
      base_model: Of a PEFT adapter, what it records as its model; None for the Hugging Face folder that the run
        started from, if it did.

    Raises:
      ConfigError: If `target` exists, its ending is not that of its format, or `base_model` is given with another
        format.
      CheckpointError: If the base model is a folder here, and of another width than the prompt.
    """
    target = epath.Path(target)
    if base_model and file_format != "peft":
        raise ConfigError(
            "--base_model is written into PEFT adapters only",
            got=f"--format={file_format}",
            expected="--format=peft",
            fix="leave --base_model out",
        )
    if file_format != "peft" and target.suffix != f".{file_format}":
        raise ConfigError(
            "The name of TARGET does not fit its format, by which it is read",
            got=target.name,
            expected=f"a name that ends in .{file_format}",
            fix=f"write {target.name}.{file_format}",
        )
    if target.exists():
        raise ConfigError(
            "TARGET exists already",
            got=str(target),
            expected="a name that is free",
            fix="choose another name, or remove what is there",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if file_format == "peft":
        base_model = base_model or _recorded_base_model(info)
        _check_base_model(base_model, prompt.shape[1])
        files = peft_adapter.encode_adapter(prompt, info, base_model=base_model)
        _write_folder(target, files)
    elif file_format == "safetensors":
        name = PROMPT_PATH.replace("/", ".")
        content = matrix_files.encode_safetensors(name, prompt, info)
        json_files.write_atomically(target, content)
    else:
        buffer = io.BytesIO()
        np.save(buffer, prompt, allow_pickle=False)
        # In this order a prompt never lies there without what it belongs to.
        json_files.write_atomically(target.parent / f"{target.name}.json", json_files.encode(info))
        json_files.write_atomically(target, buffer.getvalue())


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's flags."""
    parser = argparse.ArgumentParser(
        "prompt-tuning export",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="where the prompt is")
    parser.add_argument("target", metavar="TARGET", help="what is written")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: as the ending of TARGET says, .npy or .safetensors",
    )
    parser.add_argument(
        "--step", help="of a MODEL_DIR: a number, latest (the default) or best, by the dev metric"
    )
    parser.add_argument(
        "--base_model",
        help="of a PEFT adapter: name or path of the model it is for, as PEFT records it"
        " (default: the Hugging Face folder that the run started from, else none)",
    )
    return parser


def _format_of(target: epath.Path) -> str:
    """The format that the ending of TARGET means."""
    ending = target.suffix.removeprefix(".")
    if ending not in ("npy", "safetensors"):
        raise ConfigError(
            "The format of TARGET is not known",
            got=str(target),
            expected="a name that ends in .npy or .safetensors, or --format",
            fix=f"add --format, one of {', '.join(FORMATS)}",
        )
    return ending


def _choose_step(model_dir: epath.Path, folder: epath.Path, step: str | None) -> int:
    """The step that --step means, of those that a run saved prompts of."""
    steps = prompt_formats.steps_of_prompts(folder)
    if not steps:
        raise CheckpointError(
            "The run has saved no prompt",
            got=f"nothing in {folder}",
            expected="at least one checkpoint_{step} folder",
            fix="let the run reach its first save",
        )
    if step in (None, _LATEST):
        return steps[-1]
    chosen = _best_step(model_dir) if step == _BEST else step
    if str(chosen) not in map(str, steps):
        raise ConfigError(
            "The run has no prompt of this step",
            got=f"--step={chosen}",
            expected=f"{_LATEST}, {_BEST}, or one of {steps[-10:]}",
            fix="name a step that was saved",
        )
    return int(chosen)


def _best_step(model_dir: epath.Path) -> int:
    """The step that the run's ledger says is best by its dev metric."""
    ledger = model_dir / _LEDGER
    best = json.loads(ledger.read_text()) if ledger.is_file() else {}
    steps = {entry["step"] for entry in best.values()}
    if len(steps) != 1:
        raise ConfigError(
            "There is no one best step",
            got={name: entry["step"] for name, entry in best.items()},
            expected=f"one best step in {ledger}",
            fix="name the step by its number",
        )
    return steps.pop()


def _check_place(path: epath.Path, shapes: Any) -> None:
    """Raises CheckpointError unless a checkpoint holds one prompt, in front of the encoder's input."""
    found = [name for name in shapes if "/prompt/" in name]
    if found != [PROMPT_PATH]:
        raise CheckpointError(
            f"The checkpoint {path} holds no prompt"
            if not found
            else "This prompt has another place",
            got=found,
            expected=f"one prompt, {PROMPT_PATH}",
            fix="name a checkpoint of a run that tuned one prompt for the encoder",
        )


def _recorded_base_model(info: Mapping[str, Any]) -> str | None:
    """The checkpoint that the run started from, if it is Hugging Face's."""
    recorded = info.get("initial_checkpoint_path")
    # PEFT opens local folders only; a bucket would be asked over the network for nothing.
    if not recorded or "://" in recorded:
        return None
    return recorded if (epath.Path(recorded) / "config.json").is_file() else None


def _check_base_model(base_model: str | None, width: int) -> None:
    """Raises CheckpointError if the base model is a folder here and of another width than the prompt."""
    config = None if base_model is None else epath.Path(base_model) / "config.json"
    if config is None or not config.is_file():
        return
    model_width = json.loads(config.read_text()).get("d_model")
    if model_width != width:
        raise CheckpointError(
            f"The prompt does not fit {base_model}",
            got=f"a prompt of width {width}",
            expected=f"the model's width {model_width} (d_model)",
            fix="name the model that the prompt was trained on as --base_model",
        )


def _write_folder(target: epath.Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder that is whole or not there; in an object store, one that its last file makes whole."""
    at_once = not paths.in_object_store(target)
    folder = target.parent / f".{target.name}.{os.getpid()}.tmp" if at_once else target
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if at_once:
        folder.rename(target)
