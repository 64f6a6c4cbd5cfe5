"""What is checked before anything is spent: the config, the memory, the project, the bucket."""

import argparse
import itertools
import json
import sys

from prompt_tuning.launch.commands import Check
from prompt_tuning.launch.programs import Program
from prompt_tuning.launch.tpu_slices import Slice

_GIN_FLAGS = ("--gin_file", "--gin_bindings", "--gin_search_paths")


def checks(program: Program, tpu: Slice, flags: argparse.Namespace) -> list[Check]:
    """Returns the checks that every launcher makes, the cheapest first.

    Args:
      program: What will run.
      tpu: Where it will run.
      flags: The launcher's `project`, and `skip_plan`: whether memory is left unchecked.

    Returns:
      Checks; only the one that writes and removes a file of two bytes in the bucket changes anything.
    """
    ours = (sys.executable, "-m", "prompt_tuning")
    found = [
        Check(
            (*ours, *program.argv, "--dry_run"),
            "Checks the config",
            expected="a config that resolves",
            fix="mend the gin flags after --",
        )
    ]
    # Without libtpu, which exists for Linux on x86-64 only, the question cannot be asked.
    if program.argv[0] == "train" and not flags.skip_plan:
        words = (f"--topology={tpu.topology}", *gin_flags(program), "--format=json")
        fix = (
            "run this `prompt-tuning plan` without --format for the closest change that fits, or with --search "
            "for the smallest slice; where libtpu is missing, install the extra [tpu]"
        )
        found.append(
            Check(
                (*ours, "plan", *words),
                f"Checks that it fits into {tpu.topology}",
                expected='"fits": true',
                fix=fix,
                accepts=fits,
            )
        )
    probe = f"{program.output_dir.rstrip('/')}/.launch_probe"
    project = f"--project={flags.project}"
    make_bucket = f"gcloud storage buckets create {program.bucket} {project} --location=REGION"
    return [
        *found,
        Check(
            ("gcloud", "projects", "describe", flags.project, "--format=value(lifecycleState)"),
            "Checks the project",
            expected="ACTIVE",
            fix="correct --project, or sign in with `gcloud auth login`",
            accepts=lambda output: output.strip() == "ACTIVE",
        ),
        Check(
            ("gcloud", "storage", "cp", "-", probe, project),
            "Checks that the bucket can be written",
            "ok",
            expected="a bucket that you may write to",
            fix=f"create it near the TPU: {make_bucket}",
        ),
        Check(
            ("gcloud", "storage", "rm", probe, project),
            "Removes what it wrote",
            expected="a bucket that you may write to",
            fix="ask for the role roles/storage.objectAdmin on the bucket",
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
