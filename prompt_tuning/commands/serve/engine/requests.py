"""What the engine can be asked, what it answers and why it may refuse; in token ids, for texts are the caller's."""

import dataclasses
from typing import Any, Literal

from prompt_tuning.errors import PromptTuningError

# The likeliest tokens of a position that an answer can name.
MOST_ALTERNATIVES = 5

# Why an answer ended: the model's end, its longest length, the caller, the clock, or a mistake that the log tells.
Reason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclasses.dataclass(frozen=True)
class Generate:
    """An answer, token by token.

    Attributes:
      prompt: A loaded prompt's name; None for the model as its checkpoint has it, with its own prompt if it has one.
      ids: The input, with EOS if the model's inputs end so (`data/inference_examples.py`).
      max_tokens: Tokens to answer with at most, EOS included.
      temperature: 0 takes the likeliest token.
      top_p: Tokens are drawn from the fewest likeliest ones whose probabilities reach this sum; 1 for all.
      seed: Of the draws: equal requests are answered alike in whatever company, up to how numbers are rounded there.
      logprobs: How many of the likeliest tokens of each position are told, at most `MOST_ALTERNATIVES`.
      deadline: On the clock of `time.monotonic`, in seconds; None for none.
    """

    prompt: str | None
    ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    logprobs: int = 0
    deadline: float | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """The log-likelihoods of some targets of one input, which is encoded once.

    Attributes:
      prompt: See `Generate`.
      ids: See `Generate`.
      targets: One or more, each with the EOS that it ends with; none is empty.
      deadline: See `Generate`.
      field: What the caller knows the targets as.
    """

    prompt: str | None
    ids: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    deadline: float | None = None
    field: str = "labels"


Work = Generate | Score


@dataclasses.dataclass(frozen=True)
class Token:
    """One token of an answer; the end (EOS) is none.

    Attributes:
      id: The token.
      logprob: Its log-probability under the model, whatever temperature it was drawn at; nats.
      top: (id, log-probability) of the likeliest tokens, best first; as many as were asked for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of all targets, in order: (log-likelihood in nats, that of each of its tokens)."""

    targets: tuple[tuple[float, tuple[float, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Finished:
    """The end of an answer."""

    reason: Reason


# Of a `Generate`: any number of `Token`, then `Finished`. Of a `Score`: `Scored`, or `Finished` if it comes to nothing.
Event = Token | Scored | Finished


class ServeError(PromptTuningError):
    """A request that the engine does not take; its text may be shown to whoever asked."""


class QueueFull(ServeError):
    """As many requests wait as may."""


class UnknownPrompt(ServeError):
    """No prompt of this name is loaded."""


class TooLong(ServeError):
    """An input, an answer or a target is longer than what was compiled.

    Args:
      what: See `PromptTuningError`.
      param: The field that has it.
      **texts: As `what`.
    """

    def __init__(self, what: str, *, param: str, **texts: Any):
        super().__init__(what, **texts)
        self.param = param


class NotReady(ServeError):
    """Nothing is compiled yet."""


class Draining(ServeError):
    """The server is about to stop."""
