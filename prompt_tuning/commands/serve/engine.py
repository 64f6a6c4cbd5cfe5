"""The serving engine: requests in, events out, on a thread of its own that no error of a request ends."""

from collections.abc import Callable, Mapping

from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.commands.serve.requests import Event, Work
from prompt_tuning.commands.serve.settings import EngineSettings
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.many_prompts import TunedSet
from prompt_tuning.types import PyTree

# Called from the engine's thread; it must not block. What it raises cancels its request and is logged.
Deliver = Callable[[Event], None]


class Ticket:
    """A request that was taken."""

    def cancel(self) -> None:
        """Ends the request where it is, with `Finished("cancelled")` unless it has ended; its slot is free then."""
        raise NotImplementedError


class Engine:
    """Answers requests with one model and any number of prompts; every method may be called from any thread.

    Attributes:
      model: The model, as it decodes here.
      params: Its parameters, with its own prompt where it has one.
      settings: Sizes.
    """

    model: EncoderDecoderModel
    params: PyTree
    settings: EngineSettings

    def warm(self) -> None:
        """Compiles every program and runs it once, then starts to answer; takes minutes, and is called once.

        Raises:
          ConfigError: If the device has no memory for it.
        """

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: warm, and not draining."""
        raise NotImplementedError

    def submit(self, work: Work, deliver: Deliver) -> Ticket:
        """Puts a request into the queue; returns at once.

        Args:
          work: The request.
          deliver: Gets its events, the last of which is `Finished` or `Scored`.

        Raises:
          NotReady, Draining, UnknownPrompt, TooLong, QueueFull: If it is not taken; nothing is delivered then.
        """
        raise NotImplementedError

    def load(self, name: str, path: str) -> None:
        """Loads a prompt, or what a method added, under a name; what the name stood for before still ends its answers.

        It reads files, and may read all weights once to tell that the prompt is of these: not for an event loop.

        Args:
          name: What requests call it.
          path: What `prompt-tuning export` takes.

        Raises:
          CheckpointError: If there is none, it is damaged, of another model or of other frozen weights.
          ConfigError: If it is longer than `prompt_length`.
        """
        raise NotImplementedError

    def unload(self, name: str) -> None:
        """Forgets a prompt; requests that were taken are still answered with it.

        Raises:
          UnknownPrompt: If there is none of this name.
        """
        raise NotImplementedError

    def names(self) -> tuple[str, ...]:
        """Returns the names of what is loaded, in the order in which it was."""
        raise NotImplementedError

    def tuned(self, name: str) -> TunedSet:
        """Returns what is loaded under a name.

        Raises:
          UnknownPrompt: If there is nothing.
        """
        raise NotImplementedError

    def stats(self) -> dict[str, int]:
        """Returns counts since the start and numbers of now.

        Now: waiting, busy_slots, slots, resident_prompts, loaded_prompts. Since the start: requests, input_tokens,
        output_tokens, scored_targets, encoder_batches, score_batches, decoder_steps, prompt_loads, prompt_swaps,
        prompt_evictions, and finished_REASON of each reason, scores among finished_stop.
        """
        raise NotImplementedError

    def drain(self) -> None:
        """Takes no more requests, and returns when those that were taken are answered."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the thread; what is not answered yet is cancelled."""
        raise NotImplementedError


def build(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    settings: EngineSettings,
    prompts: Mapping[str, str],
) -> Engine:
    """Returns an engine with the weights and the prompts loaded as `infer` loads them; `warm` comes next.

    Args:
      model: The model of the run.
      partitioner: Mesh and axis rules.
      restore: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run.
      settings: Sizes.
      prompts: Name -> path of what is loaded at the start.

    Raises:
      CheckpointError, ConfigError: As `load_for_inference` and `Engine.load`; before anything compiles.
    """
    raise NotImplementedError
