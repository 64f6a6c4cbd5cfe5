"""A TPU that gcloud creates, describes, reaches by ssh and removes, and the commands that run a program there."""

import abc
import argparse
import importlib.metadata
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import ClassVar

from prompt_tuning.config.flags import whole_number
from prompt_tuning.data import home
from prompt_tuning.errors import ConfigError
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.launcher import Launcher
from prompt_tuning.launch.programs import Program
from prompt_tuning.run import preemption

READY, WAITING, LOST, ABSENT = "ready", "waiting", "lost", "absent"
_HERE = pathlib.Path(__file__).resolve().parent
# On the machine, relative to the home folder of whoever logs in.
FOLDER = "prompt_tuning_launch"
# What installs and runs there.
_SCRIPTS = [str(_HERE / name) for name in ("setup.sh", "run.sh")]
# A connection to a machine that was taken away ends after two minutes instead of never.
_KEEP_ALIVE = ("--ssh-flag=-oServerAliveInterval=30", "--ssh-flag=-oServerAliveCountMax=4")


class Machine(Launcher):
    """What every launcher's machine does; the class attributes say what differs.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If there is nothing to install on the machine.
    """

    # Words after `gcloud compute` for what `create` makes, for its state, and for ssh and scp.
    resource: ClassVar[tuple[str, ...]]
    describe_verb: ClassVar[str] = "describe"
    state: ClassVar[str]
    reached_by: ClassVar[tuple[str, ...]] = ()
    # Its state when it is up, and its states that never become that again.
    up: ClassVar[str]
    gone: ClassVar[frozenset[str]]
    # How long `describe` is asked, for a dry run.
    until: ClassVar[str]
    delete_flags: ClassVar[tuple[str, ...]] = ()
    removed: ClassVar[str] = "Removes the TPU; from here on it costs nothing"
    last_words = (
        "# A machine that is taken away is removed, created again and given the same commands;\n"
        "# the run goes on from its last save.\n"
    )

    def __init__(self, flags: argparse.Namespace, program: Program):
        super().__init__(flags, program)
        package: pathlib.Path | None = flags.package
        if package is None or not (package.suffix == ".whl" or (package / "setup.py").is_file()):
            raise ConfigError(
                "There is nothing to install on the machine",
                got=str(package),
                expected="a checkout of prompt-tuning or a wheel",
                fix="name one: --package=/path/to/checkout",
            )
        self._package = package
        self.where = (f"--project={flags.project}", f"--zone={flags.zone}")
        self._ssh_flags = (*_KEEP_ALIVE, *flags.ssh_flag)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Adds the flags of the launchers that reach VMs by ssh."""
        add = parser.add_argument
        checkout = _HERE.parent if (_HERE.parent / "setup.py").is_file() else None
        what = "what is installed: a checkout or a wheel (default: this checkout)"
        crashes = "crashes to start again after; 3 if not given"
        add("--zone", required=True, help="zone of the TPU, such as us-west4-a")
        add(
            "--package",
            type=lambda text: pathlib.Path(home.expand(text)),
            default=checkout,
            help=what,
        )
        add("--max_crashes", type=whole_number(0), default=3, help=crashes)
        add(
            "--keep", action="store_true", help="leave the machine running, and costing, at the end"
        )
        add(
            "--create_flag",
            action="append",
            default=[],
            help="added to gcloud's create; repeatable",
        )
        add("--ssh_flag", action="append", default=[], help="added to gcloud's ssh; repeatable")

    def gcloud(self, why: str, *words: str) -> Command:
        """Returns a command of `gcloud compute`."""
        return Command(("gcloud", "compute", *words), why)

    def zone_check(self, *words: str) -> Check:
        """Returns the check that `gcloud compute WORDS describe` finds something in the zone."""
        offer = f"offers {self.tpu.topology}"
        return Check(
            ("gcloud", "compute", *words, *self.where),
            f"Checks that {self.flags.zone} {offer}",
            expected=f"a zone that {offer}",
            fix="choose another --zone: https://docs.cloud.google.com/tpu/docs/regions-zones",
        )

    @abc.abstractmethod
    def create(self) -> list[Command]:
        """Commands that create it."""

    def delete(self) -> list[Command]:
        """Commands that remove all that `create` made; each may find that its part is gone already."""
        words = (*self.resource, "delete", self.name, *self.where, *self.delete_flags, "--quiet")
        return [self.gcloud(self.removed, *words)]

    def describe(self) -> Command:
        """Command whose output `judge` understands."""
        words = (*self.resource, self.describe_verb, self.name, *self.where)
        return self.gcloud(self.until, *words, f"--format=value({self.state})")

    def judge(self, output: str) -> str:
        """Says of the output of `describe` whether the machine is READY, WAITING or LOST."""
        states = output.split()
        if not self.gone.isdisjoint(states):
            return LOST
        return READY if states == [self.up] * self.num_states else WAITING

    @property
    def num_states(self) -> int:
        """Words of the output of `describe`."""
        return 1

    @property
    @abc.abstractmethod
    def workers(self) -> list[str]:
        """What `ssh` takes to reach every worker; names for a dry run where only `find_workers` tells."""

    def find_workers(self) -> Command | None:
        """Command that prints the workers, one a line; None where `workers` knows them without asking."""
        return None

    def first(self, workers: Sequence[str]) -> str:
        """What `ssh` takes to reach one worker alone, whose output is shown."""
        return workers[0]

    def target(self, worker: str) -> tuple[str, tuple[str, ...]]:
        """What ssh connects to, and the flags that choose a worker there."""
        return worker, ()

    def ssh(self, remote: str, worker: str, why: str) -> Command:
        """Command that runs a line of bash on one worker, or on all where the interface can."""
        host, which = self.target(worker)
        words = (*self.reached_by, "ssh", host, *self.where, *which, *self._ssh_flags)
        return self.gcloud(why, *words, f"--command={remote}")

    def scp(self, files: Sequence[str], worker: str) -> Command:
        """Command that copies files into `FOLDER` on one worker, or on all."""
        host, which = self.target(worker)
        flags = (flag.replace("--ssh-flag", "--scp-flag") for flag in self._ssh_flags)
        words = (*self.reached_by, "scp", *files, f"{host}:{FOLDER}/", *self.where, *which, *flags)
        return self.gcloud("Copies prompt-tuning to the machine", *words)

    def build(self) -> list[Command]:
        """Commands that run here, once: a checkout becomes a wheel."""
        if self._package.suffix == ".whl":
            return []
        words = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
        words += (f"--wheel-dir={_wheels()}", str(self._package))
        return [Command(words, "Packs the checkout")]

    def install(self, workers: Sequence[str]) -> list[list[Command]]:
        """Groups of commands that make the machine ready; those of one group run at the same time."""
        wheel, constraints = self._package, self._package / "constraints.txt"
        if wheel.suffix != ".whl":
            version = importlib.metadata.version("prompt-tuning")
            wheel = _wheels() / f"prompt_tuning-{version}-py3-none-any.whl"
        files = [*_SCRIPTS, *([str(constraints)] if constraints.is_file() else []), str(wheel)]
        setup = shlex.join(("bash", f"{FOLDER}/setup.sh", wheel.name))
        return [
            [self.ssh(f"mkdir -p {FOLDER}", w, "Makes a folder on the machine") for w in workers],
            [self.scp(files, worker) for worker in workers],
            [self.ssh(setup, worker, "Installs prompt-tuning") for worker in workers],
        ]

    def start(self, workers: Sequence[str]) -> list[Command]:
        """Commands that start the program, unless it runs already."""
        settings = (str(self.flags.max_crashes), str(preemption.EXIT_CODE))
        # gcloud splits it at spaces and ssh joins it by spaces, to one string for a shell on the other side: quoted
        # once, it comes out as it went in.
        remote = shlex.join(("bash", f"{FOLDER}/run.sh", "start", *settings, *self.program.argv))
        return [self.ssh(remote, worker, "Starts the run") for worker in workers]

    def ask(self, question: str, worker: str, why: str) -> Command:
        """Command that follows the program, or asks for its status."""
        return self.ssh(f"bash {FOLDER}/run.sh {question}", worker, why)

    def commands(self) -> list[Command]:
        """All commands of a run whose machine is never taken away."""
        finding, workers = self.find_workers(), self.workers
        first = self.first(workers)
        return [
            *self.build(),
            *self.create(),
            self.describe(),
            *([finding] if finding else []),
            *(command for group in self.install(workers) for command in group),
            *self.start(workers),
            self.ask("follow", first, "Shows the run until it has ended"),
            self.ask("status", first, "Asks how it ended"),
            *self.delete(),
        ]

    def run(self) -> int:
        """Runs the program to its end; returns its exit code."""
        # Imports this file.
        from prompt_tuning.launch import supervise

        return supervise.supervise(self, keep=self.flags.keep)


def _wheels() -> pathlib.Path:
    """Where wheels of checkouts are built."""
    return pathlib.Path.home() / ".cache/prompt_tuning/launch"
