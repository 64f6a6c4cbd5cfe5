"""What is done next: which requests are encoded together, which slots they get, and what comes out of these."""

import collections
import time
from collections.abc import Sequence
from typing import TypeVar, get_args

from absl import logging

from prompt_tuning.commands.serve.open_requests import Open, OpenGenerate, OpenScore
from prompt_tuning.commands.serve.programs import MOST_STEPS, Programs, no_rows
from prompt_tuning.commands.serve.requests import Reason, Token
from prompt_tuning.commands.serve.residents import Residents
from prompt_tuning.decoding.rows import Decoded
from prompt_tuning.models.config import SpecialIds

# Seconds that one call may take as long as it has more than one step: what comes meanwhile waits for its end.
_CALL_SECS = 0.05

_COUNTS = (
    "output_tokens",
    "scored_targets",
    "encoder_batches",
    "score_batches",
    "decoder_steps",
    *(f"finished_{reason}" for reason in get_args(Reason)),
)

_Open = TypeVar("_Open", bound=Open)


class Scheduler:
    """Works through a queue turn by turn, on the engine's thread.

    A turn is a call of `begin`, which encodes one batch of answers into free slots and scores another, and one of
    `decode`. What waits longest goes first; those behind it whose inputs are no longer go with it.

    Attributes:
      residents: The table's rows.
      counts: Of `Engine.stats`, those since the start.
    """

    def __init__(self, programs: Programs, ids: SpecialIds):
        """Begins with empty slots; `programs` are warm, with nothing in their table that is needed."""
        self.residents = Residents(programs.capacity, programs.put_set)
        self.counts: collections.Counter[str] = collections.Counter(dict.fromkeys(_COUNTS, 0))
        self._programs, self._ids = programs, ids
        self._slots: dict[int, OpenGenerate] = {}
        self._rows = no_rows(programs.slots)
        # Of the last call.
        self._step_secs = _CALL_SECS / MOST_STEPS

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return len(self._slots)

    def begin(self, waiting: Sequence[Open]) -> set[Open]:
        """Ends what is overdue, and begins what comes first of those that wait; returns those that wait no longer."""
        for slot, request in list(self._slots.items()):
            if (reason := request.overdue()) is not None:
                self._free(slot, reason)
        for request in waiting:
            if not request.ended and (reason := request.overdue()) is not None:
                self.finish(request, reason)
        answers = [r for r in waiting if isinstance(r, OpenGenerate) and not r.ended]
        scores = [r for r in waiting if isinstance(r, OpenScore) and not r.ended]
        if answers and (batch := self._first(answers, self._programs.slots - self.busy)):
            self._admit(batch)
        if scores:
            same = [r for r in scores if r.target_width == scores[0].target_width]
            self._score(self._first(same, len(same)))
        placed = set(self._slots.values())
        return {request for request in waiting if request.ended or request in placed}

    def decode(self, has_waiting: bool) -> None:
        """Decodes some steps of all slots; with somebody waiting, no further than to the first that ends."""
        if not self._slots:
            return
        width = max(request.width for request in self._slots.values())
        steps = max(1, min(MOST_STEPS, int(_CALL_SECS / self._step_secs)))
        begin = time.monotonic()
        try:
            decoded = self._programs.advance(self._rows, steps, has_waiting, width)
        except Exception:
            self._failed(())
            return
        self._step_secs = (time.monotonic() - begin) / max(1, int(decoded.steps))
        self.counts["decoder_steps"] += int(decoded.steps)
        for slot in list(self._slots):
            self._deliver(slot, decoded)

    def finish(self, request: Open, reason: Reason) -> None:
        """Ends a request that has no slot."""
        self.counts[f"finished_{reason}"] += 1
        request.finish(reason)

    def end_all(self, reason: Reason) -> None:
        """Ends whatever has a slot."""
        for slot in list(self._slots):
            self._free(slot, reason)

    def _first(self, waiting: Sequence[_Open], most: int) -> list[_Open]:
        """Those that go together: the first, and others that are no longer and whose prompts fit in beside its own."""
        batch: list[_Open] = []
        prompts: set[int] = set()
        for request in waiting:
            together = prompts | {id(request.tuned)}
            if len(batch) == min(most, self._programs.rows[-1]):
                break
            if request.width <= waiting[0].width and len(together) <= self.residents.capacity:
                batch.append(request)
                prompts = together
        return batch

    def _admit(self, batch: Sequence[OpenGenerate]) -> None:
        """Encodes inputs and gives each a slot."""
        free = (slot for slot in range(self._programs.slots) if slot not in self._slots)
        slots = [slot for slot, _ in zip(free, batch, strict=False)]
        try:
            rows = self.residents.place([request.tuned for request in batch])
            ids = [request.work.ids for request in batch]
            self._programs.admit(batch[0].width, rows, ids, slots)
        except Exception:
            self._failed(batch)
            return
        self.counts["encoder_batches"] += 1
        for slot, request in zip(slots, batch, strict=True):
            self._slots[slot] = request
            work, start = request.work, self._ids.start
            of_slot = (True, start, 0, work.max_tokens, work.temperature, work.top_p)
            of_slot = (*of_slot, work.seed % 2**32, work.logprobs > 0)
            for array, value in zip(self._rows, of_slot, strict=True):
                array[slot] = value

    def _score(self, batch: Sequence[OpenScore]) -> None:
        """Scores as many rows of targets as go together; requests whose rows are all there are answered."""
        lines, of = [], []
        try:
            rows = self.residents.place([request.tuned for request in batch])
            for request, row in zip(batch, rows, strict=True):
                own = request.lines(row, batch[0].width)[: self._programs.rows[-1] - len(lines)]
                lines += own
                of += [request] * len(own)
            for request, scores in zip(of, self._programs.score(lines), strict=False):
                request.scored.append(scores[0])
        except Exception:
            self._failed(batch)
            return
        self.counts["score_batches"] += 1
        for request in batch:
            if not request.lines_left:
                self.counts["finished_stop"] += 1
                self.counts["scored_targets"] += len(request.work.targets)
                request.answer()

    def _deliver(self, slot: int, decoded: Decoded) -> None:
        """Sends what a slot got, and frees it where that is the end."""
        request, rows = self._slots[slot], self._rows
        work = request.work
        for step in range(int(decoded.steps)):
            token = int(decoded.ids[step, slot])
            if token == self._ids.eos:
                return self._free(slot, "stop")
            ids, log_probs = (x[step, slot, : work.logprobs] for x in decoded[3:])
            top = tuple(zip(ids.tolist(), log_probs.tolist(), strict=True))
            request.send(Token(token, float(decoded.log_probs[step, slot]), top))
            self.counts["output_tokens"] += 1
            rows.token[slot] = token
            rows.position[slot] += 1
            if rows.position[slot] == work.max_tokens:
                return self._free(slot, "length")
        return None

    def _free(self, slot: int, reason: Reason) -> None:
        """Ends the request in a slot."""
        self._rows.live[slot] = False
        self.finish(self._slots.pop(slot), reason)

    def _failed(self, batch: Sequence[Open]) -> None:
        """Ends all that a failed program may have taken with it, and begins with empty slots and an empty table."""
        logging.exception("A batch failed")
        for request in batch:
            self.finish(request, "error")
        self.end_all("error")
        self.residents.clear()
        self._programs.reset()
