r"""Runs prompt-tuning on a Cloud TPU VM, one worker or many, over ssh.

    python -m prompt_tuning.launch.tpu_vm --project=my-project --zone=us-west4-a --name=xxl --topology=v5e:2x4 --spot \
        -- train --gin_file=models/t5_1_1_xxl_prompt.gin ... --gin.MODEL_DIR="'gs://my-bucket/run'"

Checks first, then creates the TPU at once or fails; installs prompt-tuning, starts the run, shows it, creates the TPU
again when it is taken away, and removes it at the end. docs/machines/tpu_vm.md walks through it.
"""

import argparse
import sys
from collections.abc import Sequence

from prompt_tuning.launch import preflight
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.supervise import FOLDER, LOST, READY, WAITING, Machine
from prompt_tuning.launch.tpu_slices import Slice
from prompt_tuning.launch.vm_launcher import KEEP_ALIVE, launch


class TpuVm(Machine):
    """A TPU VM of the Cloud TPU API.

    Args:
      flags: The launcher's flags.
    """

    def __init__(self, flags: argparse.Namespace):
        super().__init__(flags.name)
        self._tpu: Slice = flags.topology
        self._where = (f"--project={flags.project}", f"--zone={flags.zone}")
        self._asked = (*(("--spot",) if flags.spot else ()), *flags.create_flag)
        self._ssh_flags = (*KEEP_ALIVE, *flags.ssh_flag)
        self._scp_flags = tuple(f.replace("--ssh-flag", "--scp-flag") for f in self._ssh_flags)

    @property
    def workers(self) -> list[str]:
        """One ssh of gcloud reaches all workers at once."""
        return ["all"]

    @property
    def first(self) -> str:
        """Worker 0, whose output is shown."""
        return "0"

    def checks(self, zone: str) -> list[Check]:
        """Checks that the zone has the TPU and the software."""
        words = ("gcloud", "compute", "tpus")
        return [
            preflight.zone_check(
                (*words, "accelerator-types", "describe", self._tpu.accelerator_type, *self._where),
                self._tpu,
                zone,
            ),
            preflight.zone_check(
                (*words, "versions", "describe", self._tpu.kind.runtime_version, *self._where),
                self._tpu,
                zone,
            ),
        ]

    def create(self) -> list[Command]:
        """Creates it at once, or fails for want of capacity."""
        what = (
            f"--accelerator-type={self._tpu.accelerator_type}",
            f"--version={self._tpu.kind.runtime_version}",
        )
        words = (*self._words("create"), *self._where, *what, *self._asked)
        return [Command(words, f"Creates a TPU {self._tpu.topology}; from here on it costs")]

    def delete(self) -> list[Command]:
        """Removes it."""
        return [
            Command(
                (*self._words("delete"), *self._where, "--quiet"),
                "Removes the TPU; from here on it costs nothing",
            )
        ]

    def describe(self) -> Command:
        """Asks for its state."""
        words = (*self._words("describe"), *self._where, "--format=value(state)")
        return Command(words, "Asks for its state until it is READY")

    def judge(self, output: str) -> str:
        """READY, and what never becomes so again."""
        state = output.strip()
        if state == "READY":
            return READY
        lost = ("PREEMPTED", "TERMINATED", "STOPPED")
        return LOST if state in lost else WAITING

    def ssh(self, remote: str, worker: str, why: str) -> Command:
        """Runs a line on a worker, or on `all`."""
        words = (*self._words("ssh"), *self._where, f"--worker={worker}", *self._ssh_flags)
        return Command((*words, f"--command={remote}"), why)

    def scp(self, files: Sequence[str], worker: str) -> Command:
        """Copies to a worker, or to `all`."""
        words = ("gcloud", "compute", "tpus", "tpu-vm", "scp", *files, f"{self.name}:{FOLDER}/")
        where = (*self._where, f"--worker={worker}", *self._scp_flags)
        return Command((*words, *where), "Copies prompt-tuning to the machine")

    def _words(self, verb: str) -> tuple[str, ...]:
        """`gcloud compute tpus tpu-vm VERB NAME`."""
        return ("gcloud", "compute", "tpus", "tpu-vm", verb, self.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(TpuVm, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
