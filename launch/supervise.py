"""Creates a TPU machine, runs a program on it, replaces the machine when it is taken away, and removes it."""

import abc
import importlib.metadata
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import commands
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.run import preemption

READY, WAITING, LOST, ABSENT = "ready", "waiting", "lost", "absent"
# On the machine, relative to the home folder of whoever logs in.
FOLDER = "prompt_tuning_launch"
SCRIPTS = ("setup.sh", "run.sh")
_POLL_SECONDS = 30
_CREATE_SECONDS = 300
_FAILED_QUESTIONS = 10


class Machine(abc.ABC):
    """A TPU that gcloud creates, describes, reaches by ssh and removes.

    Args:
      name: Its name.
    """

    def __init__(self, name: str):
        self.name = name

    @abc.abstractmethod
    def create(self) -> list[Command]:
        """Commands that create it."""

    @abc.abstractmethod
    def delete(self) -> list[Command]:
        """Commands that remove all that `create` made; each may find that its part is gone already."""

    @abc.abstractmethod
    def checks(self, zone: str) -> list[Check]:
        """Checks that the zone has what `create` asks for."""

    @abc.abstractmethod
    def describe(self) -> Command:
        """Command whose output `judge` understands."""

    @abc.abstractmethod
    def judge(self, output: str) -> str:
        """Says of the output of `describe` whether the machine is READY, WAITING or LOST."""

    @abc.abstractmethod
    def ssh(self, remote: str, worker: str, why: str) -> Command:
        """Command that runs a line of bash on one worker, or on all where the interface can."""

    @abc.abstractmethod
    def scp(self, files: Sequence[str], worker: str) -> Command:
        """Command that copies files into `FOLDER` on one worker, or on all."""

    def find_workers(self) -> Command | None:
        """Command that prints the workers, one a line; None where `workers` knows them without asking."""
        return None

    @property
    @abc.abstractmethod
    def workers(self) -> list[str]:
        """What `ssh` takes to reach every worker; names for a dry run where only `find_workers` tells."""

    @property
    def first(self) -> str | None:
        """What `ssh` takes to reach one worker, where that is not one of `workers`."""
        return None


class Job:
    """A program on a machine.

    Args:
      machine: The machine.
      program: The prompt-tuning command and its flags.
      package: A checkout or a wheel.
      max_crashes: Crashes on one machine that the program is started again after.
    """

    def __init__(
        self,
        machine: Machine,
        program: Sequence[str],
        *,
        package: pathlib.Path | None,
        max_crashes: int,
    ):
        if package is None or not (package.suffix == ".whl" or (package / "setup.py").is_file()):
            raise ConfigError(
                "There is nothing to install on the machine",
                got=str(package),
                expected="a checkout of prompt-tuning or a wheel",
                fix="name one: --package=/path/to/checkout",
            )
        self.machine = machine
        self._program = tuple(program)
        self._package = package
        self._max_crashes = max_crashes

    def build(self) -> list[Command]:
        """Commands that run here, once: a checkout becomes a wheel."""
        if self._package.suffix == ".whl":
            return []
        words = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
        return [
            Command((*words, f"--wheel-dir={_wheels()}", str(self._package)), "Packs the checkout")
        ]

    def install(self, workers: Sequence[str]) -> list[list[Command]]:
        """Groups of commands that make the machine ready; those of one group run at the same time."""
        wheel = self._wheel()
        files = [str(pathlib.Path(__file__).resolve().parent / script) for script in SCRIPTS]
        constraints = self._package / "constraints.txt"
        files += [str(constraints)] if constraints.is_file() else []
        machine = self.machine
        folder = f"mkdir -p {FOLDER}"
        setup = shlex.join(("bash", f"{FOLDER}/setup.sh", wheel.name))
        return [
            [machine.ssh(folder, worker, "Makes a folder on the machine") for worker in workers],
            [machine.scp([*files, str(wheel)], worker) for worker in workers],
            [machine.ssh(setup, worker, "Installs prompt-tuning") for worker in workers],
        ]

    def start(self, workers: Sequence[str]) -> list[Command]:
        """Commands that start the program, unless it runs already."""
        words = ("start", str(self._max_crashes), str(preemption.EXIT_CODE), *self._program)
        # ssh hands one string to a shell on the other side: quoted once, it comes out as it went in.
        remote = shlex.join(("bash", f"{FOLDER}/run.sh", *words))
        return [self.machine.ssh(remote, worker, "Starts the run") for worker in workers]

    def ask(self, question: str, worker: str, why: str) -> Command:
        """Command that follows the program, or asks for its status."""
        return self.machine.ssh(f"bash {FOLDER}/run.sh {question}", worker, why)

    def _wheel(self) -> pathlib.Path:
        """The wheel that is installed."""
        if self._package.suffix == ".whl":
            return self._package
        version = importlib.metadata.version("prompt-tuning")
        return _wheels() / f"prompt_tuning-{version}-py3-none-any.whl"


def _wheels() -> pathlib.Path:
    """Where wheels of checkouts are built."""
    return pathlib.Path.home() / ".cache/prompt_tuning/launch"


def show(job: Job) -> None:
    """Prints every command of a run for a dry run."""
    machine = job.machine
    finding = machine.find_workers()
    workers = machine.workers
    first = machine.first or workers[0]
    commands.show(
        [
            *job.build(),
            *machine.create(),
            machine.describe(),
            *([finding] if finding else []),
            *(command for group in job.install(workers) for command in group),
            *job.start(workers),
            job.ask("follow", first, "Shows the run until it has ended"),
            job.ask("status", first, "Asks how it ended"),
            *machine.delete(),
        ]
    )
    print("# A machine that is taken away is removed, created again and given the same commands;")
    print("# the run goes on from its last save.")


def supervise(job: Job, *, keep: bool) -> int:
    """Runs a program to its end, on as many machines as that takes.

    Args:
      job: The program and its machine.
      keep: Whether the machine stays when the program has ended or the launcher fails.

    Returns:
      The program's exit code.

    Raises:
      ConfigError: If a command of the launcher fails; the machine is removed first, unless `keep`.
    """
    machine = job.machine
    try:
        commands.run_all(job.build())
        if ask_state(machine) == ABSENT:
            commands.run_all(machine.create())
        in_vain = 0
        while (code := _run_on_machine(job)) is None:
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
        if keep:
            _say_what_is_left(machine, "The machine stays, and costs")
        else:
            remove(machine)
        raise
    if keep:
        _say_what_is_left(machine, "The machine stays, and costs")
    else:
        remove(machine)
    return code


def _run_on_machine(job: Job) -> int | None:
    """The program's exit code, or None where the machine was lost before the end."""
    machine = job.machine
    while (state := ask_state(machine)) != READY:
        if state == LOST:
            remove(machine)
        if state in (LOST, ABSENT):
            _create_again(machine)
        time.sleep(_POLL_SECONDS)
    workers = machine.workers
    finding = machine.find_workers()
    if finding:
        _, output, _ = commands.capture(finding)
        workers = output.split()
    if not workers:
        return None
    first = machine.first or workers[0]
    try:
        reach, *rest = job.install(workers)
        _until_reachable(reach)
        for group in rest:
            commands.run_all(group, together=True)
        commands.run_all(job.start(workers), together=True)
    except ConfigError:
        if ask_state(machine) == READY:
            raise
        return None
    return _follow(job, first)


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


def _follow(job: Job, worker: str) -> int | None:
    """Shows the program's output until it has ended or the machine is lost."""
    failed = 0
    while True:
        commands.run(job.ask("follow", worker, "Shows the run"))
        _, output, _ = commands.capture(job.ask("status", worker, "Asks how it ended"))
        status = output.split()
        if status[:1] == ["ended"]:
            return int(status[1])
        if status[:1] == ["stopped"]:
            # The machine was shut down and is back: what was running has to be started again.
            return None
        failed = 0 if status else failed + 1
        if ask_state(job.machine) != READY:
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
