"""What a launcher is asked to run: its own flags, then `--`, then `train`, `eval` or `infer` with gin's flags."""

import argparse
import ast
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import tpu_slices

# Where each command writes; nothing else outlives the machine.
OUTPUT_MACROS = {"train": "MODEL_DIR", "eval": "EVAL_OUTPUT_DIR", "infer": "INFER_OUTPUT_DIR"}


@dataclasses.dataclass(frozen=True)
class Program:
    """A prompt-tuning command and its flags, exactly as typed.

    Args:
      argv: `("train", "--gin_file=…", …)`.
      output_dir: The `gs://` folder that it writes to.
    """

    argv: tuple[str, ...]
    output_dir: str

    @property
    def bucket(self) -> str:
        """The bucket of `output_dir`, as `gs://NAME`."""
        return "/".join(self.output_dir.split("/")[:3])


def read_program(argv: Sequence[str]) -> Program:
    """Reads what follows `--`.

    Args:
      argv: Command and flags.

    Returns:
      The program; its words are not changed.

    Raises:
      ConfigError: If the command is none that runs on TPUs, or the output folder is not a `gs://` path on the command
        line.
    """
    if not argv or argv[0] not in OUTPUT_MACROS:
        raise ConfigError(
            "The launcher was given nothing to run",
            got=" ".join(argv[:1]),
            expected=f"LAUNCHER FLAGS -- COMMAND GIN_FLAGS with one of {', '.join(OUTPUT_MACROS)}",
            fix="write -- and the prompt-tuning command, without `prompt-tuning`, after the launcher's own flags",
        )
    macro = OUTPUT_MACROS[argv[0]]
    folder = _bound(macro, argv)
    if not re.fullmatch(r"gs://[^/]+/.+", folder or ""):
        raise ConfigError(
            f"{macro} would be lost with the machine",
            got=folder,
            expected="a folder in a bucket, bound on the command line",
            fix=f"add {shlex.quote(f'--gin.{macro}=' + repr('gs://BUCKET/FOLDER'))}",
        )
    assert folder is not None
    return Program(tuple(argv), folder)


def _bound(macro: str, argv: Sequence[str]) -> str | None:
    """The text that the last binding of `macro` gives it."""
    found = None
    for word in argv:
        match = re.fullmatch(rf"--(?:gin\.|gin_bindings=){macro}\s*=\s*(.*)", word, flags=re.DOTALL)
        if match:
            try:
                found = ast.literal_eval(match[1])
            except (SyntaxError, ValueError):
                found = match[1]
    return found if isinstance(found, str) else None


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words before the first `--` and those after it."""
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every launcher has."""
    add = parser.add_argument
    add("--project", required=True, help="Google Cloud project ID")
    add("--name", required=True, type=_name, help="name for what is created")
    add(
        "--topology",
        required=True,
        type=_topology,
        help="TPU slice as `prompt-tuning plan` names it, such as v5e:2x4",
    )
    add("--spot", action="store_true", help="spare capacity: cheaper, and taken away at any time")
    add("--skip_plan", action="store_true", help="do not ask `prompt-tuning plan` whether it fits")
    add("--dry_run", action="store_true", help="print every command and run none")


def add_vm_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the launchers that reach VMs by ssh."""
    add = parser.add_argument
    add("--zone", required=True, help="zone of the TPU, such as us-west4-a")
    add(
        "--package",
        type=pathlib.Path,
        default=_checkout(),
        help="what is installed: a checkout or a wheel (default: this checkout)",
    )
    add("--max_crashes", type=int, default=3, help="crashes to start again after; 3 if not given")
    add("--keep", action="store_true", help="leave the machine running, and costing, at the end")
    add("--create_flag", action="append", default=[], help="added to gcloud's create; repeatable")
    add("--ssh_flag", action="append", default=[], help="added to gcloud's ssh; repeatable")


def _checkout() -> pathlib.Path | None:
    """The checkout that this file belongs to, or None where the package was installed from a wheel."""
    folder = pathlib.Path(__file__).resolve().parents[1]
    return folder if (folder / "setup.py").is_file() else None


def _name(text: str) -> str:
    """Checks a name by the rule that Google's interfaces share."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a name: small letters, digits and -, at most 40, a letter first"
        )
    return text


def _topology(text: str) -> tpu_slices.Slice:
    """Reads a slice for argparse."""
    try:
        return tpu_slices.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
