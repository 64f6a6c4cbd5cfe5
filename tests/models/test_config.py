"""What a T5Config accepts."""

import jax.numpy as jnp
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import tiny_config


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")])
def test_dtypes_have_one_form(dtype):
    config = tiny_config(dtype=dtype, param_dtype=dtype)
    assert config == tiny_config(dtype="bfloat16", param_dtype="bfloat16")
    assert hash(config) == hash(tiny_config(dtype="bfloat16", param_dtype="bfloat16"))
    assert config.activation_dtype == jnp.bfloat16 and config.parameter_dtype == jnp.bfloat16


def test_lists_and_none_from_gin():
    config = tiny_config(mlp_activations=["relu"], remat_policy=None)
    assert config.mlp_activations == ("relu",) and config.remat_policy == "none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"remat_policy": "minimum"}, "Closest matches: minimal"),
        ({"mlp_activations": ("gelus", "linear")}, "Closest matches: gelu"),
        ({"mlp_activations": ()}, "at least one activation"),
        ({"dtype": "bflot16"}, "Closest matches: bfloat16"),
        ({"param_dtype": "int32"}, "param_dtype is not a floating dtype"),
        ({"dropout_rate": 1.0}, r"got 1.0, expected a number in \[0, 1\)"),
        ({"num_heads": 0}, "T5Config.num_heads is not a number of units: got 0"),
        ({"emb_dim": 32.0}, "T5Config.emb_dim is not a number"),
        ({"relative_attention_max_distance": 16}, "no logarithmic buckets"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**overrides)


@pytest.mark.parametrize("length", [0, -1, 2.5, True])
def test_prompt_lengths_are_positive(length):
    with pytest.raises(ConfigError, match="PROMPT_LENGTH is not a number of positions"):
        PromptConfig(length)
