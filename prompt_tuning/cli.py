"""The command line, `prompt-tuning COMMAND`. Imports nothing heavy until a command runs."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning import commands
from prompt_tuning.data import home
from prompt_tuning.errors import ConfigError, PromptTuningError, check_choice, from_machine


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command: `main` of the module in `commands/` that has its name.

    Args:
      argv: Command and flags; None takes those of the process.

    Returns:
      Exit code: the command's, or 2 for an error that the user can mend, which is printed without a traceback.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        of_machine = from_machine(error)
        if of_machine is None:
            raise
        print(f"error: {of_machine}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    """Finds the command and hands its flags over."""
    # T5X's launchers write flags before the command too.
    moved = []
    while argv and argv[0].startswith("--") and "=" in argv[0]:
        moved.append(argv.pop(0))
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, found = argv[0], modules()
    fix = "write the command first: prompt-tuning COMMAND --flags"
    check_choice("The command", command, found, fix=fix)
    flags = [home.expand_flag(arg) for arg in moved + argv[1:]]
    for flag in flags:
        # An empty variable of a shell: the folder would be another than the one that was meant.
        if re.fullmatch(r"--\w*(dir|dirs|file|vocabulary|module)=\s*", flag):
            raise ConfigError(
                f"{flag.strip('= ')} names nothing",
                got=flag,
                expected=f"{flag.strip('= ')}=PATH",
                fix="give it a value, or leave the flag out",
            )
    return importlib.import_module(found[command]).main(flags) or 0


def modules() -> dict[str, str]:
    """Returns the module of every command by its name: `commands/NAME.py`, or `command.py` in the folder `NAME/`."""
    return {
        m.name: f"{commands.__name__}.{m.name}" + (".command" if m.ispkg else "")
        for m in pkgutil.iter_modules(commands.__path__)
    }


def _help() -> str:
    """Returns the overview of all commands, each with the first line of its docstring."""
    lines = ["usage: prompt-tuning COMMAND [flags]", "", "Soft prompts for frozen T5 models.", ""]
    lines += [f"  {name:<10} {_summary(name)}" for name in modules()]
    return "\n".join([*lines, "", "prompt-tuning COMMAND --help lists the flags."])


def _summary(name: str) -> str:
    """Reads what a command does from its file, which is quicker than importing it."""
    (folder,) = commands.__path__
    package = Path(folder, name, "__init__.py")
    file = package if package.is_file() else Path(folder, f"{name}.py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
