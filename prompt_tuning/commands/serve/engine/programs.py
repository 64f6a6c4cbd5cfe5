"""What the engine runs on the devices: a few compiled programs, and the slots and the table that they work on."""

import functools
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.commands.serve.engine.costs import Costs
from prompt_tuning.commands.serve.engine.requests import MOST_ALTERNATIVES
from prompt_tuning.commands.serve.engine.settings import EngineSettings
from prompt_tuning.decoding.rows import Decoded, Rows
from prompt_tuning.models import slots
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run import many_prompts, steps
from prompt_tuning.run.inference import stacked
from prompt_tuning.run.many_prompts import TunedSet
from prompt_tuning.types import PyTree

# Steps of one call: with eight the host's share of a step is small.
MOST_STEPS = 8
# What `Programs.costs` calls the programs that encode.
ENCODE = "encode"
# Labels fit into few tokens; longer targets take as many as two of the longest, as `run/inference.py` has them.
_SHORT_TARGETS = 16


class Line(NamedTuple):
    """A row of a batch: the row of the table, and features of the model without a batch axis."""

    row: int
    features: dict[str, np.ndarray]


class Programs:
    """The programs and the arrays on the devices; used by one thread, inside `partitioner.activate()`.

    Attributes:
      slots: How many there are, over all devices.
      rows: See `EngineSettings`; as many as divide over the devices.
      counts: How many slots, from the first, are decoded at once. Over several devices all of them: the first alone
        would keep one of these busy.
      target_widths: Tokens of targets in a row that is scored.
      costs: Of programs called `(ENCODE, width)` or, where they score, `(target width, width)`; known once warm.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        params: PyTree,
        partitioner: PjitPartitioner,
        settings: EngineSettings,
        own: TunedSet,
    ):
        """Compiles nothing yet.

        Args:
          model: The model, of unscanned layers where it `decodes_apart`.
          params: Its parameters.
          partitioner: Mesh and axis rules.
          settings: Sizes.
          own: What the model has of its own.
        """
        replicas = partitioner.mesh.shape["data"]
        self.slots, *rows = (-(-n // replicas) * replicas for n in (settings.slots, *settings.rows))
        self.rows = tuple(sorted({*rows}))
        few = [n for n in self.rows if n < self.slots and replicas == 1]
        self.counts = (*few, self.slots)
        longest = 2 * settings.output_length
        self.target_widths = tuple(sorted({min(_SHORT_TARGETS, longest), longest}))
        self.costs = Costs()
        # Of the last call. No first guess: a call of one step comes first.
        self._step_secs = math.inf
        self._model, self._params, self._partitioner = model, params, partitioner
        self._settings, self._own = settings, own
        with partitioner.activate():
            shardings = self._slot_shardings()
            self._empty_slots = jax.jit(self._make_slots, out_shardings=shardings)
            self._empty_table = jax.jit(self._make_table, out_shardings=partitioner.replicated)
            self._put = jax.jit(table.put, donate_argnums=0, out_shardings=partitioner.replicated)
            self._admit = jax.jit(self._admitted, donate_argnums=2, out_shardings=shardings)
            self._advance = jax.jit(
                functools.partial(
                    slots.advance,
                    model,
                    length=settings.output_length,
                    most_steps=MOST_STEPS,
                    alternatives=MOST_ALTERNATIVES,
                ),
                donate_argnums=1,
                static_argnames="width",
                out_shardings=(shardings, partitioner.replicated),
            )
            self._score = steps.score_step(model, partitioner)
        self._slots: Any = None
        self._table: Any = None

    @property
    def capacity(self) -> int:
        """Rows of the table."""
        return self._settings.resident_prompts

    def reset(self) -> None:
        """Makes empty slots and an empty table."""
        # The old ones are gone first: there may be no room for both.
        self._slots = self._table = None
        self._slots, self._table = self._empty_slots(), self._empty_table()

    def put_set(self, row: int, tuned: TunedSet) -> None:
        """Writes what was tuned into a row of the table."""
        self._table = self._put(self._table, self._as_table(tuned), np.int32(row))

    def admit(
        self, width: int, rows: Sequence[int], ids: Sequence[Any], into: Sequence[int]
    ) -> None:
        """Encodes inputs and puts each into its slot.

        Args:
          width: One of `input_lengths`, at least as long as each input.
          rows: The row of the table of each input.
          ids: The inputs.
          into: The slot of each.
        """
        lines = [
            Line(row, {"encoder_input_tokens": padded(tokens, width)})
            for row, tokens in zip(rows, ids, strict=True)
        ]
        batch, count = self._stacked(lines)
        # Rows that fill the batch up go nowhere.
        places = np.full(count, self.slots, np.int32)
        places[: len(into)] = into
        self._slots = self._admit(self._params, self._table, self._slots, batch, places)

    def advance(self, rows: Rows, secs: float, stops_early: bool, width: int) -> Decoded:
        """Decodes up to `MOST_STEPS` tokens of each live slot; NumPy arrays come back. See `slots.advance`.

        Args:
          rows: All slots.
          secs: In about how many seconds, going by the last call, as long as there is more than one token.
          stops_early: See `decode_steps`.
          width: One of `input_lengths`, at least as long as each live slot's input.
        """
        last = int(np.flatnonzero(rows.live)[-1])
        count = next(n for n in self.counts if n > last)
        rows = Rows(*(array[:count] for array in rows))
        steps = max(1, min(MOST_STEPS, int(secs / self._step_secs)))
        # What is encoded is no part of the step that comes next. A start cannot tell what one takes: draws take longer.
        jax.block_until_ready(self._slots)
        begin = time.monotonic()
        self._slots, decoded = self._advance(
            self._params, self._slots, rows, np.int32(steps), np.bool_(stops_early), width=width
        )
        decoded = Decoded(*map(np.asarray, decoded))
        self._step_secs = (time.monotonic() - begin) / max(1, int(decoded.steps))
        return decoded

    def score(self, lines: Sequence[Line]) -> np.ndarray:
        """Returns the log-likelihood of each target token of rows of one width, [rows, G, T] float32."""
        batch, _ = self._stacked(lines)
        return np.asarray(self._score({**self._params, table.TABLE: self._table}, batch))

    def warm(self) -> None:
        """Compiles and runs every program, and measures those that take rows."""
        self.reset()
        self.put_set(0, self._own)
        rows = no_rows(self.slots)
        rows.limit[:] = 1
        for width in self._settings.input_lengths:
            for count in self.rows:
                run = functools.partial(self._admit_any, width, count)
                self.costs.measure((ENCODE, width), count, run)
                for targets in self.target_widths:
                    lines = [_any_line(width, targets)] * count
                    run = functools.partial(self.score, lines)
                    self.costs.measure((targets, width), count, run)
            for count in self.counts:
                rows.live[count - 1] = True
                self.advance(rows, 0.0, False, width)
                rows.live[count - 1] = False

    def _admit_any(self, width: int, count: int) -> slots.Slots:
        """Encodes some inputs, all for one slot."""
        self.admit(width, [0] * count, [(1,)] * count, [0] * count)
        return self._slots

    def _stacked(self, lines: Sequence[Line]) -> tuple[dict[str, Any], int]:
        """A batch on the devices of one of `rows` rows, and how many these are."""
        count = next(n for n in self.rows if n >= len(lines))
        rows = [{table.INDEX: np.int32(line.row), **line.features} for line in lines]
        return self._partitioner.shard_batch(stacked(rows, count)), count

    def _as_table(self, tuned: TunedSet) -> dict[str, Any]:
        """A table of one row."""
        return many_prompts.make_table([tuned], longest=self._settings.prompt_length)

    def _make_table(self) -> dict[str, Any]:
        rows = self.capacity
        return jax.tree.map(
            lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), self._as_table(self._own)
        )

    def _begin(self, params: PyTree, made: PyTree, batch: Any) -> slots.Slots:
        own = {**params, table.TABLE: made}
        return slots.begin(self._model, own, batch, self._settings.output_length)

    def _admitted(
        self, params: PyTree, made: PyTree, kept: slots.Slots, batch: Any, places: Any
    ) -> slots.Slots:
        return slots.put(self._model, kept, self._begin(params, made, batch), places)

    def _slot_shapes(self) -> slots.Slots:
        """Shapes and dtypes of all slots."""
        batch = {
            "encoder_input_tokens": np.zeros((self.slots, self._settings.longest_input), np.int32),
            table.INDEX: np.zeros(self.slots, np.int32),
        }
        return jax.eval_shape(self._begin, self._params, jax.eval_shape(self._make_table), batch)

    def _make_slots(self) -> slots.Slots:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._slot_shapes())

    def _slot_shardings(self) -> slots.Slots:
        """Rows over `data`, and heads, of what attention keeps, where the rules have heads."""
        shapes, in_front = self._slot_shapes(), [None] * int(self._model.module.scan_layers)

        def of(x: Any) -> Any:
            names = [*in_front, "batch", "heads"][: x.ndim]
            return self._partitioner.array_sharding(names, x.shape)

        def of_rows(x: Any) -> Any:
            return self._partitioner.array_sharding(["batch"], x.shape)

        attended = jax.tree.map(of, shapes[:2])
        return slots.Slots(*attended, *jax.tree.map(of_rows, shapes[2:]))


def no_rows(count: int) -> Rows:
    """Returns slots none of which is live."""
    dtypes = (np.bool_, *[np.int32] * 3, np.float32, np.float32, np.uint32, np.bool_)
    return Rows(*(np.zeros(count, dtype) for dtype in dtypes))


def _any_line(width: int, targets: int) -> Line:
    """A row to score."""
    shape = (1, targets)
    features = {
        "encoder_input_tokens": padded((1,), width),
        "decoder_input_tokens": np.zeros(shape, np.int32),
        "decoder_target_tokens": np.ones(shape, np.int32),
        "decoder_loss_weights": np.ones(shape, np.int32),
        "decoder_segment_ids": np.ones(shape, np.int32),
    }
    return Line(0, features)


def padded(ids: Sequence[int], width: int) -> np.ndarray:
    """Returns an input [L] int32."""
    return np.pad(np.asarray(ids, np.int32), (0, width - len(ids)))
