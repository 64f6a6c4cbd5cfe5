"""What is done next: which requests are encoded together, which slots they get, and what comes out of these."""

import collections
import time
from collections.abc import Hashable, Sequence
from typing import TypeVar, get_args

from absl import logging

from prompt_tuning.commands.serve.engine.open_requests import Open, OpenGenerate, OpenScore
from prompt_tuning.commands.serve.engine.programs import ENCODE, Programs, no_rows
from prompt_tuning.commands.serve.engine.requests import Reason, Token
from prompt_tuning.commands.serve.engine.residents import Residents
from prompt_tuning.decoding.rows import Decoded
from prompt_tuning.models.config import SpecialIds

# Seconds that a call of the decoder may take as long as it has more than one step, and that scores may take in a turn:
# what comes meanwhile waits for its end.
_CALL_SECS = 0.05
# Seconds after which a turn begins no further answers: those that run already wait for these.
_BEGIN_SECS = 0.25

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

    A turn is a call of `begin`, which encodes answers into free slots and scores, batch after batch, and one of
    `decode`. What waits longest goes first, and with it as many of its kind and length as make each of them cheapest
    (`Costs`); shorter ones take rows that would be empty.

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

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return len(self._slots)

    def begin(self, waiting: Sequence[Open]) -> None:
        """Ends what is overdue, and begins what comes first of those that wait."""
        start = time.monotonic()
        # Of both, what the start measured, since what is encoded is not waited for here; the clock has the rest.
        answer_secs = score_secs = 0.0
        left = True
        while left:
            self._end_overdue(waiting)
            answers = [r for r in waiting if r.is_waiting and isinstance(r, OpenGenerate)]
            scores = [r for r in waiting if r.is_waiting and isinstance(r, OpenScore)]
            spent = max(answer_secs + score_secs, time.monotonic() - start)
            left = False
            # Both in turn: neither waits for the other's end.
            if answers and self.busy < self._programs.slots and spent < _BEGIN_SECS:
                left, answer_secs = True, answer_secs + self._admit(answers)
            if scores and score_secs < _CALL_SECS and spent < _BEGIN_SECS:
                left, score_secs = True, score_secs + self._score(scores)

    def _end_overdue(self, waiting: Sequence[Open]) -> None:
        """Ends what nobody waits for any more."""
        for slot, request in list(self._slots.items()):
            if (reason := request.overdue()) is not None:
                self._free(slot, reason)
        for request in waiting:
            if not request.ended and (reason := request.overdue()) is not None:
                self.finish(request, reason)

    def decode(self, has_waiting: bool) -> None:
        """Decodes some steps of all slots; with somebody waiting, no further than to the first that ends."""
        if not self._slots:
            return
        width = max(request.width for request in self._slots.values())
        try:
            decoded = self._programs.advance(self._rows, _CALL_SECS, has_waiting, width)
        except Exception:
            self._failed(())
            return
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

    def _together(
        self, kind: Hashable, waiting: Sequence[_Open], most: int
    ) -> tuple[list[_Open], int, float]:
        """What goes with the first of those that wait.

        Args:
          kind: Of the programs that these need, for any width.
          waiting: Not empty.
          most: How many rows there are for them.

        Returns:
          Requests whose prompts fit into the table together, how many rows are computed, and about how many seconds
          that takes.
        """
        width, costs = waiting[0].width, self._programs.costs
        same = sum(request.lines_left for request in waiting if request.width == width)
        count = costs.best((kind, width), min(same, most))
        able = [request for request in waiting if request.width <= width]
        # A short one costs as much here as a long one, and less in a program of its own: it only fills up.
        able.sort(key=lambda request: request.width != width)
        batch: list[_Open] = []
        prompts: set[int] = set()
        lines = 0
        for request in able:
            together = prompts | {id(request.tuned)}
            if lines >= min(count, most):
                break
            if len(together) <= self.residents.capacity:
                batch.append(request)
                prompts, lines = together, lines + request.lines_left
        return batch, count, costs.secs((kind, width), count)

    def _admit(self, waiting: Sequence[OpenGenerate]) -> float:
        """Encodes inputs and gives each a slot; returns about how many seconds that takes."""
        free = [slot for slot in range(self._programs.slots) if slot not in self._slots]
        batch, _, secs = self._together(ENCODE, waiting, len(free))
        slots = free[: len(batch)]
        try:
            rows = self.residents.place([request.tuned for request in batch])
            ids = [request.work.ids for request in batch]
            self._programs.admit(batch[0].width, rows, ids, slots)
        except Exception:
            self._failed(batch)
            return secs
        self.counts["encoder_batches"] += 1
        for slot, request in zip(slots, batch, strict=True):
            self._slots[slot], request.is_waiting = request, False
            work, start = request.work, self._ids.start
            of_slot = (True, start, 0, work.max_tokens, work.temperature, work.top_p)
            of_slot = (*of_slot, work.seed % 2**32, work.logprobs > 0)
            for array, value in zip(self._rows, of_slot, strict=True):
                array[slot] = value
        return secs

    def _score(self, waiting: Sequence[OpenScore]) -> float:
        """Scores rows of targets; requests whose rows are all there are answered. Returns about how many seconds."""
        width, target_width = waiting[0].width, waiting[0].target_width
        same = [request for request in waiting if request.target_width == target_width]
        batch, count, secs = self._together(target_width, same, self._programs.rows[-1])
        lines, of = [], []
        try:
            rows = self.residents.place([request.tuned for request in batch])
            for request, row in zip(batch, rows, strict=True):
                own = request.lines(row, width)[: count - len(lines)]
                lines += own
                of += [request] * len(own)
            for request, scores in zip(of, self._programs.score(lines), strict=False):
                request.scored.append(scores[0])
        except Exception:
            self._failed(batch)
            return secs
        self.counts["score_batches"] += 1
        for request in batch:
            if not request.lines_left:
                self.counts["finished_stop"] += 1
                self.counts["scored_targets"] += len(request.work.targets)
                request.answer()
        return secs

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
