"""The command line, `prompt-tuning COMMAND`. Imports nothing heavy until a command runs."""

import argparse
import difflib
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning import gin_flags, startup_times
from prompt_tuning.errors import ConfigError, PromptTuningError
from prompt_tuning.plan import command as _plan

COMMANDS = {
    "train": "train a prompt (or a whole model) and evaluate it on the way",
    "eval": "evaluate a prompt with a task's metrics",
    "infer": "write predictions or scores for a task or a file",
    "ensemble": "evaluate several prompts of one frozen model together: average, best, and majority vote",
    "sweep": "run an experiment: every combination of sizes, tasks, seeds, ...; finished ones never again",
    "report": "draw the results of sweeps beside the paper's numbers, as one HTML page",
    "plan": "memory, operations and time of a run's step on a TPU slice, by its compiler; needs no TPU",
    "tasks": "list, show, measure, check and cache SeqIO tasks",
    "convert": "write a T5X or Hugging Face checkpoint once in a form that loads fast",
    "export": "write a tuned prompt as .npy, safetensors or a PEFT adapter",
    "inspect": "nearest words, clusters and class labels of a tuned prompt, over time too",
    "similarity": "how alike tasks are by their prompts, and the best source for another one",
    "reproduce": "measure published numbers again, expected beside got",
    "demo": "prompt tuning explained by doing it, on a small T5 that comes with the package",
}
# Command with flags of its own -> its module.
_OWN_FLAGS = {name: name for name in ("convert", "export", "reproduce")}
# `prompt_tuning.tasks` are the tasks themselves.
_OWN_FLAGS["tasks"] = "inspect_tasks"
_OWN_FLAGS["sweep"] = "sweeps.command"
_OWN_FLAGS["report"] = "report.command"
_OWN_FLAGS["demo"] = "demo.command"
_OWN_FLAGS["inspect"] = "interpretation.inspection"
_OWN_FLAGS["similarity"] = "interpretation.similarity"
# T5X's run modes that are commands here.
_RUN_MODES = ("train", "eval", "infer")
_EPILOG = """\
--gin.NAME=VALUE (in any position) sets a macro or a parameter after all files were read; text needs quotes of its own:
  prompt-tuning train --gin_file=prompt_tuning/configs/models/t5_1_1_base_prompt.gin \\
    --gin_file=prompt_tuning/configs/runs/prompt_finetune.gin --gin.MODEL_DIR="'/path/run'" --gin.BATCH_SIZE=32 ...
Gin files are found on disk, in --gin_search_paths and, as prompt_tuning/configs/..., in the installed package.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: Command and flags; None takes those of the process.

    Returns:
      Exit code: 0, or 2 for an error that the user can mend, which is printed without a traceback.
    """
    try:
        return _main(list(sys.argv[1:] if argv is None else argv))
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    """Parses flags and hands over to the command."""
    moved = []
    while argv and argv[0].startswith("--") and "=" in argv[0]:
        moved.append(argv.pop(0))
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, argv = argv[0], moved + argv[1:]
    if command not in COMMANDS:
        raise ConfigError(
            "Unknown command",
            got=command,
            expected=f"one of {', '.join(COMMANDS)}",
            fix="write the command first: prompt-tuning COMMAND --flags",
            name=command,
            candidates=COMMANDS,
        )
    if command in _OWN_FLAGS:
        return importlib.import_module(f"prompt_tuning.{_OWN_FLAGS[command]}").main(argv) or 0
    flags = parse_flags(command, argv)
    if command == "plan":
        return _plan.run(flags)
    _run(command, flags)
    return 0


def _help() -> str:
    """Returns the overview of all commands."""
    lines = ["usage: prompt-tuning COMMAND [flags]", "", "Soft prompts for frozen T5 models.", ""]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "prompt-tuning COMMAND --help lists the flags.", "", _EPILOG])


def parse_flags(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the flags of `train`, `eval`, `infer` or `plan`.

    Args:
      command: The command.
      argv: Flags, without the command.

    Returns:
      The flags; `bindings` holds `(text, flag as typed)` in order.

    Raises:
      ConfigError: If a flag is unknown or two contradict one another.
    """
    parser = _parser(command)
    flags, unknown = parser.parse_known_args([_rewrite(arg) for arg in argv])
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        name = unknown[0].split("=")[0]
        closest = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"prompt-tuning {command} has no such flag",
            got=unknown[0],
            expected=f"the flags of `prompt-tuning {command} --help`, or --gin.NAME=VALUE",
            fix=f"write {closest[0]}" if closest else "correct the flag",
        )
    if command == "plan":
        return flags
    if flags.run_mode not in (None, command):
        raise ConfigError(
            "--run_mode contradicts the command",
            got=flags.run_mode,
            expected=command,
            fix=f"leave the flag out, or run `prompt-tuning {flags.run_mode}`"
            if flags.run_mode in _RUN_MODES
            else "leave the flag out",
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


def _rewrite(arg: str) -> str:
    """Turns `--gin.NAME=VALUE` into a flag argparse knows."""
    if not arg.startswith(gin_flags.PREFIX):
        return arg
    gin_flags.binding(arg)
    return f"--gin_dot={arg.removeprefix(gin_flags.PREFIX)}"


class _AppendBinding(argparse.Action):
    """Collects --gin_bindings=... and --gin.NAME=VALUE in the order in which they were typed."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Appends `(text, flag as typed)`."""
        namespace.bindings.append(
            gin_flags.binding(f"{gin_flags.PREFIX}{values}")
            if option_string == "--gin_dot"
            else (str(values), f"--gin_bindings={values}")
        )


def _boolean(text: str) -> bool:
    """Reads true and false as absl does."""
    values = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def _list(text: str) -> list[str]:
    """Reads a comma-separated list."""
    return [item for item in text.split(",") if item]


def _named_list(text: str) -> dict[str, str]:
    """Reads NAME=VALUE,NAME=VALUE."""
    pairs = [item.partition("=") for item in _list(text)]
    named = {name: value for name, _, value in pairs}
    if not all(name and value for name, _, value in pairs) or len(named) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE,NAME=FILE with distinct names")
    return named


def _parser(command: str) -> argparse.ArgumentParser:
    """Returns the parser of one command's flags, which are T5X's."""
    parser = argparse.ArgumentParser(
        f"prompt-tuning {command}",
        description=COMMANDS[command],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--gin_file", action="append", default=[], help="gin file; repeatable, later files override"
    )
    add(
        "--gin_bindings",
        action=_AppendBinding,
        dest="bindings",
        default=[],
        help="one binding, applied after all files; repeatable",
    )
    add("--gin_dot", action=_AppendBinding, dest="bindings", help=argparse.SUPPRESS)
    add("--gin_search_paths", type=_list, default=[], help="folders of gin files, comma-separated")
    if command == "plan":
        _plan.add_flags(parser)
        return parser
    add("--tfds_data_dir", help="folder of TensorFlow Datasets, for all tasks")
    add("--seqio_additional_cache_dirs", type=_list, default=[], help="folders of cached tasks")
    add("--run_mode", help="T5X's; must name the command")
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
    add("--process_count", type=int, help="number of processes")
    add("--process_index", type=int, help="this process")
    add("--initialization_timeout", type=int, help="seconds to wait for the other processes")
    add(
        "--heartbeat_timeout",
        type=int,
        help="seconds until a silent process counts as dead, 30 if not given",
    )
    if command == "infer":
        add("--shard_id", type=int, help="the shard this process writes; overrides infer.shard_id")
        add(
            "--prompts",
            type=_named_list,
            metavar="TASK=FILE,...",
            help="a prompt for each `task` that the examples of INFER_INPUT_FILE name; overrides infer.prompts",
        )
    if command == "ensemble":
        add(
            "--prompts", type=_list, required=True, metavar="FILE,...", help="the prompts that vote"
        )
    return parser


def _run(command: str, flags: argparse.Namespace) -> None:
    """Reads the config, then imports and runs the command."""
    times = startup_times.begin()
    from prompt_tuning import config, processes

    bindings = list(flags.bindings)
    if getattr(flags, "shard_id", None) is not None:
        bindings.append(
            (f"infer.infer.shard_id = {flags.shard_id}", f"--shard_id={flags.shard_id}")
        )
    if command == "infer" and flags.prompts:
        bindings.append((f"infer.infer.prompts = {flags.prompts!r}", "--prompts"))
    # Mistyped files and values are told before the seconds that the libraries take to import.
    parsed = config.read(flags.gin_file, bindings, flags.gin_search_paths)
    times.end("imports")
    if not flags.dry_run:
        _join_processes(command, flags)
        times.end("joining")
    with processes.ending_together():
        config.set_data_dirs(flags.tfds_data_dir, flags.seqio_additional_cache_dirs)
        runnable = _runnable(command)
        if command == "ensemble":
            runnable = functools.partial(runnable, flags.prompts)
        resolved = config.resolve(
            parsed,
            runnable,
            # An ensemble is described by the gin files of an evaluation.
            command="eval" if command == "ensemble" else command,
            comments=_comments(command, flags),
        )
        if _is_first_process(flags):
            print(resolved.text, flush=True)
            for warning in resolved.warnings:
                print(f"warning: {warning}", file=sys.stderr)
        times.end("imports")
        if flags.dry_run:
            resolved.arguments()
        else:
            resolved.run()


def _is_first_process(flags: argparse.Namespace) -> bool:
    """Whether this process speaks for all."""
    # To ask JAX takes the accelerator, which a dry run can do without.
    if flags.dry_run:
        return True
    import jax

    return jax.process_index() == 0


def _runnable(command: str) -> Callable[..., Any]:
    """Imports the function of a command."""
    if command == "ensemble":
        from prompt_tuning import ensemble

        return ensemble.evaluate_ensemble
    if command == "train":
        from prompt_tuning import train

        return train.train
    if command == "eval":
        from prompt_tuning import evaluate

        return evaluate.evaluate
    from prompt_tuning import infer

    return infer.infer


def _comments(command: str, flags: argparse.Namespace) -> list[str]:
    """Returns what the saved config cannot say in gin."""
    lines = [f"Resolved by `prompt-tuning {command}`; runs again with --gin_file=THIS_FILE alone."]
    if command == "ensemble":
        lines[0] = f"Resolved for `prompt-tuning ensemble --prompts={','.join(flags.prompts)}`."
    if flags.tfds_data_dir:
        lines.append(f"It was given --tfds_data_dir={flags.tfds_data_dir}")
    if flags.seqio_additional_cache_dirs:
        dirs = ",".join(flags.seqio_additional_cache_dirs)
        lines.append(f"It was given --seqio_additional_cache_dirs={dirs}")
    return lines


def _join_processes(command: str, flags: argparse.Namespace) -> None:
    """Joins the other processes of the run if there are any, before any device is touched."""
    from prompt_tuning import processes

    is_asked_for = flags.multiprocess_gpu
    if is_asked_for is None:
        is_asked_for = processes.on_tpu_pod()
    if is_asked_for:
        processes.join(
            flags.coordinator_address,
            flags.process_count,
            flags.process_index,
            initialization_timeout=flags.initialization_timeout,
            heartbeat_timeout=flags.heartbeat_timeout,
            saves_on_sigterm=command == "train",
        )
