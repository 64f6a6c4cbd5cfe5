"""A prompt in front of embedded tokens, against the authors' arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.prompts.prompt import prepend_prompt
from tests.helpers import GOLDEN


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "combine.npz"))


@pytest.mark.parametrize("per_row", [False, True])
def test_prefix_is_the_authors(golden, per_row):
    prompt = np.repeat(golden["prompt"][None], 3, axis=0) if per_row else golden["prompt"]
    combined = prepend_prompt(golden["embedded"], prompt)
    assert combined.shape == (3, 8, 4)
    np.testing.assert_array_equal(combined, golden["prefix"])


def test_rows_keep_their_prompts(golden):
    prompts = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    combined = prepend_prompt(golden["embedded"], prompts)
    np.testing.assert_array_equal(combined[:, :2], prompts)
    np.testing.assert_array_equal(combined[:, 2:], golden["embedded"])


def test_float32_prompt_takes_the_activation_dtype(golden):
    embedded = jnp.asarray(golden["embedded"], jnp.bfloat16)
    combined = prepend_prompt(embedded, jnp.asarray(golden["prompt"]))
    assert combined.dtype == jnp.bfloat16
    np.testing.assert_array_equal(combined[0, :2], jnp.asarray(golden["prompt"], jnp.bfloat16))


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 4), (4,), (1, 3, 2, 4)])
def test_unfitting_prompts_are_refused(golden, shape):
    with pytest.raises(ConfigError, match=r"expected \[P, 4\] or \[3, P, 4\]"):
        prepend_prompt(golden["embedded"], np.zeros(shape, np.float32))
