r"""Runs prompt-tuning on Compute Engine's TPU VMs: v5p, v6e and TPU7x, of which the Cloud TPU API lacks the last.

    python -m prompt_tuning.launch.compute_engine --project=my-project --zone=us-east5-a --name=xxl --topology=v6e:2x4 \
        --spot -- train --gin_file=models/t5_1_1_xxl_prompt.gin ... --gin.MODEL_DIR="'gs://my-bucket/run'"

A slice of one VM is an instance; a slice of many is a managed instance group in bulk mode with a workload policy for
its topology. As prompt_tuning.launch.tpu_vm otherwise. docs/machines/compute_engine.md walks through it.
"""

import argparse
import sys
from collections.abc import Sequence

from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import tpu_slices
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.launcher import launch
from prompt_tuning.launch.machine import Machine
from prompt_tuning.launch.programs import Program


class Instance(Machine):
    """One TPU VM that is a slice.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If Compute Engine's own interface does not offer the TPU.
    """

    resource = ("instances",)
    state, up = "status", "RUNNING"
    gone = frozenset({"STOPPING", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED"})
    until = "Asks until it is RUNNING"

    def __init__(self, flags: argparse.Namespace, program: Program):
        super().__init__(flags, program)
        if not self.tpu.generation.image_family:
            raise ConfigError(
                "Compute Engine's own interface does not offer this TPU",
                got=self.tpu.topology,
                expected="v5p, v6e or tpu7x",
                fix="use prompt_tuning.launch.tpu_vm or prompt_tuning.launch.queued_resources",
            )

    @property
    def workers(self) -> list[str]:
        """The instance."""
        return [self.name]

    def checks(self) -> list[Check]:
        """Checks that the zone has the machine type."""
        return [self.zone_check("machine-types", "describe", self.tpu.machine_type)]

    def create(self) -> list[Command]:
        """Creates the instance."""
        why = f"Creates a TPU {self.tpu.topology}; from here on it costs"
        words = (*self.resource, "create", self.name, *self.where, *self.vm_flags())
        return [self.gcloud(why, *words)]

    def vm_flags(self) -> list[str]:
        """What one VM is."""
        flags = [
            f"--machine-type={self.tpu.machine_type}",
            f"--image-family={self.tpu.generation.image_family}",
            "--image-project=ubuntu-os-accelerator-images",
            "--boot-disk-size=200GB",
            "--maintenance-policy=TERMINATE",
            # Without it the VM may not write to buckets.
            "--scopes=cloud-platform",
        ]
        if self.tpu.generation.name == "tpu7x":
            flags.append("--boot-disk-type=hyperdisk-balanced")
        if self.flags.spot:
            flags += ["--provisioning-model=SPOT", "--instance-termination-action=DELETE"]
        return flags + self.flags.create_flag


class Group(Instance):
    """A managed instance group whose TPU VMs are one slice."""

    resource = ("instance-groups", "managed")
    describe_verb, state = "list-instances", "instanceStatus"
    until = "Asks until all are RUNNING"
    removed = "Removes the TPUs; from here on they cost nothing"

    @property
    def num_states(self) -> int:
        """One of each VM."""
        return self.tpu.vms

    @property
    def workers(self) -> list[str]:
        """Stand-ins for the names that Compute Engine gives the VMs."""
        return [f"{self.name}-vm{index}" for index in range(self.tpu.vms)]

    def find_workers(self) -> Command:
        """Asks for the names of the VMs."""
        why = f"Asks for the names of the VMs, which stand below as {', '.join(self.workers)}"
        return self._group(why, "list-instances", "--format=value(instance.basename())")

    def create(self) -> list[Command]:
        """Creates policy, template and group."""
        project, region = self.flags.project, self._region()
        there = f"projects/{project}/regions/{region}"
        return [
            self.gcloud(
                "Describes the topology of the slice",
                *("resource-policies", "create", "workload-policy", self.name),
                *(f"--project={project}", f"--region={region}"),
                *("--type=HIGH_THROUGHPUT", f"--accelerator-topology={self.tpu.shape}"),
            ),
            self.gcloud(
                "Describes its VMs",
                *("instance-templates", "create", self.name),
                *(f"--project={project}", f"--instance-template-region={region}"),
                *self.vm_flags(),
            ),
            self._group(
                "Creates the group, empty",
                *("create", "--size=0"),
                f"--template={there}/instanceTemplates/{self.name}",
                f"--workload-policy={there}/resourcePolicies/{self.name}",
                # All VMs or none: a part of a slice is of no use, and costs.
                "--target-size-policy-mode=bulk",
                # The launcher replaces the slice as a whole.
                "--default-action-on-vm-failure=do-nothing",
            ),
            self._group(
                f"Fills it with {self.tpu.vms} VMs, all or none; from here on they cost",
                *("resize", f"--size={self.tpu.vms}"),
            ),
        ]

    def delete(self) -> list[Command]:
        """Removes group, template and policy."""
        where = (f"--project={self.flags.project}", f"--region={self._region()}", "--quiet")
        template = ("instance-templates", "delete", self.name, *where)
        policy = ("resource-policies", "delete", self.name, *where)
        return [
            *super().delete(),
            self.gcloud("Removes the description of its VMs", *template),
            self.gcloud("Removes the policy", *policy),
        ]

    def _group(self, why: str, verb: str, *flags: str) -> Command:
        """`gcloud compute instance-groups managed VERB NAME FLAGS`."""
        return self.gcloud(why, *self.resource, verb, self.name, *self.where, *flags)

    def _region(self) -> str:
        """The region of the zone."""
        return self.flags.zone.rpartition("-")[0]


def machine(flags: argparse.Namespace, program: Program) -> Instance:
    """Returns the instance, or the group where the slice has several VMs."""
    kind = Instance if tpu_slices.parse(flags.topology).vms == 1 else Group
    return kind(flags, program)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(Machine.add_flags, machine, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
