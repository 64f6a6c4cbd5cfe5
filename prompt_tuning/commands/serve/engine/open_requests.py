"""Requests that were taken and are not answered yet."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from prompt_tuning.commands.serve.engine.programs import Line, padded
from prompt_tuning.commands.serve.engine.requests import (
    Event,
    Finished,
    Generate,
    Reason,
    Score,
    Scored,
    Work,
)
from prompt_tuning.data import inference_examples
from prompt_tuning.data.widths import Size
from prompt_tuning.run.inference import Row
from prompt_tuning.run.many_prompts import TunedSet

# Called from the engine's thread; it must not block. What it raises cancels its request and is logged.
Deliver = Callable[[Event], None]


@dataclasses.dataclass(eq=False)
class Open:
    """A request; the engine's thread alone changes it, but for `cancel`.

    Attributes:
      work: What was asked.
      deliver: See `Engine.submit`.
      tuned: What its prompt's name meant when it came.
      width: Tokens that its input is padded to.
      wake: Tells the engine that there is something to do.
      ended: Why it ended; None before.
      is_waiting: Whether it has not ended and has no slot.
    """

    work: Work
    deliver: Deliver
    tuned: TunedSet
    width: int
    wake: Callable[[], None]
    ended: Reason | None = None
    is_waiting: bool = True
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Ends the request where it is, with `Finished("cancelled")` unless it has ended; its slot is free then."""
        self.is_cancelled = True
        self.wake()

    @property
    def lines_left(self) -> int:
        """Rows of a batch that it needs yet."""
        return 1

    def overdue(self) -> Reason | None:
        """Returns why the request has to end now, or None."""
        if self.is_cancelled:
            return "cancelled"
        deadline = self.work.deadline
        return "deadline" if deadline is not None and time.monotonic() >= deadline else None

    def send(self, event: Event) -> None:
        """Delivers an event; where that fails, nobody wants any more of them."""
        try:
            self.deliver(event)
        except Exception:
            logging.exception("A request cannot be answered any more")
            self.is_cancelled = True

    def finish(self, reason: Reason) -> None:
        """Ends the request."""
        self.end(reason, Finished(reason))

    def end(self, reason: Reason, event: Event) -> None:
        """Sends the last event."""
        self.ended, self.is_waiting = reason, False
        self.send(event)


class OpenGenerate(Open):
    """An answer."""

    work: Generate  # pyright: ignore[reportIncompatibleVariableOverride]


class Layout(NamedTuple):
    """Targets in rows; if there are several, each has the input for itself.

    Attributes:
      width: Tokens in a row.
      parts: The features of each row, [1, width].
      targets: Where each target is.
    """

    width: int
    parts: list[dict[str, np.ndarray]]
    targets: list[Any]


# The texts of a request have the same targets.
@functools.lru_cache(maxsize=16)
def lay_out(targets: tuple[tuple[int, ...], ...], longest: int, widths: tuple[int, ...]) -> Layout:
    """Lays targets out in rows as `infer` does.

    Args:
      targets: The targets.
      longest: Tokens of the longest that there may be.
      widths: Tokens in a row; the last holds any two targets.
    """
    row = Row({}, 0)
    for number, target in enumerate(targets):
        lengths = {"inputs": 0, "targets": longest}
        row.add_target(number, inference_examples.model_features((), target, lengths))
    last = row.targets[-1]
    needed = widths[-1] if last.part else last.start + last.length
    width = next(width for width in widths if width >= needed)
    of_targets = row.decoder(Size(1, 0, last.part + 1, width))
    parts = [
        {name: x[part : part + 1] for name, x in of_targets.items()}
        for part in range(last.part + 1)
    ]
    return Layout(width, parts, row.targets)


@dataclasses.dataclass(eq=False)
class OpenScore(Open):
    """Scores.

    Attributes:
      layout: Of its targets.
      scored: [T] float32 of each row of targets that was scored.
    """

    work: Score  # pyright: ignore[reportIncompatibleVariableOverride]
    layout: Layout = dataclasses.field(kw_only=True)
    scored: list[np.ndarray] = dataclasses.field(default_factory=list, kw_only=True)

    @property
    def target_width(self) -> int:
        """Tokens in a row of targets."""
        return self.layout.width

    @property
    def lines_left(self) -> int:
        """Rows of targets that are not scored yet."""
        return len(self.layout.parts) - len(self.scored)

    def lines(self, row: int, width: int) -> list[Line]:
        """Returns the rows that are not scored yet, for the row of its prompt and inputs of a width."""
        tokens = {"encoder_input_tokens": padded(self.work.ids, width)}
        return [Line(row, {**tokens, **part}) for part in self.layout.parts[len(self.scored) :]]

    def answer(self) -> None:
        """Sends the scores, all of which are there."""
        scores = []
        for target in self.layout.targets:
            tokens = self.scored[target.part][target.start : target.start + target.length]
            scores.append((float(tokens.sum(dtype=np.float64)), tuple(tokens.tolist())))
        self.end("stop", Scored(tuple(scores)))
