"""Prompts of the encoder's layers: what they stand in place of, in a row and among packed examples."""

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data.packing import pack
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.deep_prompt import DeepPrompt
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH, is_added, is_method
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import GOLDEN, tiny_config
from tests.models.conftest import FEATURES, max_difference

LENGTH = 2


def _case(mode):
    """A model, its weights, and a batch."""
    module = T5(tiny_config(dropout_rate=0.0), PromptConfig(length=LENGTH), DeepPrompt(mode=mode))
    model = EncoderDecoderModel(module, None, None)
    rng = np.random.default_rng(0)
    added = {p: x.shape for p, x in model.param_shapes.items() if is_added(p)}
    flat = dict(np.load(GOLDEN / "params.npz"))
    flat |= {p: rng.normal(size=shape).astype(np.float32) for p, shape in added.items()}
    batch = {name: np.load(GOLDEN / "batch.npz")[name] for name in FEATURES}
    batch["decoder_loss_weights"] = (batch["decoder_target_tokens"] > 0).astype(np.int32)
    return model, flat, batch


def _sum_of_logits(model, batch):
    """The sum of what is real, as a function of parameters."""
    real = batch["decoder_target_tokens"] > 0
    return lambda flat: jax.numpy.sum(model.apply(tree.unflatten(flat), batch)[real] ** 2)


def test_in_mode_replace_only_the_layers_prompts_are_read():
    model, flat, batch = _case("replace")
    gradients = jax.jit(jax.grad(_sum_of_logits(model, batch)))(flat)
    assert not gradients[PROMPT_PATH].any()
    deep = [p for p in flat if is_method(p)]
    assert deep == [f"encoder/layers_{i}/deep_prompt" for i in (0, 1)]
    assert all(np.abs(gradients[p]).min() > 0 for p in deep)


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_packed_examples_have_their_own(mode):
    model, flat, batch = _case(mode)
    packed = pack(batch, prompt_length=LENGTH, width=32, target_width=24, row_counts=(2, 4, 8))
    assert packed["encoder_segment_ids"].max() > 1
    call = jax.jit(model.apply)
    alone, ours = (np.asarray(call(tree.unflatten(flat), x)) for x in (batch, packed))
    compared = 0
    for logits, targets in zip(alone, batch["decoder_target_tokens"], strict=True):
        wanted = targets[targets > 0]
        for row, ids in enumerate(packed["decoder_target_tokens"]):
            for start in range(len(ids) - len(wanted) + 1):
                if np.array_equal(ids[start : start + len(wanted)], wanted):
                    compared += 1
                    got = ours[row, start : start + len(wanted)]
                    assert max_difference(got, logits[targets > 0]) <= 2e-5
    assert compared == len(alone)


def test_without_a_prompt_and_in_other_modes_it_is_refused():
    with pytest.raises(ConfigError, match="bind PROMPT = @prompts.Prompt()"):
        model = EncoderDecoderModel(T5(tiny_config(), None, DeepPrompt()), None, None)
        DeepPrompt().check([path for path in model.param_shapes if is_method(path)])
    with pytest.raises(ConfigError, match="methods.DeepPrompt.mode is unknown"):
        DeepPrompt(mode="concat")
