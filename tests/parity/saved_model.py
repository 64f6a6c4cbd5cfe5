"""Our model of a T5 that the transformers library saved; needs neither that library nor PyTorch."""

import dataclasses
import pathlib
from typing import Any

import jax

from prompt_tuning import tree
from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5


def load(folder: pathlib.Path, *, scan_layers: bool) -> tuple[EncoderDecoderModel, dict[str, Any]]:
    """Returns our model of a saved one, and its parameters."""
    source = open_source(folder)
    assert source.kind == "huggingface" and source.settings is not None
    config = T5Config(**source.settings, dtype="float32", scan_layers=scan_layers)
    model = EncoderDecoderModel(T5(config), None, None)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = initial.load_params(
        source,
        model.param_shapes,
        dict.fromkeys(model.param_shapes, sharding),
        model_shapes=model.param_shapes,
    )
    return model, tree.unflatten(params)


def load_with(folder: pathlib.Path, **parts: Any) -> tuple[EncoderDecoderModel, dict[str, Any]]:
    """Returns our model of a saved one with a prompt or a method, unscanned, and its frozen parameters by path."""
    model, params = load(folder, scan_layers=False)
    return dataclasses.replace(model, module=model.module.clone(**parts)), tree.flatten(params)
