"""Prefix tuning: learned keys and values in front of those that attention computes, in every layer."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_choice, check_count, texts_of
from prompt_tuning.models.methods.method import (
    Attended,
    KeysAndValues,
    Method,
    Place,
    Stack,
)
from prompt_tuning.models.methods.starts import as_pytorch
from prompt_tuning.params import prefix

_NORMAL, _ZEROS = nn.initializers.normal(1.0), nn.initializers.zeros


@dataclasses.dataclass(frozen=True)
class Prefix(Method):
    """Keys and values of `length` positions that no token stands at, apart for every layer and place.

    They stand in front: they take positions 0..P-1 of the relative position bias and inputs those from P on, also of
    each packed example, so that distances between tokens are what they were. Every query sees all of them. Attention
    to the encoder has no positions.

    With `hidden` a network makes them while training: of each place P embeddings [P, H] and a linear map to `hidden`
    features, which its layers share, tanh, and a linear map of each layer's own. What is exported and saved beside
    checkpoints are the keys and values that it makes; only the checkpoints to go on from hold it.

    Attributes:
      path: See `Method`.
      length: P. Unit: positions.
      places: Where: "encoder" and "decoder" for their self-attention, "cross" for attention to the encoder.
      hidden: Width of the network; None trains keys and values themselves.

    Raises:
      ConfigError: If there are no places, one is unknown, or a number is not positive; on tracing, if the prefix is
        longer than the distance that the model tells apart.

    Source: Li and Liang 2021, section 4; places and network as in T-Few's `prefix_tuning.py`, network as PEFT's
      `prefix_projection`. Differs: biases of the network start at 0. AdapterHub counts queries from 0 beside keys that
      start with the prefix, which moves tokens apart by P: such a prefix computes something else here.
    """

    length: int = 10
    places: tuple[str, ...] = tuple(prefix.PLACES)
    hidden: int | None = None

    def __post_init__(self) -> None:
        """Makes the places hashable and checks the settings."""
        check_count("methods.Prefix.length", self.length, "positions")
        check_count("methods.Prefix.hidden", self.hidden, "features", none_means="no network")
        places = texts_of("methods.Prefix.places", self.places)
        for place in places or ("",):
            check_choice("methods.Prefix.places", place, prefix.PLACES)
        # In one order, so that equal settings are the same value.
        ordered = tuple(place for place in prefix.PLACES if place in places)
        object.__setattr__(self, "places", ordered)

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError unless attention takes keys and values: T5Gemma's takes none; see `Method`."""
        super().check([path for path in added if "attention/prefix_" in path])

    def shared_of(self, stack: Stack) -> dict[str, jax.Array]:
        """Returns of each place the features [P, hidden] from which its layers make keys and values."""
        of_stack = [p for p in self.places if prefix.PLACES[p][0] == stack.name]
        return {place: self._features(stack, place) for place in of_stack if self.hidden}

    def keys_and_values_of(self, attention: Attended, own: KeysAndValues) -> KeysAndValues:
        """Returns the prefix and `own` keys and values behind it, where `places` says so."""
        place = next((p for p in self.places if prefix.PLACES[p][1] == attention.name), None)
        if place is None:
            return own
        if self.length > attention.window:
            raise ConfigError(
                "methods.Prefix.length is longer than the window in which the model tells positions apart",
                got=self.length,
                expected=f"at most relative_attention_max_distance = {attention.window}",
                fix="bind a shorter length",
            )
        key, value = own
        features = attention.shared.get(place)
        return (
            self._in_front(attention, "prefix_key", key, features),
            self._in_front(attention, "prefix_value", value, features),
        )

    def _features(self, stack: Stack, place: str) -> Float[jax.Array, "P _"]:
        """The part of the network that the layers of a place share."""
        assert self.hidden is not None
        name, declare = f"prefix_{place}", functools.partial(_declare, stack)
        embedding = declare(
            f"{name}_embedding", _NORMAL, (self.length, stack.width), ("prompt", "prompt_embed")
        )
        kernel = declare(
            f"{name}_kernel",
            as_pytorch(stack.width),
            (stack.width, self.hidden),
            ("embed", "prompt_embed"),
        )
        bias = declare(f"{name}_bias", _ZEROS, (self.hidden,), ("prompt_embed",))
        return prefix.features(embedding[0], kernel[0], bias[0])

    def _in_front(
        self, attention: Attended, name: str, own: jax.Array, features: jax.Array | None
    ) -> Float[jax.Array, "R _ N D"]:
        """Keys or values with the prefix in front."""
        rows, _, heads, depth = own.shape
        width, declare = heads * depth, functools.partial(_declare, attention)
        if features is None:
            made = declare(name, _NORMAL, (self.length, width), ("prompt", "joined_kv"), rows=rows)
        else:
            kernel = declare(
                f"{name}_kernel",
                as_pytorch(features.shape[-1]),
                (features.shape[-1], width),
                ("prompt_embed", "joined_kv"),
            )
            bias = declare(f"{name}_bias", _ZEROS, (width,), ("joined_kv",))
            made = prefix.made(features, kernel[0], bias[0])[None]
        made = jnp.broadcast_to(made, (rows, self.length, width)).astype(own.dtype)
        return jnp.concatenate([made.reshape(rows, self.length, heads, depth), own], axis=1)


def _declare(
    place: Place,
    name: str,
    init: Callable[..., jax.Array],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    *,
    rows: int = 1,
) -> Float[jax.Array, "#R *shape"]:
    """A parameter, once or for each row."""
    return place.parameter(name, init, shape, axes, rows=rows)[:, 0]
