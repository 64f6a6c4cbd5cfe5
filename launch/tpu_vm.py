r"""Runs prompt-tuning on a Cloud TPU VM, one worker or many, over ssh.

    python -m prompt_tuning.launch.tpu_vm --project=my-project --zone=us-west4-a --name=xxl --topology=v5e:2x4 --spot \
        -- train --gin_file=models/t5_1_1_xxl_prompt.gin ... --gin.MODEL_DIR="'gs://my-bucket/run'"

Checks first, then creates the TPU at once or fails; installs prompt-tuning, starts the run, shows it, creates the TPU
again when it is taken away, and removes it at the end. docs/machines/tpu_vm.md walks through it.
"""

import sys
from collections.abc import Sequence

from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.launcher import launch
from prompt_tuning.launch.machine import Machine


class TpuVm(Machine):
    """A TPU VM of the Cloud TPU API."""

    resource = reached_by = ("tpus", "tpu-vm")
    state, up = "state", "READY"
    gone = frozenset({"PREEMPTED", "TERMINATED", "STOPPED"})
    until = "Asks for its state until it is READY"

    @property
    def workers(self) -> list[str]:
        """One ssh of gcloud reaches all workers at once."""
        return ["all"]

    def first(self, workers: Sequence[str]) -> str:
        """Worker 0."""
        return "0"

    def target(self, worker: str) -> tuple[str, tuple[str, ...]]:
        """The TPU, and a worker of it."""
        return self.name, (f"--worker={worker}",)

    def checks(self) -> list[Check]:
        """Checks that the zone has the TPU and the software."""
        version = self.tpu.generation.runtime_version
        return [
            self.zone_check("tpus", "accelerator-types", "describe", self.tpu.accelerator_type),
            self.zone_check("tpus", "versions", "describe", version),
        ]

    def create(self) -> list[Command]:
        """Creates it at once, or fails for want of capacity."""
        why = f"Creates a TPU {self.tpu.topology}; from here on it costs"
        return [self.creation(why, "--version")]

    def creation(self, why: str, version_flag: str, *more: str) -> Command:
        """Returns the command that creates it, or asks for it."""
        return self.gcloud(
            why,
            *(*self.resource, "create", self.name, *self.where, *more),
            f"--accelerator-type={self.tpu.accelerator_type}",
            f"{version_flag}={self.tpu.generation.runtime_version}",
            *(("--spot",) if self.flags.spot else ()),
            *self.flags.create_flag,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(Machine.add_flags, TpuVm, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
