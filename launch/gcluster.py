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

from prompt_tuning.errors import ConfigError, PromptTuningError
from prompt_tuning.launch import commands, preflight, programs
from prompt_tuning.launch.commands import Command
from prompt_tuning.launch.gke_jobset import add_cluster_flags, escape
from prompt_tuning.launch.programs import Program
from prompt_tuning.run import preemption

# After any other exit code gcluster gives the run up: told to stop, killed, and what JAX ends a process with that has
# lost another one.
_RESTART_CODES = (preemption.EXIT_CODE, 137, 134)
# gcluster's own limit.
_NAME_LENGTH = 28


def submit(flags: argparse.Namespace, program: Program) -> Command:
    """Returns the command that hands the run to the cluster.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Returns:
      `gcluster job submit`. It gives its --command to `bash -c` in the container, after Kubernetes has replaced what
      looks like a variable. Source: cmd/job/submit.go and pkg/orchestrator/gke of GoogleCloudPlatform/cluster-toolkit.

    Raises:
      ConfigError: If gcluster would refuse the name.
    """
    if len(flags.name) > _NAME_LENGTH:
        raise ConfigError(
            "gcluster does not take this name",
            got=flags.name,
            expected=f"at most {_NAME_LENGTH} characters",
            fix="choose a shorter --name",
        )
    tpu = flags.topology
    words = [
        *("gcluster", "job", "submit", *_where(flags)),
        f"--name={flags.name}",
        f"--image={flags.image}",
        f"--compute-type={tpu.machine_type}",
        f"--topology={tpu.shape}",
        f"--restarts={flags.max_restarts}",
        f"--restart-on-exit-codes={','.join(map(str, _RESTART_CODES))}",
        "--grace-period=60s",
    ]
    if tpu.generation == "tpu7x":
        # One process a VM, as everywhere else.
        words.append("--gke-disable-parallel-containers")
    if flags.spot:
        words.append("--gke-nap-provisioning=spot")
    if flags.service_account:
        words.append(f"--service-account={flags.service_account}")
    words.append(f"--command={escape(shlex.join(('prompt-tuning', *program.argv)))}")
    return Command(
        tuple(words),
        f"Hands the run to the cluster, which runs it on {tpu.topology}; from here on it costs",
    )


def _where(flags: argparse.Namespace) -> tuple[str, ...]:
    """The flags that name the cluster."""
    return (
        f"--project={flags.project}",
        f"--cluster={flags.cluster}",
        f"--location={flags.location}",
    )


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
        "--max_restarts",
        type=int,
        default=100,
        help="restarts, counting those after the machine was taken away; 100 if not given",
    )
    flags = parser.parse_args(own)
    try:
        program = programs.read_program(rest)
        command = submit(flags, program)
        checks = preflight.checks(
            program, flags.topology, project=flags.project, skip_plan=flags.skip_plan
        )
        later = [
            Command(("gcluster", "job", "logs", flags.name, *_where(flags)), "Shows its output"),
            Command(("gcluster", "job", "cancel", flags.name, *_where(flags)), "Stops it"),
        ]
        if flags.dry_run:
            commands.show([*(check.command for check in checks), command, *later])
            return 0
        commands.run_checks(checks)
        commands.run_all([command])
        commands.show(later)
        return 0
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
