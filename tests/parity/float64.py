"""Gradients of one adapter in float64, here and in PEFT: what is left between them is no rounding.

Both programs compute norms and softmax in float32 whatever the model is held in, and say so by name: while these
functions run, that name means float64.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from tests.parity import family_folder


def ours(
    model: EncoderDecoderModel, params: Mapping[str, Any], paths: list[str], batch: dict
) -> dict[str, np.ndarray]:
    """Returns our gradients of the parameters at `paths`, float64, by path."""
    with jax.enable_x64(True), mock.patch.object(jnp, "float32", jnp.float64):
        config = dataclasses.replace(model.module.config, dtype="float64")
        wide = dataclasses.replace(model, module=model.module.clone(config=config))
        held = {path: jnp.asarray(x, jnp.float64) for path, x in params.items()}
        trained = {path: held[path] for path in paths}
        gradients = family_folder.loss_and_gradients(wide, held, trained, batch)[2]
    assert all(x.dtype == np.float64 for x in gradients.values())
    return gradients


def theirs(
    folder: pathlib.Path, base: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns PEFT's gradients of the loss of a case, float64, by its names of parameters.

    Args:
      folder: The adapter's.
      base: The model's.
      arrays: What the case computed: inputs and targets.
    """
    import peft
    import torch

    names = ("input_ids", "attention_mask", "decoder_input_ids")
    given = {name: torch.from_numpy(arrays[name]).long() for name in names}
    labels = torch.from_numpy(arrays["labels"]).long().flatten()
    plain = family_folder.their_model(base)
    adapted = peft.PeftModel.from_pretrained(plain, str(folder), is_trainable=True).double().eval()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "float32", torch.float64))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", lambda x: x))
        logits = adapted(**given).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels).backward()
    assert logits.dtype == torch.float64
    trained = {name: x for name, x in adapted.named_parameters() if x.requires_grad}
    return {name: x.grad.numpy() for name, x in trained.items() if x.grad is not None}
