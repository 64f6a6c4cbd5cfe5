"""T-Few against numbers of its own code: losses, gradients of (IA)3's factors, updates, trajectories, learning rates.

The models are read as Hugging Face checkpoints. Which folder belongs to which numbers follows from the sizes in both.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning import tree
from prompt_tuning.data import choices
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.choice_losses import ChoiceLosses
from prompt_tuning.training.schedules import create_learning_rate_scheduler
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_eval_step, make_train_step
from tests.parity import huggingface
from tests.parity.adafactor_state import moments_of
from tests.parity.rows import NotChecked, Row, each_relative, largest, of_maximum

LOSS = GRADIENT = MOMENTS = 1e-5
UPDATE = RATE = 1e-6
# Of a run by itself: Adafactor divides gradients by their own size, so that one at the level of rounding moves its
# factor by a share of the learning rate (0.003) in a direction of its own.
FACTORS = 1e-4
# A position of padding adds this to the unlikelihood loss, in which it cancels what wrong tokens add: what is left may
# be close to 0, and rounding is a share of what was added.
FLOOR = float(np.log(1.01))
FILE = "tfew_losses.json"
LEARNING_RATE = 3e-3
# What T-Few computes in each setting; None is the right choice's own loss, on targets without choices.
SETTINGS: dict[str, ChoiceLosses | None] = {
    "total": ChoiceLosses(),
    "lm_only": None,
    "lm_and_length_normalized": ChoiceLosses(unlikelihood=0.0),
    "lm_and_unlikelihood": ChoiceLosses(length_normalized=0.0),
    "total_without_length_norm": ChoiceLosses(length_norm=0.0),
}
_TERMS = {
    "lm": "lm_loss",
    "length_normalized": "length_normalized_loss",
    "unlikelihood": "unlikelihood_loss",
    "total": "loss",
}
_LOGGED = {
    "loss": "loss",
    "lm_loss": "lm_loss",
    "length_normalized_loss": "mc_loss",
    "unlikelihood_loss": "unlikely_loss",
    "grad_norm": "grad_norm_before_clip",
}
_PARTS = ("input_ids", "target_ids", "answer_choices_ids", "labels")
_SUBLAYERS = {
    "encoder": ("attention", "mlp"),
    "decoder": ("self_attention", "encoder_decoder_attention", "mlp"),
}
_MAPS = {"k": "key", "v": "value", "wi_1": "wo"}
_THEIR_NAME = re.compile(
    r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.\w+\.(k|v|wi_1)\.multi_lora_b"
)


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields every comparison with a folder's numbers of T-Few.

    Args:
      directory: The folder.
      vocabulary: Not needed: batches are ids.
    """
    del vocabulary
    if not (directory / FILE).is_file():
        yield NotChecked(FILE, "is not in this folder")
        return
    for name, numbers in json.loads((directory / FILE).read_text(encoding="utf-8")).items():
        arrays = directory / f"{pathlib.Path(FILE).stem}_{name}.npz"
        folder = _folder_of(directory, numbers["shape"])
        if folder is None or not arrays.is_file():
            yield NotChecked(f"{FILE}: {name}", f"there is no model of its sizes, or no {arrays}")
            continue
        with np.load(arrays) as file:
            reference = Reference(name, numbers, dict(file), folder)
        yield from losses_and_gradients(reference)
        for run in numbers["trajectories"]:
            yield from trajectory(reference, run)


def _folder_of(directory: pathlib.Path, shape: dict[str, Any]) -> pathlib.Path | None:
    """The Hugging Face checkpoint that has certain sizes."""
    for config in sorted(directory.glob("*/config.json")):
        found = json.loads(config.read_text(encoding="utf-8"))
        if all(found[name] == size for name, size in shape.items() if name in found):
            return config.parent
    return None


@dataclasses.dataclass
class Reference:
    """Numbers of one model.

    Attributes:
      name: Its key in the file.
      numbers: What the file has under it.
      arrays: Batches, factors, gradients and trajectories.
      folder: The checkpoint.
    """

    name: str
    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]
    folder: pathlib.Path

    @functools.cached_property
    def loaded(self) -> tuple[EncoderDecoderModel, dict[str, Any]]:
        """The model with (IA)3, without dropout, and its frozen parameters."""
        model, frozen = huggingface.load(self.folder, scan_layers=False)
        config = dataclasses.replace(model.config, dropout_rate=0.0)
        module = model.module.clone(config=config, method=IA3())
        return dataclasses.replace(
            model, module=module, z_loss=0.0, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"
        ), frozen

    def model(self, setting: str) -> EncoderDecoderModel:
        """The model with a setting's losses."""
        return dataclasses.replace(self.loaded[0], choice_losses=SETTINGS[setting])

    def factors(self, flat: np.ndarray) -> dict[str, Any]:
        """(IA)3's factors, nested, of a flat vector in the file's order."""
        return tree.unflatten({path: jnp.asarray(flat[part]) for path, part in self.parts.items()})

    def flat(self, factors: Any) -> np.ndarray:
        """The flat vector of factors."""
        found = np.full(self.numbers["num_ia3_parameters"], np.nan, np.float32)
        for path, leaf in tree.flatten(factors).items():
            found[self.parts[path]] = leaf
        return found

    @functools.cached_property
    def parts(self) -> dict[str, slice]:
        """Where the factors of each path are in a flat vector."""
        parts = {}
        for entry in self.numbers["layout"]:
            match = _THEIR_NAME.fullmatch(entry["name"])
            assert match is not None, entry
            stack, layer, sublayer, linear = match.groups()
            path = f"{stack}/layers_{layer}/{_SUBLAYERS[stack][int(sublayer)]}/{_MAPS[linear]}"
            size = int(np.prod(entry["shape"]))
            parts[f"{path}/ia3_scaling"] = slice(entry["offset"], entry["offset"] + size)
        return parts

    def batch(self, name: str, setting: str) -> dict[str, np.ndarray]:
        """The features of a batch, with all choices or the right ones alone.

        All batches have one shape, so that little is compiled: rows of zeros and padding change nothing.
        """
        inputs, targets, answers, labels = (self.arrays[f"batch/{name}/{p}"] for p in _PARTS)
        if SETTINGS[setting] is None:
            rows = [row[row > 0] for row in targets]
        else:
            rows = [
                np.concatenate([text[text > 0] for text in (of[label], *np.delete(of, label, 0))])
                for of, label in zip(answers, labels, strict=True)
            ]
        num_rows, inputs_width, targets_width = self.shape
        ids = np.zeros((num_rows, targets_width), np.int32)
        for row, tokens in zip(ids, rows, strict=False):
            row[: len(tokens)] = tokens
        filled = ((0, num_rows - len(inputs)), (0, inputs_width - inputs.shape[1]))
        features = {
            "encoder_input_tokens": np.pad(inputs, filled),
            "decoder_target_tokens": ids,
            "decoder_input_tokens": np.pad(ids, ((0, 0), (1, 0)))[:, :-1],
            "decoder_loss_weights": (ids > 0).astype(np.int32),
        }
        return features if SETTINGS[setting] is None else choices.model_features(features)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """Rows of the largest batch, and the widths of the widest inputs and rows of choices."""
        of_inputs, _, of_answers, _ = (
            [self.arrays[f"batch/{name}/{part}"] for name in self.numbers["batches"]]
            for part in _PARTS
        )
        rows, width = np.max([x.shape for x in of_inputs], axis=0)
        return int(rows), int(width), max(int(np.prod(x.shape[1:])) for x in of_answers)


def losses_and_gradients(reference: Reference) -> Iterator[Row | NotChecked]:
    """The losses of each batch, and the gradients of the factors in each setting."""
    factors = reference.factors(reference.arrays["ia3"])
    settings = {
        name for batch in reference.numbers["batches"].values() for name in batch["settings"]
    }
    for setting in sorted(settings):
        if setting not in SETTINGS:
            yield NotChecked(f"{FILE}: {reference.name}/{setting}", "an unknown setting")
            continue
        compute = _loss_and_gradient(reference, setting)
        for name, numbers in reference.numbers["batches"].items():
            theirs = numbers["settings"].get(setting)
            if theirs is None:
                continue
            where = f"t0/tfew/{reference.name}/{name}"
            gradient, sums = compute(factors, reference.batch(name, setting))
            value = _relative(sums["loss"], theirs["loss"])
            yield Row(f"{where}/{setting}/loss", value, LOSS, "relative")
            value = _relative(optax.tree.norm(gradient), theirs["grad_global_norm"])
            yield Row(f"{where}/{setting}/gradient norm", value, GRADIENT, "relative")
            expected = reference.arrays.get(f"grad/{name}/{setting}")
            if expected is not None:
                value = of_maximum(reference.flat(gradient), expected)
                yield Row(f"{where}/{setting}/gradient", value, GRADIENT, "relative")
            for term, ours in _TERMS.items() if setting == "total" else ():
                value = _relative(sums[ours], numbers["losses"][term], FLOOR)
                yield Row(f"{where}/losses/{term}", value, LOSS, "relative")


def _loss_and_gradient(reference: Reference, setting: str) -> Any:
    """Compiled `(factors, batch) -> (gradient of the loss by the factors, sums of a step)`."""
    model, (_, frozen) = reference.model(setting), reference.loaded
    evaluate = make_eval_step(model.apply, loss_config=model.loss_config)

    def loss(factors: Any, batch: Any) -> tuple[Any, Any]:
        sums = evaluate(tree.merge(factors, frozen), batch)
        return sums["loss"], sums

    return jax.jit(jax.grad(loss, has_aux=True))


def trajectory(reference: Reference, run: str) -> Iterator[Row | NotChecked]:
    """One training run: from the stored gradients, and on its own."""
    numbers, where = (
        reference.numbers["trajectories"][run],
        f"t0/tfew/{reference.name}/run {run}",
    )
    steps = numbers["steps"]
    schedule = create_learning_rate_scheduler(
        "constant * linear_warmup * linear_to_zero",
        base_learning_rate=numbers.get("learning_rate", LEARNING_RATE),
        warmup_steps=numbers["warmup_steps"],
        total_steps=numbers["num_steps"],
        min_learning_rate=0.0,
    )
    rates = [float(schedule(step["step"])) for step in steps]
    value = largest(rates, [step["lr"] for step in steps]) / max(step["lr"] for step in steps)
    yield Row(f"{where}/learning rates", value, RATE, "relative", f"{len(steps)} steps")

    tx = Adafactor(global_norm_clip_threshold=1.0).make(schedule)
    is_ones = numbers["start"] == "ones"
    start = np.ones_like(reference.arrays["ia3"]) if is_ones else reference.arrays["ia3"]
    theirs = {
        name.rpartition("/")[2]: x
        for name, x in reference.arrays.items()
        if name.startswith(f"traj/{run}/")
    }
    if "grad" in theirs:
        yield from _stored_gradients(reference, where, tx, start, theirs)
    yield from _free_run(reference, where, tx, schedule, start, steps, theirs)


def _stored_gradients(
    reference: Reference,
    where: str,
    tx: optax.GradientTransformation,
    start: np.ndarray,
    theirs: dict[str, np.ndarray],
) -> Iterator[Row]:
    """Each update by itself: their factors and their gradient in, new factors out."""
    update = jax.jit(tx.update)
    before = reference.factors(start)
    opt_state = tx.init(before)
    found = []
    for gradient, after in zip(theirs["grad"], theirs["ia3"], strict=True):
        updates, opt_state = update(reference.factors(gradient), opt_state, before)
        found.append(reference.flat(optax.apply_updates(before, updates)))
        before = reference.factors(after)
    value = largest(found, theirs["ia3"])
    yield Row(f"{where}/single updates", value, UPDATE, note=f"{len(found)} updates")
    yield from _moments(reference, f"{where}/single updates", opt_state, theirs)


def _free_run(
    reference: Reference,
    where: str,
    tx: optax.GradientTransformation,
    schedule: Any,
    start: np.ndarray,
    steps: list[dict[str, Any]],
    theirs: dict[str, np.ndarray],
) -> Iterator[Row]:
    """The training step of a run, from its first batch to its last."""
    model, (_, frozen) = reference.model("total"), reference.loaded
    step = jax.jit(
        make_train_step(model.apply, tx, learning_rate_fn=schedule, loss_config=model.loss_config)
    )
    factors = reference.factors(start)
    no_dropout = jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.int32(0), factors, tx.init(factors), no_dropout)
    apart, logged = [], []
    for number, expected in enumerate(steps):
        state, metrics = step(state, frozen, reference.batch(expected["batch"], "total"))
        apart.append(largest(reference.flat(state.trainable), theirs["ia3"][number]))
        logged.append(metrics)
    note = f"{len(steps)} steps"
    for ours, name in _LOGGED.items():
        found, expected = [float(m[ours]) for m in logged], [step[name] for step in steps]
        if ours == "unlikelihood_loss":
            # What is left of a sum that cancels: rounding that has added up over the run is no share of it.
            yield Row(f"{where}/{ours}", largest(found, expected), UPDATE, note=note)
            continue
        value = each_relative(found, expected, floor=1e-12)
        yield Row(f"{where}/{ours}", value, LOSS, "relative", note)
    yield Row(f"{where}/factors", float(np.max(apart)), FACTORS, note=note)
    yield from _moments(reference, where, state.opt_state, theirs)


def _moments(
    reference: Reference, where: str, opt_state: Any, theirs: dict[str, np.ndarray]
) -> Iterator[Row]:
    """Second moments at the end: theirs are factored, ours are not, which is the same for a vector."""
    moments = {
        path.removesuffix("/v"): x
        for path, x in moments_of(opt_state).items()
        if path.endswith("/v")
    }
    ours = reference.flat(tree.unflatten(moments))
    value = of_maximum(ours, theirs["exp_avg_sq_row"])
    yield Row(f"{where}/second moments of rows", value, MOMENTS, "relative")
    means = [np.mean(ours[part]) for part in reference.parts.values()]
    value = of_maximum(means, theirs["exp_avg_sq_col"])
    yield Row(f"{where}/second moments of columns", value, MOMENTS, "relative")


def _relative(ours: Any, theirs: Any, floor: float = 1e-12) -> float:
    """The difference of two numbers as a share of the second, or of `floor` where that is more."""
    return each_relative(np.asarray([ours]), np.asarray([theirs]), floor=floor)
