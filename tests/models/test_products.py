"""Products that add up in float32: the numbers of plain ones, and gradients that stay in bfloat16's instructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models import products

BFLOAT16, FLOAT32 = jnp.dtype("bfloat16"), jnp.dtype("float32")


def _arrays(x_dtype, kernel_dtype, kernel_shape=(6, 4, 5)):
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(2, 3, 6, 4)), x_dtype)
    return x, jnp.asarray(draw(size=kernel_shape), kernel_dtype)


def _plain(x, kernel, equation, dtype):
    """In float32, of the operands as the product casts them."""
    narrow = jnp.promote_types(x.dtype, kernel.dtype) == BFLOAT16
    cast = BFLOAT16 if narrow or dtype == BFLOAT16 else FLOAT32
    x, kernel = (a.astype(cast).astype(FLOAT32) for a in (x, kernel))
    return jnp.einsum(equation, x, kernel).astype(dtype)


@pytest.mark.loose_numerics(reason="float32 and bfloat16 meet in what is compared with")
@pytest.mark.parametrize("x_dtype", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("kernel_dtype", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32])
@pytest.mark.parametrize("trailing", [False, True])
def test_values_and_gradients(x_dtype, kernel_dtype, dtype, trailing):
    x, kernel = _arrays(x_dtype, kernel_dtype, (5, 6, 4) if trailing else (6, 4, 5))
    axes, equation = ((1, 2), "abnd,hnd->abh") if trailing else ((0, 1), "abnd,ndh->abh")

    def value_and_gradients(function):
        out, backwards = jax.vjp(function, x, kernel)
        return out, *backwards(jnp.cos(out))

    ours = value_and_gradients(lambda x, kernel: products.product(x, kernel, axes, dtype))
    plain = value_and_gradients(lambda x, kernel: _plain(x, kernel, equation, dtype))
    assert [a.dtype for a in ours] == [dtype, x_dtype, kernel_dtype]
    for mine, other in zip(ours, plain, strict=True):
        mine, other = (np.asarray(a, np.float32) for a in (mine, other))
        # Results that are rounded to bfloat16 may fall to the other side.
        step = 2**-7 if BFLOAT16 in (dtype, x_dtype, kernel_dtype) else 1e-6
        np.testing.assert_allclose(mine, other, rtol=step, atol=step * np.abs(other).max())


def test_no_product_mixes_or_narrows():
    """Each product of a bfloat16 step has two bfloat16 operands and a float32 result."""
    x, kernel = _arrays(BFLOAT16, BFLOAT16)
    step = jax.grad(lambda x, k: jnp.sum(products.product(x, k, (0, 1), BFLOAT16) ** 2), (0, 1))
    text = str(jax.make_jaxpr(step)(x, kernel))
    lines = [line for line in text.splitlines() if "dot_general[" in line]
    assert len(lines) == 3
    assert (
        all(":f32[" in line for line in lines) and text.count("preferred_element_type=float32") == 3
    )
