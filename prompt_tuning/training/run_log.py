"""Progress bar, summaries for TensorBoard and a tracker, and the check that losses are finite."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from prompt_tuning.training.metrics import check_finite, summarize, timing
from prompt_tuning.training.progress_bar import progress_bar
from prompt_tuning.training.summary import SummaryWriter
from prompt_tuning.training.trackers import TrackedRun
from prompt_tuning.tree import flatten

# Steps between two readings of the device's metrics: reading waits for the device.
STEPS_PER_SUMMARY = 100
# Tags by which the results of a sweep are made.
STEPS_PER_SECOND = "timing/steps_per_second"
UPDATE_BYTES = "memory/update_bytes"


class RunLog:
    """Shows the run on the terminal and writes T5X's tags to the TensorBoard run `train`.

    Args:
      model_dir: The run's directory.
      first: Updates already applied when the log opens.
      total: Updates the run makes in all.
      config_text: Logged as the text `config`.
      tracked: The run in a tracker, which gets all numbers too; closed with the log. None for no tracker.
    """

    def __init__(
        self,
        model_dir: epath.Path,
        *,
        first: int,
        total: int,
        config_text: str = "",
        tracked: TrackedRun | None = None,
    ):
        """Opens the bar on process 0 and the summary writer."""
        self.tracked = tracked
        self._writer = SummaryWriter(str(model_dir / "train"), tracked, "train")
        if first == 0 and config_text:
            self._writer.text(0, "config", config_text)
        self._bar = progress_bar("step", total=total, initial=first)
        # On the device, which nobody waits for until they are read in one transfer.
        self._steps: list[int] = []
        self._metrics: list[Mapping[str, Any]] = []
        self._since = time.perf_counter()

    def compiled(self, step: int, seconds: float, shapes: str, *, num_bytes: int) -> None:
        """Logs how long a compilation took; its time is kept out of `steps_per_second`.

        Args:
          step: Updates applied before it.
          seconds: How long it took.
          shapes: What it was compiled for, in words.
          num_bytes: Memory that an update takes on a device, by the compiler.
        """
        tags = {"timing/compilation_seconds": seconds, UPDATE_BYTES: num_bytes}
        self._writer.scalars(step, tags)
        self.write(f"Compiled the step for {shapes} in {seconds:.1f} s")
        if self._metrics:
            self._since += seconds
        else:
            self._since = time.perf_counter()

    def started(self, step: int, seconds: Mapping[str, float]) -> None:
        """Prints and logs how long it took until the first step was done.

        Args:
          step: That step.
          seconds: Phase -> seconds, in order.
        """
        total = sum(seconds.values())
        phases = ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())
        self.write(f"Step {step} is done {total:.1f} s after the start: {phases}")
        tags = {f"timing/start/{phase}_seconds": value for phase, value in seconds.items()}
        self._writer.scalars(step, {**tags, "timing/start_seconds": total})

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Counts an update; reads the device every `STEPS_PER_SUMMARY` updates.

        Args:
          step: The update.
          metrics: Scalars on the device or the host: what the step returned, and `BatchShapes.count` of its batch.
        """
        self._steps.append(step)
        self._metrics.append(metrics)
        self._bar.update(1)
        if len(self._metrics) >= STEPS_PER_SUMMARY:
            self.flush()

    def flush(self) -> None:
        """Writes the summaries of the updates since the last flush.

        Raises:
          NonFiniteError: If one of them had a loss or gradient that is NaN or infinite.
        """
        if not self._steps:
            return
        metrics, steps = jax.device_get(self._metrics), self._steps
        self._steps, self._metrics = [], []
        check_finite(steps, metrics)
        totals = {
            name: float(np.sum([m[name] for m in metrics], dtype=np.float64)) for name in metrics[0]
        }
        tags = summarize(totals, len(steps))
        # Of the last step: they do not add up.
        for name, value in metrics[-1].items():
            if name.split("/")[0] in ("learning_rate", "grad_norm", "param_norm"):
                tags[name] = float(value)
        seconds = time.perf_counter() - self._since
        self._since = time.perf_counter()
        tags |= timing(totals, len(steps), seconds, jax.device_count())
        self._writer.scalars(steps[-1], tags)
        self._bar.set_postfix_str(
            f"loss={tags['loss']:.4g}, accuracy={tags['accuracy']:.3f},"
            f" {tags['timing/real_tokens_per_second']:,.0f} tokens/s,"
            f" {tags['padding_fraction']:.0%} of positions padding"
        )

    def evaluated(
        self,
        step: int,
        results: Mapping[str, Mapping[str, float]],
        best: Mapping[str, Any] | None,
    ) -> None:
        """Writes to the tracker what SeqIO has written for TensorBoard.

        Args:
          step: What was evaluated.
          results: `{task: {metric: value}}`.
          best: `step` and `value` of the best step so far; None for none.
        """
        if self.tracked is None:
            return
        scalars = {f"inference_eval/{path}": value for path, value in flatten(results).items()}
        if best:
            scalars |= {"best/step": best["step"], "best/score": best["value"]}
        self.tracked.write_scalars(step, scalars)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Keeps the time spent inside out of `steps_per_second`."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def write(self, text: str) -> None:
        """Prints a line above the bar, on process 0."""
        if jax.process_index() == 0:
            self._bar.write(text, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Closes bar, writer and tracked run."""
        self._bar.close()
        self._writer.close()
        if self.tracked:
            self.tracked.close()
