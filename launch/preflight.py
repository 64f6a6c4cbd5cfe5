"""What is checked before anything is spent: the config, the memory, the project, the bucket."""

import itertools
import json
import sys
from collections.abc import Sequence

from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.programs import Program
from prompt_tuning.launch.tpu_slices import Slice

_GIN_FLAGS = ("--gin_file", "--gin_bindings", "--gin_search_paths")


def checks(program: Program, tpu: Slice, *, project: str, skip_plan: bool) -> list[Check]:
    """Returns the checks that every launcher makes, the cheapest first.

    Args:
      program: What will run.
      tpu: Where it will run.
      project: Google Cloud project ID.
      skip_plan: Whether memory is left unchecked.

    Returns:
      Checks; only the one that writes and removes a file of two bytes in the bucket changes anything.
    """
    ours = (sys.executable, "-m", "prompt_tuning")
    found = [
        Check(
            Command((*ours, *program.argv, "--dry_run"), "Checks the config"),
            "a config that resolves",
            "mend the gin flags after --",
        )
    ]
    if program.argv[0] == "train" and not skip_plan:
        flags = (f"--topology={tpu.topology}", *gin_flags(program), "--format=json")
        found.append(
            Check(
                Command((*ours, "plan", *flags), f"Checks that it fits into {tpu.topology}"),
                '"fits": true',
                "run this `prompt-tuning plan` without --format for the closest change that fits, or with --search "
                "for the smallest slice; where libtpu is missing, install the extra [tpu]",
                fits,
            )
        )
    probe = f"{program.output_dir.rstrip('/')}/.launch_probe"
    storage = ("gcloud", "storage")
    return [
        *found,
        Check(
            Command(
                ("gcloud", "projects", "describe", project, "--format=value(lifecycleState)"),
                "Checks the project",
            ),
            "ACTIVE",
            "correct --project, or sign in with `gcloud auth login`",
            lambda output: output.strip() == "ACTIVE",
        ),
        Check(
            Command(
                (*storage, "cp", "-", probe, f"--project={project}"),
                "Checks that the bucket can be written",
                stdin="ok",
            ),
            "a bucket that you may write to",
            f"create it near the TPU: gcloud storage buckets create {program.bucket} --project={project} "
            "--location=REGION",
        ),
        Check(
            Command((*storage, "rm", probe, f"--project={project}"), "Removes what it wrote"),
            "a bucket that you may write to",
            "ask for the role roles/storage.objectAdmin on the bucket",
        ),
    ]


def gin_flags(program: Program) -> list[str]:
    """Returns the flags that `prompt-tuning plan` shares with the program.

    Args:
      program: What will run.

    Returns:
      Words; a flag and its value may be two.
    """
    found: list[str] = []
    words = iter(program.argv[1:])
    for word in words:
        if word in _GIN_FLAGS:
            found += [word, *itertools.islice(words, 1)]
        elif word.startswith(("--gin.", *(f"{flag}=" for flag in _GIN_FLAGS))):
            found.append(word)
    return found


def fits(output: str) -> bool:
    """Whether `prompt-tuning plan --format=json` says that the program fits.

    Args:
      output: Its standard output; lines before the object are skipped.

    Returns:
      The object's `fits`.
    """
    try:
        return json.loads(output[output.index("{") :])["fits"] is True
    except (ValueError, KeyError):
        return False


def zone_check(argv: Sequence[str], tpu: Slice, zone: str) -> Check:
    """Returns the check that a zone offers what is asked for.

    Args:
      argv: The command that describes it there.
      tpu: The slice.
      zone: The zone.

    Returns:
      The check.
    """
    return Check(
        Command(tuple(argv), f"Checks that {zone} offers {tpu.topology}"),
        f"a zone that offers {tpu.topology}",
        "choose another --zone: https://docs.cloud.google.com/tpu/docs/regions-zones",
    )
