r"""Runs prompt-tuning on GKE as a JobSet, without any tool besides gcloud and kubectl.

    python -m prompt_tuning.launch.gke_jobset --project=my-project --location=us-east5 --cluster=my-cluster --name=xxl \
        --topology=v6e:2x4 --spot --image=us-east5-docker.pkg.dev/my-project/images/prompt-tuning \
        -- train --gin_file=models/t5_1_1_xxl_prompt.gin ... --gin.MODEL_DIR="'gs://my-bucket/run'"

Checks first, the last time by the cluster itself, then applies the manifest and ends; the cluster restarts the run.
docs/machines/gke.md walks through it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from prompt_tuning.config.flags import whole_number
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.launcher import Launcher, escape, launch
from prompt_tuning.launch.programs import Program
from prompt_tuning.run import preemption

_CONTAINER = "prompt-tuning"
# Kubernetes kills after this; a save takes at most ten seconds.
_GRACE_SECONDS = 60


class JobSet(Launcher):
    """A cluster in which JobSet is installed.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If GKE does not offer the TPU.
    """

    def __init__(self, flags: argparse.Namespace, program: Program):
        super().__init__(flags, program)
        # kubectl's name for the cluster as `get-credentials` makes it, so that no other cluster is ever meant.
        context = f"gke_{flags.project}_{flags.location}_{flags.cluster}"
        self._kubectl = ("kubectl", f"--context={context}")
        self._text = json.dumps(self.manifest(), indent=2)

    def manifest(self) -> dict[str, Any]:
        """Returns the JobSet.

        Every VM of the slice runs one pod. After a notice that the machine is taken away (the exit code for that, or
        Kubernetes' own DisruptionTarget) all pods are created again, as often as it takes; after any other failure at
        most `max_crashes` times.

        Returns:
          A JSON object, and thereby YAML. Source: kubernetes-sigs/jobset v1alpha2, its examples tpu-multislice and
          failure-policy/host-maintenance-event-model.
        """
        exit_codes = {
            "containerName": _CONTAINER,
            "operator": "In",
            "values": [preemption.EXIT_CODE],
        }
        disruption = [{"type": "DisruptionTarget", "status": "True"}]
        taken_away = [
            {"action": "FailJob", "onPodConditions": disruption},
            {"action": "FailJob", "onExitCodes": exit_codes},
        ]
        job = {
            "parallelism": self.tpu.vms,
            "completions": self.tpu.vms,
            "backoffLimit": 0,
            "podFailurePolicy": {"rules": taken_away},
            "template": {"spec": self._pod()},
        }
        restart = {
            "name": "takenAway",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
        # The pods of one slice stay on the nodes of one slice.
        topology = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": self.name, "annotations": topology},
            "spec": {
                "failurePolicy": {"maxRestarts": self.flags.max_crashes, "rules": [restart]},
                "replicatedJobs": [{"name": "tpu", "replicas": 1, "template": {"spec": job}}],
            },
        }

    def _pod(self) -> dict[str, Any]:
        """What runs on one VM of the slice."""
        selector = {
            "cloud.google.com/gke-tpu-accelerator": self.tpu.generation.gke_accelerator,
            "cloud.google.com/gke-tpu-topology": self.tpu.shape,
        }
        container = {
            "name": _CONTAINER,
            "image": self.flags.image,
            "command": ["prompt-tuning"],
            "args": [escape(word) for word in self.program.argv],
            # The TPU's memory has to be locked, which plain containers may not.
            "securityContext": {"privileged": True},
            "resources": {"limits": {"google.com/tpu": self.tpu.chips_a_vm}},
        }
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "nodeSelector": selector,
            "containers": [container],
        }
        if self.flags.spot:
            key = "cloud.google.com/gke-spot"
            selector[key] = "true"
            taint = {"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
            pod["tolerations"] = [taint]
        if self.flags.service_account:
            pod["serviceAccountName"] = self.flags.service_account
        return pod

    def checks(self) -> list[Check]:
        """Checks the cluster; its own check of the manifest comes last."""
        where = (f"--project={self.flags.project}", f"--location={self.flags.location}")
        clusters = ("gcloud", "container", "clusters")
        return [
            Check(
                (*clusters, "get-credentials", self.flags.cluster, *where),
                "Makes the cluster known to kubectl",
                expected="a cluster",
                fix="correct --cluster and --location, or create the cluster as docs/machines/gke.md says",
            ),
            Check(
                (*self._kubectl, "get", "crd", "jobsets.jobset.x-k8s.io", "--output=name"),
                "Checks that the cluster knows JobSets",
                expected="JobSet installed in the cluster",
                fix="install it as docs/machines/gke.md says",
            ),
            Check(
                (*self._kubectl, "apply", "--dry-run=server", "--filename=-"),
                "Lets the cluster check the manifest",
                self._text,
                expected="a manifest that the cluster accepts",
                fix="mend what it names; a JobSet of the same name has to be deleted first",
            ),
        ]

    def submit(self) -> Command:
        """Command that applies the manifest."""
        why = f"Hands the run to the cluster, which runs it on {self.machine_type}"
        words = (*self._kubectl, "apply", "--filename=-")
        return Command(words, f"{why}; from here on it costs", self._text)

    def later(self) -> list[Command]:
        """Commands for the user: they show the run's output, and stop it."""
        pods = f"--selector=jobset.sigs.k8s.io/jobset-name={self.name}"
        logs = (*self._kubectl, "logs", "--follow", "--max-log-requests=64", pods)
        stop = (*self._kubectl, "delete", "jobset", self.name)
        return [Command(logs, "Shows its output"), Command(stop, "Stops it")]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the launcher's flags."""
    what = "crashes to start again after; 3 if not given"
    parser.add_argument("--max_crashes", type=whole_number(0), default=3, help=what)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(add_flags, JobSet, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
