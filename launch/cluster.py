"""What the launchers have in common that hand a run to a GKE cluster and end."""

import abc
import argparse

from prompt_tuning.launch import commands
from prompt_tuning.launch.commands import Command
from prompt_tuning.launch.launcher import Launcher
from prompt_tuning.launch.programs import Program


class Cluster(Launcher):
    """A cluster that restarts the run by itself.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If GKE does not offer the TPU.
    """

    def __init__(self, flags: argparse.Namespace, program: Program):
        super().__init__(flags, program)
        self.machine_type = self.tpu.machine_type

    @abc.abstractmethod
    def submit(self) -> Command:
        """Command that hands the run to the cluster."""

    @abc.abstractmethod
    def later(self) -> list[Command]:
        """Commands for the user: they show the run's output, and stop it."""

    def commands(self) -> list[Command]:
        """All commands after the checks."""
        return [self.submit(), *self.later()]

    def run(self) -> int:
        """Hands the run to the cluster; returns 0, for the launcher's work is done."""
        commands.run_all([self.submit()])
        commands.show(self.later())
        return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the launchers that hand a run to a cluster."""
    add = parser.add_argument
    add("--location", required=True, help="region or zone of the cluster")
    add("--cluster", required=True, help="name of the GKE cluster")
    add("--image", required=True, help="container image with prompt-tuning: launch/Dockerfile")
    add("--service_account", help="Kubernetes service account that may write to the bucket")


def escape(word: str) -> str:
    """Returns a word that Kubernetes hands to the container as it was.

    In `command` and `args` it replaces `$(NAME)` by variables and `$$` by `$`.

    Args:
      word: Any text.

    Returns:
      The text with its dollar signs doubled.
    """
    return word.replace("$", "$$")
