"""Training against the reference: prompt tuning and model tuning, with a restored and with a fresh optimizer."""

import functools
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import start as initialization
from prompt_tuning.run.optimizer_start import starting_from
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.losses import loss_and_metric_sums, weights_and_normalizer
from prompt_tuning.training.schedules import counted_from, create_learning_rate_scheduler
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_train_step
from prompt_tuning.training.trainer import Trainer
from prompt_tuning.types import Schedule
from tests.parity.adafactor_state import moments_of, updater, zero_moments
from tests.parity.golden_folder import Golden, adafactor_of
from tests.parity.rows import (
    NotChecked,
    Row,
    differing,
    each_relative,
    largest,
    of_maximum,
    second_moments,
    worst,
)

SINGLE_UPDATE = 1e-5
FREE_RUN = 1e-3
LOSS = 1e-4
GRADIENT = 1e-5
SECOND_MOMENT = 1e-4
MODEL_TUNING = 1e-4
_CONSTANT = re.compile(r"constant ([\d.e+-]+)")


def trajectories(golden: Golden) -> Iterator[Row | NotChecked]:
    """Every recorded run of prompt tuning."""
    described = golden.meta.get("trajectory", {})
    names = dict.fromkeys([*described.get("files", {}), *_files(golden, "trajectory*.npz")])
    for name in names:
        if not golden.has(name):
            yield NotChecked(name, "not in this folder")
            continue
        cycles = "cycle" in name or "cycle" in described.get("files", {}).get(name, "")
        if cycles and not golden.has("batches_cycle.npz"):
            yield NotChecked(name, "its batches_cycle.npz is not in this folder")
            continue
        run = PromptRun(golden, name, golden.batches_cycle if cycles else [golden.batch])
        yield from run.single_updates()
        yield from run.gradients()
        yield from run.free_run()


class PromptRun:
    """One recorded run of prompt tuning, and this project's Adafactor with its settings.

    Args:
      golden: The folder.
      name: File of the run.
      batches: Its batches, used in turn.
    """

    def __init__(self, golden: Golden, name: str, batches: list[dict[str, jax.Array]]):
        self._golden, self._batches = golden, batches
        self._theirs = golden.arrays(name)
        self._row = "prompt_tuning/" + name.removesuffix(".npz")
        self._steps = len(self._theirs["loss"])
        rates = tuple(float(rate) for rate in self._theirs["learning_rate"])
        self._tx, self._update, self._step = _prompt_steps(
            golden, int(self._theirs["start_step"]), rates
        )

    def single_updates(self) -> Iterator[Row]:
        """Each update by itself, from the recorded prompt, gradient and, where recorded, second moments."""
        prompts, grads = self._theirs["prompts"], self._theirs["grads"]
        recorded = recorded_moments(self._theirs, self._steps)
        moments = zero_moments(self._tx, prompts[0])
        updates, seconds = [], []
        for i in range(self._steps):
            prompt, moments = self._update(prompts[i], grads[i], moments, i)
            updates.append(largest(prompt, prompts[i + 1]))
            stored = recorded.get(i, {})
            for slot, array in stored.items():
                seconds.append(second_moments(moments[slot], array))
            moments = {**moments, **{slot: jnp.asarray(array) for slot, array in stored.items()}}
        slots = [slot for slot, x in moments.items() if x.shape != (1,)]
        note = f"{self._steps} updates"
        yield Row(f"{self._row}/single_update", float(np.max(updates)), SINGLE_UPDATE, note=note)
        measured = float(np.max(seconds)) if seconds else float("nan")
        note = f"{', '.join(slots)} after {len(recorded)} updates"
        yield Row(f"{self._row}/second_moments", measured, SECOND_MOMENT, "relative", note)

    def gradients(self) -> Iterator[Row]:
        """The gradient at each recorded prompt."""
        value_and_gradient, measured = prompt_gradient(self._golden), []
        for i, expected in enumerate(self._theirs["grads"]):
            batch = self._batches[i % len(self._batches)]
            _, ours = value_and_gradient(jnp.asarray(self._theirs["prompts"][i]), batch)
            measured.append(of_maximum(ours, expected))
        note = f"{len(measured)} prompts"
        value = float(np.max(measured))
        yield Row(f"{self._row}/gradient", value, GRADIENT, "relative", note)

    def free_run(self) -> Iterator[Row]:
        """All updates in a row through this project's train step, from the first prompt alone."""
        theirs = self._theirs
        frozen = tree.unflatten(_device(self._golden.frozen))
        trainable = tree.unflatten({PROMPT_PATH: jnp.asarray(theirs["prompts"][0])})
        state = TrainState(jnp.int32(0), trainable, self._tx.init(trainable), _key())
        ours = free_run(self._step, state, frozen, self._batches, self._steps)
        note = f"{self._steps} updates"
        prompts = [tree.flatten(params)[PROMPT_PATH] for params in ours.trainable]
        value = largest(np.stack(prompts), theirs["prompts"][1:])
        yield Row(f"{self._row}/free_running_prompt", value, FREE_RUN, note=note)
        yield from ours.metric_rows(self._row, theirs)
        yield from schedule_row(self._row, self._golden.meta["trajectory"], theirs)
        changed = [
            p for p, x in tree.flatten(frozen).items() if differing(x, self._golden.frozen[p])
        ]
        yield Row(f"{self._row}/changed_frozen_parameters", len(changed), 0, "count")


def _prompt_steps(golden: Golden, start_step: int, rates: tuple[float, ...]):
    """The recorded optimizer, its single update, and the train step that runs use; compiled once for like runs."""
    settings = adafactor_of(golden.meta["trajectory"]["adafactor"], restored_step=start_step)
    return _compiled_steps(settings, golden.model(), rates)


@functools.cache
def _compiled_steps(settings: Adafactor, model: EncoderDecoderModel, rates: tuple[float, ...]):
    """The same, whatever folder describes them."""
    rate = rate_of(rates)
    tx = settings.make(rate)
    return tx, updater(tx), train_step(model, tx, rate)


@functools.cache
def prompt_gradient(golden: Golden):
    """Returns the loss and its gradient by the prompt, `(prompt, batch) -> (loss, gradient)`."""
    frozen = tree.unflatten(_device(golden.frozen))
    return functools.partial(_compiled_prompt_gradient(golden.model()), frozen)


@functools.cache
def _compiled_prompt_gradient(model: EncoderDecoderModel) -> Any:
    """`(frozen parameters, prompt, batch) -> (loss, gradient)`, compiled once for all folders."""

    def loss_fn(frozen, prompt, batch):
        weights, normalizer = weights_and_normalizer(batch, model.loss_config)
        logits = model.apply(tree.merge(tree.unflatten({PROMPT_PATH: prompt}), frozen), batch)
        return loss_and_metric_sums(logits, batch, weights, normalizer, model.loss_config)[0]

    return jax.jit(jax.value_and_grad(loss_fn, argnums=1))


def train_step(model: EncoderDecoderModel, tx: Any, rate: Schedule) -> Any:
    """Returns the train step that runs use, compiled."""
    step = make_train_step(model.apply, tx, learning_rate_fn=rate, loss_config=model.loss_config)
    return jax.jit(step)


class FreeRun:
    """What every step of a run left: the trained parameters and the metrics."""

    def __init__(self) -> None:
        self.trainable: list[Any] = []
        self.metrics: list[dict[str, float]] = []
        self.state: TrainState | None = None

    def metric_rows(self, row: str, theirs: dict[str, np.ndarray]) -> Iterator[Row]:
        """Losses and learning rates of all steps."""
        for name, tolerance in (("loss", LOSS), ("z_loss", LOSS), ("learning_rate", 1e-6)):
            if name in theirs:
                ours = np.asarray([metrics[name] for metrics in self.metrics])
                value = each_relative(ours, theirs[name], floor=1e-12)
                yield Row(f"{row}/{name}", value, tolerance, "relative", f"{len(ours)} updates")


def free_run(step, state, frozen, batches, steps) -> FreeRun:
    """Takes `steps` steps with a compiled train step."""
    run = FreeRun()
    for i in range(steps):
        state, metrics = step(state, frozen, batches[i % len(batches)])
        run.trainable.append(jax.device_get(state.trainable))
        run.metrics.append({name: float(x) for name, x in metrics.items()})
    run.state = state
    return run


def model_tuning(golden: Golden) -> Iterator[Row | NotChecked]:
    """Every recorded run of model tuning; one that starts at a step restores the checkpoint's optimizer state."""
    described = golden.meta.get("model_tuning", {})
    names = dict.fromkeys([*described.get("files", {}), *_files(golden, "model_tuning*.npz")])
    for name in names:
        if not golden.has(name):
            yield NotChecked(name, "not in this folder")
            continue
        theirs = golden.arrays(name)
        row = "model_tuning/" + name.removeprefix("model_tuning").removesuffix(".npz").strip("_")
        row = row if not row.endswith("/") else "model_tuning/fresh"
        restored = int(theirs["start_step"]) > 0
        checkpoint = golden.meta["checkpoint"]["path"]
        if not golden.has(checkpoint):
            yield NotChecked(name, f"its {checkpoint} is not in this folder")
            continue
        model = golden.model(with_prompt=False)
        trainer, start = _model_start(golden, model, described, theirs, restored)
        cycles = "cycle" in name or "cycle" in described.get("files", {}).get(name, "")
        tx = trainer.optimizer.make(trainer.learning_rate_fn)
        ours = free_run(
            train_step(model, tx, trainer.learning_rate_fn),
            start.state,
            start.frozen,
            golden.batches_cycle if cycles else [golden.batch],
            len(theirs["loss"]),
        )
        yield from ours.metric_rows(row, theirs)
        yield from schedule_row(row, described, theirs)
        yield from _model_rows(row, ours, theirs)


def _model_start(
    golden: Golden, model: EncoderDecoderModel, described: dict, theirs: dict, restored: bool
) -> tuple[Trainer, initialization.Start]:
    """The start of a run as `prompt-tuning train` makes it, from the folder's checkpoint."""
    source = open_source(golden.path / golden.meta["checkpoint"]["path"])
    optimizer = adafactor_of(described["adafactor"], restored_step=None if restored else 0)
    # The recorded rates are those of steps counted from the restored one.
    rate = rate_of(theirs["learning_rate"])
    first = int(theirs["start_step"])
    trainer = Trainer(optimizer, lambda step: rate(step - first))
    trainer, optimizer_state = starting_from(trainer, source, model.param_shapes)
    assert (optimizer_state is not None) == restored
    assert trainer.optimizer.restored_step == first
    with tempfile.TemporaryDirectory() as empty:
        start = initialization.initialize(
            model,
            PjitPartitioner(),
            trainer.optimizer.make(trainer.learning_rate_fn),
            source=source,
            frozen_dtype="float32",
            trainable_regex=(".*",),
            checkpointer=Checkpointer(empty),
            rng=jax.random.key(0),
            optimizer_state=optimizer_state,
        )
    return trainer, start


def _model_rows(row: str, ours: FreeRun, theirs: dict[str, np.ndarray]) -> Iterator[Row]:
    """Parameters after some steps, all at the end, and the second moments."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in theirs.items():
        group, slash, path = name.partition("/")
        if slash:
            groups.setdefault(group, {})[path] = array
    moments = groups.pop("state", {})
    for group, expected in groups.items():
        index = -1 if group == "final" else int(group.removeprefix("step")) - 1
        params = tree.flatten(ours.trainable[index])
        value = worst(largest, {path: params[path] for path in expected}, expected)
        tolerance = SINGLE_UPDATE if index == 0 else MODEL_TUNING
        yield Row(f"{row}/parameters_{group}", value, tolerance, note=f"{len(expected)} arrays")
    if moments:
        assert ours.state is not None
        mine = moments_of(ours.state.opt_state)
        used = {name: x for name, x in moments.items() if x.shape != (1,)}
        value = worst(second_moments, {name: mine[name] for name in used}, used)
        note = f"{len(used)} arrays after all updates"
        yield Row(f"{row}/second_moments", value, SECOND_MOMENT, "relative", note)


def adafactor(golden: Golden) -> Iterator[Row | NotChecked]:
    """Runs of single parameters, each update from the recorded parameter; grouped by the kind of parameter."""
    arrays = golden.arrays("adafactor.npz")
    updates: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name, case in golden.json("adafactor.json").items():
        group = name.split("/")[0]
        if len(case["shape"]) > 2 or "layers" in case.get("axes", ()):
            yield NotChecked(f"adafactor.npz: {name}", "stacked layers are compared by training")
            continue
        tx = adafactor_of(case, restored_step=case["start_step"]).make(
            lambda step, lr=case["lr"]: jnp.float32(lr)
        )
        params = arrays[f"{name}/params"]
        update, moments = updater(tx), zero_moments(tx, params[0])
        for i, grad in enumerate(arrays[f"{name}/grads"]):
            ours, moments = update(params[i], grad, moments, i)
            updates.setdefault(group, []).append(largest(ours, params[i + 1]))
        for slot, ours in moments.items():
            expected = arrays[f"{name}/{slot}"]
            seconds.setdefault(group, []).append(second_moments(ours, expected))
    for group, values in updates.items():
        note = f"{len(values)} updates"
        yield Row(
            f"adafactor/{group}/single_update", float(np.max(values)), SINGLE_UPDATE, note=note
        )
        value = float(np.max(seconds[group]))
        yield Row(f"adafactor/{group}/second_moments", value, SECOND_MOMENT, "relative")


def schedules(golden: Golden) -> Iterator[Row | NotChecked]:
    """Learning rates by step."""
    compared, measured = 0, []
    entries = golden.json("lr_schedules.json")
    for entry in entries:
        schedule = create_learning_rate_scheduler(**entry["kwargs"])
        ours = [float(schedule(step)) for step in entry["steps"]]
        measured.append(each_relative(ours, entry["lr"], floor=1e-12))
        compared += len(ours)
    note = f"{compared} steps of {len(entries)} schedules"
    yield Row("schedules/learning_rate", float(np.max(measured)), 1e-6, "relative", note)


def schedule_row(row: str, described: dict, theirs: dict[str, np.ndarray]) -> Iterator[Row]:
    """The recorded learning rates against this project's schedule, where meta.json describes a constant one."""
    match = _CONSTANT.fullmatch(str(described.get("learning_rate")))
    if match is None or "learning_rate" not in theirs:
        return
    constant = create_learning_rate_scheduler("constant", float(match[1]))
    schedule = counted_from(constant, int(theirs["start_step"]))
    ours = [float(schedule(i)) for i in range(len(theirs["learning_rate"]))]
    value = each_relative(ours, theirs["learning_rate"], floor=1e-12)
    yield Row(f"{row}/scheduled_learning_rate", value, 1e-6, "relative")


def rate_of(rates: Sequence[float] | np.ndarray) -> Schedule:
    """Returns recorded learning rates as a function of a run's own updates, from 0."""
    table = np.asarray(rates, np.float32)
    return lambda step: jnp.asarray(table)[jnp.clip(step, 0, len(table) - 1)]


def recorded_moments(theirs: dict[str, np.ndarray], steps: int) -> dict[int, dict[str, np.ndarray]]:
    """Returns the second moments that a run recorded: update -> slot -> array; placeholders are left out.

    `v_after` has them after every update, `v_step20` after 20; factored ones are called `v_row…` and `v_col…`.
    """
    recorded: dict[int, dict[str, np.ndarray]] = {}
    for name, array in theirs.items():
        match = re.fullmatch(r"(v|v_row|v_col)(_after|_step(\d+)|)", name)
        if match is None:
            continue
        slot = match[1]
        after = {int(match[3]) - 1: array} if match[3] else dict(enumerate(array[:steps]))
        for update, moments in after.items():
            if moments.shape != (1,):
                recorded.setdefault(update, {})[slot] = moments
    return recorded


def _files(golden: Golden, pattern: str) -> list[str]:
    """Names of the files of a kind that a folder has."""
    return sorted(path.name for path in golden.path.glob(pattern))


def _device(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Arrays on the default device."""
    return {path: jnp.asarray(x) for path, x in arrays.items()}


def _key() -> jax.Array:
    """A dropout key, which nothing draws from."""
    return jax.random.key_data(jax.random.key(0))
