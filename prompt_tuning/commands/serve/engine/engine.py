"""The serving engine: requests in, events out, on a thread of its own that no error of a request ends."""

import concurrent.futures
import threading
from typing import Any

import jax
from absl import logging

from prompt_tuning import tree
from prompt_tuning.commands.serve.engine import requests
from prompt_tuning.commands.serve.engine.open_requests import (
    Deliver,
    Open,
    OpenGenerate,
    OpenScore,
    lay_out,
)
from prompt_tuning.commands.serve.engine.programs import Programs
from prompt_tuning.commands.serve.engine.requests import Generate, Reason, Score, Work
from prompt_tuning.commands.serve.engine.scheduler import Scheduler
from prompt_tuning.commands.serve.engine.settings import EngineSettings
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import many_prompts
from prompt_tuning.run.many_prompts import TunedSet
from prompt_tuning.run.trained_on import check_recorded
from prompt_tuning.types import PyTree

# A request that was taken, with nothing to do to it but `cancel()`.
Ticket = Open


class Engine:
    """Answers requests with one model and any number of prompts; every method may be called from any thread.

    Attributes:
      model: The model, as it decodes here.
      params: Its parameters, with its own prompt where it has one.
      settings: Sizes.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        params: PyTree,
        partitioner: PjitPartitioner,
        settings: EngineSettings,
        own: TunedSet,
        dtype: str,
    ):
        """Compiles nothing yet; `build` makes the arguments.

        Args:
          model: The model, of unscanned layers where it `decodes_apart`.
          params: Its parameters.
          partitioner: Mesh and axis rules.
          settings: Sizes.
          own: What requests that name no prompt are answered with.
          dtype: In what the frozen weights are held.
        """
        self.model, self.params, self.settings = model, params, settings
        self._partitioner, self._dtype, self._own = partitioner, dtype, own
        self._check_length("the model's own prompt", own)
        self._programs = Programs(model, params, partitioner, settings, own)
        self._scheduler = Scheduler(self._programs, model.config.ids)
        self._digests: dict[tuple[str, ...], str] = {}
        self._loading = threading.Lock()
        # Guards what follows; it is notified where there is something to do, and where all is done.
        self._changed = threading.Condition()
        self._loaded: dict[str, TunedSet] = {}
        self._waiting: list[Open] = []
        self._has_news = self._is_warm = self._is_draining = self._is_closing = False
        self._thread: threading.Thread | None = None
        self._num_requests = self._num_input_tokens = self._num_loads = 0

    def warm(self) -> None:
        """Compiles every program and runs it a few times, then starts to answer; takes minutes, and is called once.

        Raises:
          ConfigError: If the device has no memory for it.
        """
        # On the thread that goes on with them: JAX keeps programs by settings that a thread may have of its own.
        warmed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(warmed,), name="engine", daemon=True
        )
        self._thread.start()
        try:
            warmed.result()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ConfigError(
                "The devices have no memory for what is to be served",
                got=f"serve.Engine.slots = {self.settings.slots}, rows = {self.settings.rows}",
                expected="weights, slots, resident prompts and a batch of inputs that fit together",
                fix="lower slots, resident_prompts, or the last of rows or input_lengths; or raise num_partitions",
            ) from error
        self._is_warm = True

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken: warm, and not draining. It does not come back once a turn has failed."""
        return self._is_warm and not self._is_draining

    def submit(self, work: Work, deliver: Deliver, room: int = 1) -> Ticket:
        """Puts a request into the queue; returns at once.

        Args:
          work: The request.
          deliver: Gets its events, the last of which is `Finished` or `Scored`.
          room: Places in the queue that have to be free: this request's, and those of what comes with it.

        Raises:
          NotReady, Draining, UnknownPrompt, TooLong, QueueFull: If it is not taken; nothing is delivered then.
        """
        with self._changed:
            self._check_taking()
            tuned = self._own if work.prompt is None else self._tuned(work.prompt)
        self._check_lengths(work)
        limits = self.settings
        layout: Any = None
        if isinstance(work, Score):
            widths = self._programs.target_widths
            layout = lay_out(work.targets, limits.output_length, widths)
        with self._changed:
            # It may have begun to stop meanwhile.
            self._check_taking()
            if (before := self._num_waiting) + room > limits.queue:
                raise requests.QueueFull(
                    "Too many requests wait",
                    got=f"{before} before this one",
                    expected=f"room for {room} in a queue of {limits.queue}",
                    fix="send it again in a moment",
                )
            width = next(n for n in limits.input_lengths if n >= len(work.ids))
            others = (deliver, tuned, width, self._wake)
            if isinstance(work, Score):
                request = OpenScore(work, *others, layout=layout)
            else:
                request = OpenGenerate(work, *others)
            self._num_requests += 1
            self._num_input_tokens += len(work.ids)
            self._waiting.append(request)
            self._notify()
            return request

    def load(self, name: str, path: str) -> None:
        """Loads a prompt, or what a method added, under a name; what the name stood for before still ends its answers.

        It reads files, and the first time it may read all weights, to tell that the prompt is of these: not for an
        event loop.

        Args:
          name: What requests call it.
          path: What `prompt-tuning export` takes.

        Raises:
          CheckpointError: If there is none, it is damaged, of another model or of other frozen weights.
          ConfigError: If it is longer than `prompt_length`, or one more than `loaded_prompts`.
        """
        self.add(name, path, many_prompts.read(path, self.model))

    def add(self, name: str, path: str, tuned: TunedSet) -> None:
        """Loads what was read of a path already; see `load`."""
        self._check_length(f"the prompt of {path}", tuned)
        records = [(f"prompt file {path}", tuned.info)]
        with self._loading:
            check_recorded(records, tree.flatten(self.params), self._dtype, self._digests)
        with self._changed:
            if name not in self._loaded and len(self._loaded) >= self.settings.loaded_prompts:
                raise ConfigError(
                    "Too many prompts are loaded for one more",
                    got=len(self._loaded),
                    expected=f"fewer than serve.Engine.loaded_prompts = {self.settings.loaded_prompts}",
                    fix="unload one, or raise serve.Engine.loaded_prompts and start again",
                )
            self._loaded.pop(name, None)
            self._loaded[name] = tuned
            self._num_loads += 1

    def unload(self, name: str) -> None:
        """Forgets a prompt; requests that were taken are still answered with it.

        Raises:
          UnknownPrompt: If there is none of this name.
        """
        with self._changed:
            self._tuned(name)
            del self._loaded[name]

    def names(self) -> tuple[str, ...]:
        """Returns the names of what is loaded, in the order in which it was."""
        with self._changed:
            return tuple(self._loaded)

    def tuned(self, name: str) -> TunedSet:
        """Returns what is loaded under a name.

        Raises:
          UnknownPrompt: If there is nothing.
        """
        with self._changed:
            return self._tuned(name)

    def stats(self) -> dict[str, int]:
        """Returns counts since the start and numbers of now.

        Now: waiting, busy_slots, slots, resident_prompts, loaded_prompts. Since the start: requests, input_tokens,
        output_tokens, scored_targets, encoder_batches, score_batches, decoder_steps, prompt_loads, prompt_swaps,
        prompt_evictions, and finished_REASON of each reason, scores among finished_stop.
        """
        residents = self._scheduler.residents
        return {
            "waiting": self._num_waiting,
            "busy_slots": self._scheduler.busy,
            "slots": self._programs.slots,
            "resident_prompts": len(residents),
            "loaded_prompts": len(self._loaded),
            "requests": self._num_requests,
            "input_tokens": self._num_input_tokens,
            "prompt_loads": self._num_loads,
            "prompt_swaps": residents.swaps,
            "prompt_evictions": residents.evictions,
            **self._scheduler.counts,
        }

    def drain(self) -> None:
        """Takes no more requests, and returns when those that were taken are answered."""
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: not self._waiting and not self._scheduler.busy)

    def close(self) -> None:
        """Ends the thread; what is not answered yet is cancelled."""
        with self._changed:
            self._is_draining = self._is_closing = True
            self._notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self, warmed: concurrent.futures.Future[None]) -> None:
        """Compiles, and says so; then turn after turn, until it is closed."""
        with self._partitioner.activate():
            try:
                self._programs.warm()
            except Exception as error:
                return warmed.set_exception(error)
            warmed.set_result(None)
            while (waiting := self._next()) is not None:
                try:
                    self._turn(waiting)
                except Exception:
                    # A device that is gone, most likely.
                    logging.exception("A turn failed: nothing is answered any more")
                    return self._end("error")
                with self._changed:
                    self._changed.notify_all()
            self._end("cancelled")

    def _end(self, reason: Reason) -> None:
        """Takes no more requests, and ends those that were taken."""
        with self._changed:
            self._is_draining = True
            waiting, self._waiting = self._waiting, []
        self._scheduler.end_all(reason)
        for request in waiting:
            if not request.ended:
                self._scheduler.finish(request, reason)
        with self._changed:
            self._changed.notify_all()

    def _turn(self, waiting: list[Open]) -> None:
        self._scheduler.begin(waiting)
        with self._changed:
            self._waiting = [request for request in self._waiting if request.is_waiting]
            has_waiting = any(isinstance(request, OpenGenerate) for request in self._waiting)
        self._scheduler.decode(has_waiting)

    @property
    def _num_waiting(self) -> int:
        """Of those that this turn has not come to, or has no place for."""
        return sum(request.is_waiting for request in self._waiting)

    def _next(self) -> list[Open] | None:
        """Waits for something to do, and returns those that wait; None if the engine is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._has_news or self._is_closing or self._waiting or self._scheduler.busy
            )
            self._has_news = False
            return None if self._is_closing else list(self._waiting)

    def _wake(self) -> None:
        with self._changed:
            self._notify()

    def _notify(self) -> None:
        self._has_news = True
        self._changed.notify_all()

    def _tuned(self, name: str) -> TunedSet:
        if name not in self._loaded:
            raise requests.UnknownPrompt(
                "No prompt of this name is loaded",
                got=name,
                expected="the name of one that is",
                # Not those that are close: among ten thousand, they take too long to find.
                fix="ask for the names of those that are, or load it",
            )
        return self._loaded[name]

    def _check_taking(self) -> None:
        """Raises NotReady or Draining if no requests are taken."""
        if not self._is_warm:
            raise requests.NotReady(
                "The server is not ready yet",
                got="a request",
                expected="none before everything is compiled",
                fix="try again in a minute",
            )
        if self._is_draining:
            raise requests.Draining(
                "The server is about to stop",
                got="a request",
                expected="none any more",
                fix="send it again, to a server that stays",
            )

    def _check_lengths(self, work: Work) -> None:
        """Raises TooLong if something is longer than the programs that are compiled."""
        limits = self.settings
        sizes = [("input", "prompt", len(work.ids), limits.longest_input)]
        if isinstance(work, Generate):
            sizes.append(("answer", "max_tokens", work.max_tokens, limits.output_length))
        else:
            longest = max(map(len, work.targets))
            sizes.append(("target", work.field, longest, limits.output_length))
        for what, param, size, most in sizes:
            if size > most:
                raise requests.TooLong(
                    f"The {what} is too long",
                    param=param,
                    got=f"{size} tokens",
                    expected=f"at most {most}",
                    fix="shorten it",
                )

    def _check_length(self, what: str, tuned: TunedSet) -> None:
        """Raises ConfigError if a prompt does not fit into the table."""
        if tuned.prompt is not None and len(tuned.prompt) > self.settings.prompt_length:
            raise ConfigError(
                f"{what} is longer than those that are served",
                got=f"{len(tuned.prompt)} positions",
                expected=f"at most serve.Engine.prompt_length = {self.settings.prompt_length}",
                fix="raise serve.Engine.prompt_length and start again",
            )
