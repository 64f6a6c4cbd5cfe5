"""Creates a TPU machine, runs a program on it, replaces the machine when it is taken away, and removes it."""

import shlex
import time
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import commands
from prompt_tuning.launch.commands import Command
from prompt_tuning.launch.machine import ABSENT, LOST, READY, Machine

_POLL_SECONDS = 30
_CREATE_SECONDS = 300
_FAILED_QUESTIONS = 10


def supervise(machine: Machine, *, keep: bool) -> int:
    """Runs a program to its end, on as many machines as that takes.

    Args:
      machine: The machine, which knows the program.
      keep: Whether the machine stays when the program has ended or the launcher fails.

    Returns:
      The program's exit code.

    Raises:
      ConfigError: If a command of the launcher fails; the machine is removed first, unless `keep`.
    """
    try:
        commands.run_all(machine.build())
        # A machine that is there is taken: the same command, typed again, follows the run that is on it.
        if ask_state(machine) == ABSENT:
            commands.run_all(machine.create())
        in_vain = 0
        while (code := _run_on_machine(machine)) is None:
            # Starts after which the machine was still up, so that its loss is not why the run ended.
            in_vain = in_vain + 1 if ask_state(machine) == READY else 0
            if in_vain > _FAILED_QUESTIONS:
                raise ConfigError(
                    "The machine is up and the run does not stay on it",
                    got=f"{in_vain} starts",
                    expected="a run that ends with an exit code",
                    fix="launch with --keep, and look at prompt_tuning_launch/log on the machine",
                )
            print(f"--- {machine.name} was taken away; the run goes on with another", flush=True)
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        _say_what_is_left(machine, "The run goes on without this launcher; call it again to follow")
        raise
    except ConfigError:
        _end(machine, keep=keep)
        raise
    _end(machine, keep=keep)
    return code


def _end(machine: Machine, *, keep: bool) -> None:
    """Removes a machine, or says that it is left."""
    if keep:
        _say_what_is_left(machine, "The machine stays, and costs")
    else:
        remove(machine)


def _run_on_machine(machine: Machine) -> int | None:
    """The program's exit code, or None where the machine was lost before the end."""
    while (state := ask_state(machine)) != READY:
        if state == LOST:
            # What is left of a spot machine stands in the way of another of its name.
            remove(machine)
        if state in (LOST, ABSENT):
            _create_again(machine)
        time.sleep(_POLL_SECONDS)
    finding = machine.find_workers()
    workers = commands.capture(finding)[1].split() if finding else machine.workers
    if not workers:
        return None
    try:
        reach, *rest = machine.install(workers)
        _until_reachable(reach)
        for group in [*rest, machine.start(workers)]:
            commands.run_all(group, together=True)
    except ConfigError:
        # A command that fails while the machine is taken away is no error.
        if ask_state(machine) == READY:
            raise
        return None
    return _follow(machine, machine.first(workers))


def _create_again(machine: Machine) -> None:
    """Creates a machine that was there before, however long it takes until there is capacity: waiting costs nothing."""
    while True:
        try:
            return commands.run_all(machine.create())
        except ConfigError:
            remove(machine)
            print(f"--- No capacity for {machine.name}; tries again, until Ctrl-C", flush=True)
            time.sleep(_CREATE_SECONDS)


def _until_reachable(group: Sequence[Command]) -> None:
    """Runs the first commands over ssh, which a machine answers some time after it is up."""
    for attempt in range(_FAILED_QUESTIONS):
        try:
            return commands.run_all(group, together=True)
        except ConfigError:
            if attempt == _FAILED_QUESTIONS - 1:
                raise
            time.sleep(_POLL_SECONDS)


def _follow(machine: Machine, worker: str) -> int | None:
    """Shows the program's output until it has ended or the machine is lost."""
    failed = 0
    while True:
        commands.run(machine.ask("follow", worker, "Shows the run"))
        _, output, _ = commands.capture(machine.ask("status", worker, "Asks how it ended"))
        status = output.split()
        if status[:1] == ["ended"]:
            return int(status[1])
        if status[:1] == ["stopped"]:
            # The machine was shut down and is back: what was running has to be started again.
            return None
        failed = 0 if status else failed + 1
        if ask_state(machine) != READY:
            return None
        if failed > _FAILED_QUESTIONS:
            raise ConfigError(
                "The machine is up and does not answer",
                got=f"{failed} questions without an answer",
                expected="an answer over ssh",
                fix="see whether ssh reaches it, and launch again",
            )
        time.sleep(_POLL_SECONDS if failed else 0)


def ask_state(machine: Machine) -> str:
    """Asks for the state of a machine.

    Args:
      machine: The machine.

    Returns:
      READY, WAITING, LOST or ABSENT.

    Raises:
      ConfigError: If the question fails again and again.
    """
    question = machine.describe()
    error = ""
    for _ in range(_FAILED_QUESTIONS):
        code, output, error = commands.capture(question)
        if not code:
            return machine.judge(output)
        if "not found" in error.lower().replace("_", " "):
            return ABSENT
        time.sleep(_POLL_SECONDS)
    raise ConfigError(
        "The state of the machine cannot be had",
        got=f"{shlex.join(question.argv)} -> {error.strip()}",
        expected="a state",
        fix="mend what the message names, and launch again",
    )


def remove(machine: Machine) -> None:
    """Removes a machine; says so when something may be left that costs.

    Args:
      machine: The machine.
    """
    for command in machine.delete():
        if commands.run(command):
            print(
                f"warning: this failed; if anything is left, it costs: {shlex.join(command.argv)}"
            )


def _say_what_is_left(machine: Machine, what: str) -> None:
    """Says how to remove what is left."""
    print(f"--- {what}. To remove {machine.name}:")
    for command in machine.delete():
        print(shlex.join(command.argv))
