r"""Runs prompt-tuning on a TPU that is waited for in Google's queue: v2 to v6e, spot or not.

    python -m prompt_tuning.launch.queued_resources --project=my-project --zone=us-central2-b --name=xxl \
        --topology=v4:2x2x1 --spot -- train --gin_file=models/t5_1_1_xxl_prompt.gin ...

As prompt_tuning.launch.tpu_vm, except that a want of capacity means waiting. docs/machines/queued_resources.md walks
through it.
"""

import sys
from collections.abc import Sequence

from prompt_tuning.launch.commands import Command
from prompt_tuning.launch.supervise import LOST, READY, WAITING
from prompt_tuning.launch.tpu_vm import TpuVm
from prompt_tuning.launch.vm_launcher import launch


class QueuedResource(TpuVm):
    """A TPU VM that a queued resource of the same name creates."""

    def create(self) -> list[Command]:
        """Asks for it; the queue creates it."""
        what = (
            f"--node-id={self.name}",
            f"--accelerator-type={self._tpu.accelerator_type}",
            f"--runtime-version={self._tpu.kind.runtime_version}",
        )
        return [
            Command(
                (*self._queue("create"), *self._where, *what, *self._asked),
                f"Asks for a TPU {self._tpu.topology}; it costs from when it is ACTIVE",
            )
        ]

    def delete(self) -> list[Command]:
        """Removes the request and, by --force, the TPU."""
        return [
            Command(
                (*self._queue("delete"), *self._where, "--force", "--quiet"),
                "Removes the request and the TPU; from here on they cost nothing",
            )
        ]

    def describe(self) -> Command:
        """Asks how far the queue is."""
        words = (*self._queue("describe"), *self._where, "--format=value(state.state)")
        return Command(words, "Asks for its state until it is ACTIVE")

    def judge(self, output: str) -> str:
        """ACTIVE, and what never becomes so again."""
        state = output.strip()
        if state == "ACTIVE":
            return READY
        lost = ("FAILED", "SUSPENDING", "SUSPENDED")
        return LOST if state in lost else WAITING

    def _queue(self, verb: str) -> tuple[str, ...]:
        """`gcloud compute tpus queued-resources VERB NAME`."""
        return ("gcloud", "compute", "tpus", "queued-resources", verb, self.name)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the launcher."""
    return launch(QueuedResource, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
