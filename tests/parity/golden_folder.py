"""A folder of reference numbers, and the model and the settings that its meta.json describes."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.adafactor import Adafactor
from tests import both_layouts

# Settings of T5X's Adafactor that have no counterpart here -> the values at which they do nothing.
_NEUTRAL = {
    "beta1": (None,),
    "weight_decay_rate_lr_exponent": (None,),
    "max_parameter_scale": (None,),
    "skip_nan_updates": (False, None),
    "dtype_momentum": ("float32", None),
}
_MODEL_FIELDS = {
    field.name
    for field in dataclasses.fields(T5Config)
    if field.name not in ("dtype", "param_dtype")
}


class UnsupportedError(Exception):
    """A reference was computed with a setting that this project does not have."""


class Golden:
    """One folder in the layout of the reference numbers; shapes and settings come from its meta.json.

    Args:
      path: The folder.
      vocabulary: T5's SentencePiece model, to compare token ids with; None if there is none.
    """

    def __init__(self, path: str | pathlib.Path, vocabulary: pathlib.Path | None = None):
        self.path, self.vocabulary = pathlib.Path(path), vocabulary
        self.meta: dict[str, Any] = self.json("meta.json")

    def json(self, name: str) -> Any:
        """Returns the content of a JSON file."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    @functools.cache  # noqa: B019
    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns the arrays of an .npz file by name."""
        with np.load(self.path / name) as file:
            return dict(file)

    def has(self, name: str) -> bool:
        """Returns whether there is such a file or folder."""
        return (self.path / name).exists()

    @functools.cached_property
    def frozen(self) -> dict[str, np.ndarray]:
        """The model's parameters by path, without the prompt."""
        return {p: x for p, x in self.arrays("params.npz").items() if p != PROMPT_PATH}

    @functools.cached_property
    def prompt(self) -> np.ndarray:
        """The prompt [P, H] float32."""
        return np.load(self.path / self.meta["prompt"].get("file", "prompt.npy"))

    @property
    def params(self) -> dict[str, np.ndarray]:
        """All parameters by path."""
        return {**self.frozen, PROMPT_PATH: self.prompt}

    @functools.cached_property
    def batch(self) -> dict[str, jax.Array]:
        """The batch that most numbers were computed on."""
        return {name: jnp.asarray(x) for name, x in self.arrays("batch.npz").items()}

    @functools.cached_property
    def batches_cycle(self) -> list[dict[str, jax.Array]]:
        """The batches that some training runs go round, in order."""
        batches: dict[int, dict[str, jax.Array]] = {}
        for name, array in self.arrays("batches_cycle.npz").items():
            index, feature = name.split("/", 1)
            batches.setdefault(int(index), {})[feature] = jnp.asarray(array)
        return [batches[index] for index in sorted(batches)]

    @property
    def is_target(self) -> np.ndarray:
        """[B, T] bool: the positions that are compared; padded ones differ between T5X and Flaxformer themselves."""
        return np.asarray(self.batch["decoder_loss_weights"]) > 0

    def is_encoded(self, prompt_length: int) -> np.ndarray:
        """[B, S] bool: real positions of the encoder's output; prompts are real everywhere."""
        tokens = np.asarray(self.batch["encoder_input_tokens"]) > 0
        return np.pad(tokens, ((0, 0), (prompt_length, 0)), constant_values=True)

    @functools.cache  # noqa: B019
    def model(self, *, with_prompt: bool = True, **overrides: Any) -> EncoderDecoderModel:
        """Returns the model, without dropout; `overrides` change its `T5Config`."""
        described = self.meta["model"]
        for name in (
            "attention_scaled_by_sqrt_depth",
            "logits_scaled_by_rsqrt_emb",
            "embedding_scaled",
        ):
            if described.get(name) and not described.get("logits_via_embedding"):
                raise UnsupportedError(f"meta.json: model.{name} = {described[name]!r}")
        sizes = {name: value for name, value in described.items() if name in _MODEL_FIELDS}
        sizes |= {"dtype": described.get("dtype", "float32"), "dropout_rate": 0.0}
        if any("/layers_0/relpos_bias/" in path for path in self.frozen):
            sizes["relative_bias_per_layer"] = True
        loss = self.meta.get("loss", {})
        terms = ("z_loss", "label_smoothing", "loss_normalizing_factor")
        prompt = PromptConfig(length=self.prompt.shape[0]) if with_prompt else None
        return EncoderDecoderModel(
            T5(T5Config(**{**sizes, **overrides}), prompt),
            None,
            None,
            **{name: loss[name] for name in terms if name in loss},
        )

    def params_for(self, model: EncoderDecoderModel) -> dict[str, Any]:
        """Returns the parameters of `model` as a nested dict of device arrays, in its layout."""
        flat = self.frozen if model.prompt is None else self.params
        if model.config.scan_layers:
            flat = both_layouts.to_scanned(flat)
        return tree.unflatten({path: jnp.asarray(x) for path, x in flat.items()})


def adafactor_of(settings: dict[str, Any], *, restored_step: int | None) -> Adafactor:
    """Returns T5X's settings as this project's Adafactor.

    Raises:
      UnsupportedError: If a setting does something that this Adafactor cannot.
    """
    for name, neutral in _NEUTRAL.items():
        if name in settings and settings[name] not in neutral:
            raise UnsupportedError(f"Adafactor with {name} = {settings[name]!r}")
    fields = {field.name for field in dataclasses.fields(Adafactor)} - {"restored_step"}
    known = {name: value for name, value in settings.items() if name in fields}
    return Adafactor(**known, restored_step=restored_step)
