r"""Runs prompt-tuning on a TPU that is waited for in Google's queue: v2 to v6e, spot or not.

    python -m prompt_tuning.launch.queued_resources --project=my-project --zone=us-central2-b --name=xxl \
        --topology=v4:2x2x1 --spot -- train --gin_file=models/t5_1_1_xxl_prompt.gin ...

As prompt_tuning.launch.tpu_vm, except that a want of capacity means waiting. docs/machines/queued_resources.md walks
through it.
"""

import sys
from collections.abc import Sequence

from prompt_tuning.launch.commands import Command
from prompt_tuning.launch.launcher import launch
from prompt_tuning.launch.machine import Machine
from prompt_tuning.launch.tpu_vm import TpuVm


class QueuedResource(TpuVm):
    """A TPU VM that a queued resource of the same name creates."""

    resource = ("tpus", "queued-resources")
    state, up = "state.state", "ACTIVE"
    gone = frozenset({"FAILED", "SUSPENDING", "SUSPENDED"})
    until = "Asks for its state until it is ACTIVE"
    # Without it a request whose TPU is still there is not removed.
    delete_flags = ("--force",)
    removed = "Removes the request and the TPU; from here on they cost nothing"

    def create(self) -> list[Command]:
        """Asks for it; the queue creates it."""
        why = f"Asks for a TPU {self.tpu.topology}; it costs from when it is ACTIVE"
        return [self.creation(why, "--runtime-version", f"--node-id={self.name}")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(Machine.add_flags, QueuedResource, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
