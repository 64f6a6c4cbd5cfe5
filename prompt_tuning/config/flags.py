"""The flags of commands that gin configures: `--gin_file`, `--gin.NAME=VALUE`, and those of a run, which are T5X's."""

import argparse
import re
from collections.abc import Callable, Sequence

from prompt_tuning.errors import ConfigError

PREFIX = "--gin."
# T5X's run modes that are commands here.
_RUN_MODES = ("train", "eval", "infer")
# Of `--tracker`, and what gin calls it.
TRACKERS = {"wandb": "trackers.Wandb", "mlflow": "trackers.MLflow"}
_EPILOG = """\
--gin.NAME=VALUE (in any position) sets a macro or a parameter after all files were read; text needs quotes of its own:
  prompt-tuning train --gin_file=prompt_tuning/configs/models/t5_1_1_base_prompt.gin \\
    --gin_file=prompt_tuning/configs/runs/prompt_finetune.gin --gin.MODEL_DIR="'/path/run'" --gin.BATCH_SIZE=32 ...
Gin files are found on disk, in --gin_search_paths and, as prompt_tuning/configs/..., in the installed package.
"""


def binding(arg: str) -> tuple[str, str]:
    """Returns a binding as `files.read` takes it: the gin text, and the flag as it was typed.

    Args:
      arg: `--gin.NAME=VALUE`, or the value of `--gin_bindings`.

    Raises:
      ConfigError: If there is no value.
    """
    if not arg.startswith(PREFIX):
        return arg, f"--gin_bindings={arg}"
    name, separator, value = arg.removeprefix(PREFIX).partition("=")
    if not separator:
        raise ConfigError(
            "A gin flag has no value",
            got=arg,
            expected="--gin.NAME=VALUE in one word",
            fix=f"write {arg}=VALUE",
        )
    return f"{name} = {value}", arg


def split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the other flags, and the bindings of those that are gin's, each in order.

    Args:
      argv: Flags.

    Raises:
      ConfigError: If a gin flag has no value.
    """
    others = [arg for arg in argv if not arg.startswith(PREFIX)]
    return others, [binding(arg) for arg in argv if arg.startswith(PREFIX)]


def command_parser(
    command: str, description: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Returns the parser of a command, without flags.

    Args:
      command: Its name, as it is typed.
      description: What it does; lines stay as they are.
      epilog: What stands below its flags.
    """
    return argparse.ArgumentParser(
        f"prompt-tuning {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # A flag that is added later must not change what a shortened one means.
        allow_abbrev=False,
    )


def gin_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a command that reads gin files, with gin's flags; the rest is `command_parser`'s."""
    parser = command_parser(command, description, _EPILOG)
    add = parser.add_argument
    add(
        "--gin_file", action="append", default=[], help="gin file; repeatable, later files override"
    )
    add(
        "--gin_bindings",
        action="append",
        dest="bindings",
        default=[],
        help="one binding, applied after all files; repeatable",
    )
    add(
        "--gin_search_paths",
        type=comma_separated,
        default=[],
        help="folders of gin files, comma-separated",
    )
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the flags of a command that reads gin files.

    Args:
      parser: `gin_parser`'s, with the command's own flags added.
      argv: Flags, without the command.

    Returns:
      The flags; `bindings` holds `(text, flag as typed)` in order.

    Raises:
      ConfigError: If a flag is unknown.
    """
    # As one flag, so that bindings of both forms keep the order in which they were typed: the last one wins.
    args = [f"--gin_bindings={arg}" if arg.startswith(PREFIX) else arg for arg in argv]
    flags, unknown = parser.parse_known_args(args)
    flags.bindings = [binding(arg) for arg in flags.bindings]
    if unknown:
        raise ConfigError(
            f"{parser.prog} has no such flag",
            got=unknown[0],
            expected=f"the flags of `{parser.prog} --help`, or --gin.NAME=VALUE",
            fix="correct the flag",
            name=unknown[0].split("=")[0],
            candidates=[option for action in parser._actions for option in action.option_strings],
        )
    return flags


def parse_run(
    command: str,
    argv: Sequence[str],
    *,
    description: str | None = None,
    add_flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """Parses the flags of a run: gin's and T5X's.

    Args:
      command: The command's name, as it is typed.
      argv: Flags, without the command.
      description: What it does.
      add_flags: Adds the command's own flags to the parser.

    Raises:
      ConfigError: If a flag is unknown or two contradict one another.
    """
    parser = gin_parser(command, description)
    _add_run_flags(parser)
    add_allow_imports(parser)
    add_flags(parser)
    flags = parse(parser, argv)
    if flags.run_mode not in (None, command):
        raise ConfigError(
            "--run_mode contradicts the command",
            got=flags.run_mode,
            expected=command,
            fix=f"leave the flag out, or run `prompt-tuning {flags.run_mode}`",
        )
    if not flags.multiprocess_gpu:
        for name in ("coordinator_address", "process_count", "process_index"):
            if getattr(flags, name) is not None:
                raise ConfigError(
                    f"--{name} has no effect alone",
                    got=getattr(flags, name),
                    expected="--multiprocess_gpu beside it",
                    fix="add --multiprocess_gpu",
                )
    return flags


def add_allow_imports(parser: argparse.ArgumentParser) -> None:
    """Adds the flag of commands that read what may be somebody else's run."""
    parser.add_argument(
        "--allow_imports",
        type=comma_separated,
        default=[],
        metavar="MODULE,...",
        help="modules of which the config.gin of a run may import and call what it likes",
    )


def add_tracker(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that is short for the binding of a tracker."""
    parser.add_argument(
        "--tracker",
        choices=TRACKERS,
        help="write to Weights & Biases or MLflow what TensorBoard gets",
    )


def tracker_bindings(kind: str | None) -> list[tuple[str, str]]:
    """Returns the binding that `--tracker` means, in a list; an empty one without it."""
    return [binding(f"{PREFIX}train.train.tracker=@{TRACKERS[kind]}()")] if kind else []


def comma_separated(text: str) -> list[str]:
    """Reads a comma-separated list."""
    return [item for item in text.split(",") if item]


def whole_number(at_least: int) -> Callable[[str], int]:
    """Returns what reads a whole number of at least `at_least`, for `type` of a flag."""

    def read(text: str) -> int:
        value = int(text) if re.fullmatch(r"[+-]?\d+", text) else None
        if value is None or not at_least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= {at_least}")
        return value

    return read


def named_list(text: str) -> dict[str, str]:
    """Reads NAME=VALUE,NAME=VALUE."""
    pairs = [item.partition("=") for item in comma_separated(text)]
    named = {name: value for name, _, value in pairs}
    if not all(name and value for name, _, value in pairs) or len(named) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE,NAME=FILE with distinct names")
    return named


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds T5X's flags of a run."""
    add = parser.add_argument
    add("--tfds_data_dir", help="folder of TensorFlow Datasets, for all tasks")
    add(
        "--seqio_additional_cache_dirs",
        type=comma_separated,
        default=[],
        help="folders of cached tasks",
    )
    add("--run_mode", choices=_RUN_MODES, help="T5X's; must name the command")
    for name, default, text in (
        ("dry_run", False, "check and print the config, then stop"),
        (
            "multiprocess_gpu",
            None,
            "join several processes, on CPUs too; on a TPU pod they do so by themselves",
        ),
    ):
        add(f"--{name}", nargs="?", const=True, default=default, type=_boolean, help=text)
        add(f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS)
    add("--coordinator_address", help="IP:port of process 0")
    add("--process_count", type=whole_number(1), help="number of processes")
    add("--process_index", type=whole_number(0), help="this process")
    add(
        "--initialization_timeout",
        type=whole_number(1),
        help="seconds to wait for the other processes",
    )
    add(
        "--heartbeat_timeout",
        type=whole_number(1),
        help="seconds until a silent process counts as dead, 30 if not given",
    )


def _boolean(text: str) -> bool:
    """Reads true and false as absl does."""
    values = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]
