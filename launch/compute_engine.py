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
from prompt_tuning.launch import preflight
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.supervise import FOLDER, LOST, READY, WAITING, Machine
from prompt_tuning.launch.tpu_slices import Slice
from prompt_tuning.launch.vm_launcher import KEEP_ALIVE, launch

_IMAGE_PROJECT = "ubuntu-os-accelerator-images"
_GONE = ("STOPPING", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED")


class ComputeEngine(Machine):
    """One TPU VM, or a group of them that is one slice.

    Args:
      flags: The launcher's flags.

    Raises:
      ConfigError: If Compute Engine's own interface does not offer the TPU.
    """

    def __init__(self, flags: argparse.Namespace):
        super().__init__(flags.name)
        self._tpu: Slice = flags.topology
        if not self._tpu.kind.image_family:
            raise ConfigError(
                "Compute Engine's own interface does not offer this TPU",
                got=self._tpu.topology,
                expected="v5p, v6e or tpu7x",
                fix="use prompt_tuning.launch.tpu_vm or prompt_tuning.launch.queued_resources",
            )
        self._project, self._zone = flags.project, flags.zone
        self._where = (f"--project={flags.project}", f"--zone={flags.zone}")
        self._region = flags.zone.rpartition("-")[0]
        self._spot: bool = flags.spot
        self._create_flags = tuple(flags.create_flag)
        self._ssh_flags = (*KEEP_ALIVE, *flags.ssh_flag)

    @property
    def workers(self) -> list[str]:
        """The instance, or stand-ins for the names that Compute Engine gives the group's."""
        if self._tpu.vms == 1:
            return [self.name]
        return [f"{self.name}-vm{index}" for index in range(self._tpu.vms)]

    def find_workers(self) -> Command | None:
        """Asks for the names of the group's VMs."""
        if self._tpu.vms == 1:
            return None
        words = (
            *self._group("list-instances"),
            *self._where,
            "--format=value(instance.basename())",
        )
        why = f"Asks for the names of the VMs, which stand below as {', '.join(self.workers)}"
        return Command(words, why)

    def checks(self, zone: str) -> list[Check]:
        """Checks that the zone has the machine type and the project sees the image."""
        machine_type = ("machine-types", "describe", self._tpu.machine_type)
        return [
            preflight.zone_check(
                ("gcloud", "compute", *machine_type, *self._where), self._tpu, zone
            )
        ]

    def create(self) -> list[Command]:
        """Creates the instance, or policy, template and group."""
        if self._tpu.vms == 1:
            words = ("gcloud", "compute", "instances", "create", self.name, *self._where)
            why = f"Creates a TPU {self._tpu.topology}; from here on it costs"
            return [Command((*words, *self._vm_flags()), why)]
        project = f"projects/{self._project}/regions/{self._region}"
        policy = (
            *self._policy("create", "workload-policy"),
            "--type=HIGH_THROUGHPUT",
            f"--accelerator-topology={self._tpu.shape}",
        )
        group = (
            *self._group("create"),
            *self._where,
            "--size=0",
            f"--template={project}/instanceTemplates/{self.name}",
            f"--workload-policy={project}/resourcePolicies/{self.name}",
            "--target-size-policy-mode=bulk",
            "--default-action-on-vm-failure=do-nothing",
        )
        template = (
            *("gcloud", "compute", "instance-templates", "create", self.name),
            *(f"--project={self._project}", f"--instance-template-region={self._region}"),
        )
        return [
            Command(policy, "Describes the topology of the slice"),
            Command((*template, *self._vm_flags()), "Describes its VMs"),
            Command(group, "Creates the group, empty"),
            Command(
                (*self._group("resize"), *self._where, f"--size={self._tpu.vms}"),
                f"Fills it with {self._tpu.vms} VMs, all or none; from here on they cost",
            ),
        ]

    def _vm_flags(self) -> tuple[str, ...]:
        """What one VM is."""
        disk = "200GB"
        flags = [
            f"--machine-type={self._tpu.machine_type}",
            f"--image-family={self._tpu.kind.image_family}",
            f"--image-project={_IMAGE_PROJECT}",
            f"--boot-disk-size={disk}",
            "--maintenance-policy=TERMINATE",
            # Without it the VM may not write to buckets.
            "--scopes=cloud-platform",
        ]
        if self._tpu.generation == "tpu7x":
            flags.append("--boot-disk-type=hyperdisk-balanced")
        if self._spot:
            flags += ["--provisioning-model=SPOT", "--instance-termination-action=DELETE"]
        return (*flags, *self._create_flags)

    def delete(self) -> list[Command]:
        """Removes all that `create` makes."""
        if self._tpu.vms == 1:
            words = ("gcloud", "compute", "instances", "delete", self.name, *self._where, "--quiet")
            return [Command(words, "Removes the TPU; from here on it costs nothing")]
        region = f"--region={self._region}"
        template = ("gcloud", "compute", "instance-templates", "delete", self.name)
        return [
            Command(
                (*self._group("delete"), *self._where, "--quiet"),
                "Removes the TPUs; from here on they cost nothing",
            ),
            Command(
                (*template, f"--project={self._project}", region, "--quiet"),
                "Removes the description of its VMs",
            ),
            Command((*self._policy("delete"), "--quiet"), "Removes the policy"),
        ]

    def describe(self) -> Command:
        """Asks for the state of each VM."""
        if self._tpu.vms == 1:
            words = ("gcloud", "compute", "instances", "describe", self.name, *self._where)
            return Command((*words, "--format=value(status)"), "Asks until it is RUNNING")
        words = (*self._group("list-instances"), *self._where, "--format=value(instanceStatus)")
        return Command(words, "Asks until all are RUNNING")

    def judge(self, output: str) -> str:
        """All VMs run, or one never will again."""
        states = output.split()
        if any(state in _GONE for state in states):
            return LOST
        return READY if states == ["RUNNING"] * self._tpu.vms else WAITING

    def ssh(self, remote: str, worker: str, why: str) -> Command:
        """Runs a line on one VM."""
        words = ("gcloud", "compute", "ssh", worker, *self._where, *self._ssh_flags)
        return Command((*words, f"--command={remote}"), why)

    def scp(self, files: Sequence[str], worker: str) -> Command:
        """Copies to one VM."""
        words = ("gcloud", "compute", "scp", *files, f"{worker}:{FOLDER}/", *self._where)
        flags = (flag.replace("--ssh-flag", "--scp-flag") for flag in self._ssh_flags)
        return Command((*words, *flags), "Copies prompt-tuning to the machine")

    def _group(self, verb: str) -> tuple[str, ...]:
        """`gcloud compute instance-groups managed VERB NAME`."""
        return ("gcloud", "compute", "instance-groups", "managed", verb, self.name)

    def _policy(self, *verb: str) -> tuple[str, ...]:
        """`gcloud compute resource-policies VERB NAME`, where it lives."""
        where = (f"--project={self._project}", f"--region={self._region}")
        return ("gcloud", "compute", "resource-policies", *verb, self.name, *where)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(ComputeEngine, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
