"""Single updates of Adafactor: one parameter in, one parameter out, its second moments beside it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# Slot ("v", "v_row", "v_col") -> array; a slot that is not used has shape (1,).
Moments = dict[str, jax.Array]
Update = Callable[[Any, Any, Moments, int], tuple[jax.Array, Moments]]
_SLOTS = ("v", "v_row", "v_col")


def updater(tx: optax.GradientTransformation) -> Update:
    """Returns `(parameter, gradient, moments, updates before) -> (parameter, moments)`."""

    @jax.jit
    def update(param, grad, moments, count):
        params = {"p": param}
        opt_state = _filled(tx.init(params), {f"p/{slot}": x for slot, x in moments.items()})
        updates, opt_state = tx.update({"p": grad}, _counted(opt_state, count), params)
        found = moments_of(opt_state)
        new: Any = optax.apply_updates(params, updates)
        return new["p"], {slot: found[f"p/{slot}"] for slot in _SLOTS}

    return lambda param, grad, moments, count: update(
        jnp.asarray(param), jnp.asarray(grad), moments, jnp.int32(count)
    )


def zero_moments(tx: optax.GradientTransformation, param: Any) -> Moments:
    """Returns the second moments that a parameter starts with."""
    found = moments_of(tx.init({"p": jnp.asarray(param)}))
    return {slot: found[f"p/{slot}"] for slot in _SLOTS}


def moments_of(opt_state: Any) -> dict[str, Any]:
    """Returns the second moments of `Adafactor.make(...)`'s state by `{path}/{slot}`."""
    leaves = jax.tree_util.tree_flatten_with_path(opt_state)[0]
    return {name: leaf for key_path, leaf in leaves if (name := _name(key_path)) is not None}


def _filled(opt_state: Any, moments: dict[str, Any]) -> Any:
    """The state with other second moments."""
    return jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: moments.get(_name(key_path) or "", leaf), opt_state
    )


def _counted(opt_state: Any, count: jax.Array) -> Any:
    """The state as it is after `count` updates."""
    return jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: count if _name(key_path) is None else leaf, opt_state
    )


def _name(key_path: Any) -> str | None:
    """`{path}/{slot}` of a second moment; None for a counter."""
    slot = next(
        (k.name for k in key_path if isinstance(k, jax.tree_util.GetAttrKey) and k.name in _SLOTS),
        None,
    )
    keys = [str(k.key) for k in key_path if isinstance(k, jax.tree_util.DictKey)]
    # The first key is the group of parameters that stack as many layers.
    return None if slot is None else "/".join([*keys[1:], slot])
