"""What a launcher is asked to run: its own flags, then `--`, then `train`, `eval` or `infer` with gin's flags."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError

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
