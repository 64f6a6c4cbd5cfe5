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

from prompt_tuning.errors import PromptTuningError
from prompt_tuning.launch import commands, preflight, programs
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.programs import Program
from prompt_tuning.launch.tpu_slices import Slice
from prompt_tuning.run import preemption

_CONTAINER = "prompt-tuning"
# Kubernetes kills after this; a save takes at most ten seconds.
_GRACE_SECONDS = 60


def escape(word: str) -> str:
    """Returns a word that Kubernetes hands to the container as it was.

    In `command` and `args` it replaces `$(NAME)` by variables and `$$` by `$`.

    Args:
      word: Any text.

    Returns:
      The text with its dollar signs doubled.
    """
    return word.replace("$", "$$")


def manifest(
    program: Program, tpu: Slice, *, name: str, image: str, spot: bool, **more: Any
) -> dict[str, Any]:
    """Returns the JobSet.

    Every VM of the slice runs one pod. After a notice that the machine is taken away (the exit code for that, or
    Kubernetes' own DisruptionTarget) all pods are created again, as often as it takes; after any other failure at most
    `max_crashes` times.

    Args:
      program: What runs.
      tpu: The slice.
      name: Of the JobSet.
      image: Container image with prompt-tuning.
      spot: Whether spot nodes are asked for.
      **more: `max_crashes`, and `service_account`, Kubernetes', or None.

    Returns:
      A JSON object, and thereby YAML. Source: kubernetes-sigs/jobset v1alpha2, its examples tpu-multislice and
      failure-policy/host-maintenance-event-model.
    """
    taken_away = [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": _CONTAINER,
                "operator": "In",
                "values": [preemption.EXIT_CODE],
            },
        },
    ]
    job = {
        "parallelism": tpu.vms,
        "completions": tpu.vms,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": taken_away},
        "template": {"spec": _pod(program, tpu, image, spot, more["service_account"])},
    }
    restart = {
        "name": "takenAway",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            # The pods of one slice stay on the nodes of one slice.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {"maxRestarts": more["max_crashes"], "rules": [restart]},
            "replicatedJobs": [{"name": "tpu", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(
    program: Program, tpu: Slice, image: str, spot: bool, service_account: str | None
) -> dict[str, Any]:
    """What runs on one VM of the slice."""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu.kind.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": tpu.shape,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": selector,
        "containers": [
            {
                "name": _CONTAINER,
                "image": image,
                "command": ["prompt-tuning"],
                "args": [escape(word) for word in program.argv],
                # The TPU's memory has to be locked, which plain containers may not.
                "securityContext": {"privileged": True},
                "resources": {"limits": {"google.com/tpu": tpu.chips_a_vm}},
            }
        ],
    }
    if spot:
        key = "cloud.google.com/gke-spot"
        selector[key] = "true"
        taint = {"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        pod["tolerations"] = [taint]
    if service_account:
        pod["serviceAccountName"] = service_account
    return pod


def checks(flags: argparse.Namespace, program: Program, text: str) -> list[Check]:
    """Returns the checks: those of every launcher, then the cluster's of the manifest.

    Args:
      flags: The launcher's flags.
      program: What runs.
      text: The manifest.

    Returns:
      Checks; the cluster's own comes last.
    """
    where = (f"--project={flags.project}", f"--location={flags.location}")
    kubectl = ("kubectl", f"--context={context(flags)}")
    return [
        *preflight.checks(
            program, flags.topology, project=flags.project, skip_plan=flags.skip_plan
        ),
        Check(
            Command(
                ("gcloud", "container", "clusters", "get-credentials", flags.cluster, *where),
                "Makes the cluster known to kubectl",
            ),
            "a cluster",
            "correct --cluster and --location, or create the cluster as docs/machines/gke.md says",
        ),
        Check(
            Command(
                (*kubectl, "get", "crd", "jobsets.jobset.x-k8s.io", "--output=name"),
                "Checks that the cluster knows JobSets",
            ),
            "JobSet installed in the cluster",
            "install it as docs/machines/gke.md says",
        ),
        Check(
            Command(
                (*kubectl, "apply", "--dry-run=server", "--filename=-"),
                "Lets the cluster check the manifest",
                stdin=text,
            ),
            "a manifest that the cluster accepts",
            "mend what it names; a JobSet of the same name has to be deleted first",
        ),
    ]


def context(flags: argparse.Namespace) -> str:
    """Returns kubectl's name for the cluster, so that no other cluster is ever meant.

    Args:
      flags: The launcher's flags.

    Returns:
      The context that `gcloud container clusters get-credentials` makes.
    """
    return f"gke_{flags.project}_{flags.location}_{flags.cluster}"


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the launchers that hand a run to a cluster.

    Args:
      parser: The launcher's.
    """
    add = parser.add_argument
    add("--location", required=True, help="region or zone of the cluster")
    add("--cluster", required=True, help="name of the GKE cluster")
    add("--image", required=True, help="container image with prompt-tuning: launch/Dockerfile")
    add("--service_account", help="Kubernetes service account that may write to the bucket")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher.

    Args:
      argv: Flags, `--`, command; None takes those of the process.

    Returns:
      Exit code: 0 when the cluster has the run, 2 for an error that the user can mend.
    """
    own, rest = programs.split(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    programs.add_shared_flags(parser)
    add_cluster_flags(parser)
    parser.add_argument(
        "--max_crashes", type=int, default=3, help="crashes to start again after; 3 if not given"
    )
    flags = parser.parse_args(own)
    try:
        program = programs.read_program(rest)
        machine_type = flags.topology.machine_type
        text = json.dumps(
            manifest(
                program,
                flags.topology,
                name=flags.name,
                image=flags.image,
                spot=flags.spot,
                max_crashes=flags.max_crashes,
                service_account=flags.service_account,
            ),
            indent=2,
        )
        found = checks(flags, program, text)
        kubectl = ("kubectl", f"--context={context(flags)}")
        apply = Command(
            (*kubectl, "apply", "--filename=-"),
            f"Hands the run to the cluster, which runs it on {machine_type}; from here on it costs",
            stdin=text,
        )
        jobset = f"jobset.sigs.k8s.io/jobset-name={flags.name}"
        later = [
            Command(
                (*kubectl, "logs", "--follow", "--max-log-requests=64", f"--selector={jobset}"),
                "Shows its output",
            ),
            Command((*kubectl, "delete", "jobset", flags.name), "Stops it"),
        ]
        if flags.dry_run:
            commands.show([*(check.command for check in found), apply, *later])
            return 0
        commands.run_checks(found)
        commands.run_all([apply])
        commands.show(later)
        return 0
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
