r"""Runs prompt-tuning on GKE through Cluster Toolkit's `gcluster job submit`.

    python -m prompt_tuning.launch.gcluster --project=my-project --location=us-east5 --cluster=my-cluster --name=xxl \
        --topology=v6e:2x4 --spot --image=us-east5-docker.pkg.dev/my-project/images/prompt-tuning \
        -- train --gin_file=models/t5_1_1_xxl_prompt.gin ... --gin.MODEL_DIR="'gs://my-bucket/run'"

Checks first, then calls `gcluster job submit`, which makes a JobSet in a Kueue queue of it. docs/machines/gke.md walks
through it.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from prompt_tuning.config.flags import whole_number
from prompt_tuning.errors import ConfigError
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.launcher import Launcher, escape, launch
from prompt_tuning.launch.programs import Program
from prompt_tuning.run import preemption

# After any other exit code gcluster gives the run up: told to stop, killed, and what JAX ends a process with that has
# lost another one.
_RESTART_CODES = (preemption.EXIT_CODE, 137, 134)
# gcluster's own limit.
_NAME_LENGTH = 28


class Gcluster(Launcher):
    """A cluster behind `gcluster job`.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If gcluster would refuse the name.
    """

    def __init__(self, flags: argparse.Namespace, program: Program):
        super().__init__(flags, program)
        if len(self.name) > _NAME_LENGTH:
            raise ConfigError(
                "gcluster does not take this name",
                got=self.name,
                expected=f"at most {_NAME_LENGTH} characters",
                fix="choose a shorter --name",
            )

    def checks(self) -> list[Check]:
        """None beside those of every launcher."""
        return []

    def submit(self) -> Command:
        """Returns `gcluster job submit`.

        It gives its --command to `bash -c` in the container, after Kubernetes has replaced what looks like a variable.
        Source: cmd/job/submit.go and pkg/orchestrator/gke of GoogleCloudPlatform/cluster-toolkit.
        """
        flags = self.flags
        words = [
            f"--name={self.name}",
            f"--image={flags.image}",
            f"--compute-type={self.machine_type}",
            f"--topology={self.tpu.shape}",
            f"--restarts={flags.max_restarts}",
            f"--restart-on-exit-codes={','.join(map(str, _RESTART_CODES))}",
            # Kubernetes kills after this; a save takes at most ten seconds.
            "--grace-period=60s",
        ]
        if self.tpu.generation.name == "tpu7x":
            # One process a VM, as everywhere else.
            words.append("--gke-disable-parallel-containers")
        if flags.spot:
            words.append("--gke-nap-provisioning=spot")
        if flags.service_account:
            words.append(f"--service-account={flags.service_account}")
        command = shlex.join(("prompt-tuning", *self.program.argv))
        words.append(f"--command={escape(command)}")
        why = f"Hands the run to the cluster, which runs it on {self.tpu.topology}"
        return self._job(f"{why}; from here on it costs", ("submit",), *words)

    def later(self) -> list[Command]:
        """Commands for the user: they show the run's output, and stop it."""
        return [
            self._job("Shows its output", ("logs", self.name)),
            self._job("Stops it", ("cancel", self.name)),
        ]

    def _job(self, why: str, verb: Sequence[str], *words: str) -> Command:
        """`gcluster job VERB` on the cluster."""
        names = ("project", "cluster", "location")
        where = (f"--{name}={getattr(self.flags, name)}" for name in names)
        return Command(("gcluster", "job", *verb, *where, *words), why)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the launcher's flags."""
    what = "restarts, counting those after the machine was taken away; 100 if not given"
    parser.add_argument("--max_restarts", type=whole_number(0), default=100, help=what)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(add_flags, Gcluster, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
