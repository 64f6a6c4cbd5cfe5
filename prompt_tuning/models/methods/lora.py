"""LoRA: a product of two small matrices beside the kernels of some linear maps."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_count, check_number, texts_of
from prompt_tuning.models.methods.method import Linear, Method
from prompt_tuning.models.methods.starts import as_pytorch
from prompt_tuning.params.names import LORA_A, LORA_B, place_of
from prompt_tuning.types import Array

_Pattern = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class LoRA(Method):
    """y = x W + scale (x A) B with A [inputs, rank] random and B [rank, outputs] zero at the start; W stays frozen.

    Settings name places by regular expressions that match all of `STACK/MODULE/MAP`, the same for every layer and in
    both layouts: `encoder/attention/query`, `decoder/encoder_decoder_attention/out`, `decoder/mlp/wi_0`.

    Attributes:
      path: See `Method`.
      rank: Columns of A and rows of B.
      alpha: The scale is `alpha / rank`.
      dropout: Of LoRA's own input, in training.
      targets: Expressions of the places that have a LoRA; ('.*',) for every linear map of every layer.
      rank_stabilised: Whether the scale is `alpha / sqrt(rank)` instead.
      rank_pattern: Pairs (expression, rank) of places with another rank; the first that matches counts.
      alpha_pattern: Pairs (expression, alpha), likewise.

    Raises:
      ConfigError: If a setting is out of range or no expression.

    Source: Hu et al. 2021, section 4.1; Kalajdzievski 2023 for `rank_stabilised`; PEFT 0.21, `tuners/lora/layer.py`,
      whose start and names of settings these are. Differs: dropout takes one mask for all positions of a row, as T5's,
      so that the width to which a batch is padded does not enter. Products take and give float32 whatever the
      activations are, as PEFT's: the rank is small, so rounding A, B and their gradients would save nothing.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (".*/query", ".*/value")
    rank_stabilised: bool = False
    rank_pattern: _Pattern = ()
    alpha_pattern: _Pattern = ()

    def __post_init__(self) -> None:
        """Makes the settings hashable and checks them."""
        targets = texts_of("methods.LoRA.targets", self.targets)
        patterns = {
            field: _pairs(f"methods.LoRA.{field}", getattr(self, field))
            for field in ("rank_pattern", "alpha_pattern")
        }
        for field, regexes in (
            ("targets", targets),
            *((field, [regex for regex, _ in pairs]) for field, pairs in patterns.items()),
        ):
            _check_expressions(f"methods.LoRA.{field}", regexes)
        for name, rank in (("rank", self.rank), *patterns["rank_pattern"]):
            check_count(_setting("rank", name), rank, "columns")
        for name, alpha in (("alpha", self.alpha), *patterns["alpha_pattern"]):
            check_number(_setting("alpha", name), alpha, "(0, inf)")
        check_number("methods.LoRA.dropout", self.dropout, "[0, 1)")
        if not targets:
            raise ConfigError(
                "methods.LoRA.targets names nothing",
                got=targets,
                expected="at least one expression",
                fix="leave it out, or bind METHOD = None",
            )
        for field, value in {"targets": targets, **patterns}.items():
            object.__setattr__(self, field, value)

    def at(self, place: str) -> tuple[int, float] | None:
        """Returns rank and scale of the LoRA at a place; None where there is none."""
        if not any(re.fullmatch(regex, place) for regex in self.targets):
            return None
        rank = _first(self.rank_pattern, place, self.rank)
        alpha = _first(self.alpha_pattern, place, self.alpha)
        return rank, alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError if an expression finds no place in the model; see `Method`."""
        places = _places(added)
        for field, regexes in (
            ("targets", self.targets),
            ("rank_pattern", [regex for regex, _ in self.rank_pattern]),
            ("alpha_pattern", [regex for regex, _ in self.alpha_pattern]),
        ):
            for regex in regexes:
                if not any(re.fullmatch(regex, place) for place in places):
                    of_which = "linear map" if field == "targets" else "place that has a LoRA"
                    raise ConfigError(
                        f"methods.LoRA.{field} matches no {of_which} in this model",
                        got=regex,
                        expected="an expression for places as encoder/attention/query, decoder/mlp/wo",
                        fix=f"correct it, or leave it out of methods.LoRA.{field}",
                    )

    def differences(self, recorded: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
        """Returns what of the recorded settings makes another function of the same numbers; see `Method`.

        Expressions may be written in other ways, and dropout is of training alone.
        """
        differ = super().differences(recorded, paths)
        differ.pop("methods.LoRA.dropout", None)
        if "name" in differ:
            return differ
        try:
            other = LoRA(**{name: x for name, x in recorded.items() if name != "name"})
        except (TypeError, ConfigError):
            return differ
        is_same = all(self.at(place) == other.at(place) for place in _places(paths))
        return {} if is_same else differ

    def output_of(
        self, linear: Linear, x: Float[Array, "R L ..."], y: Float[jax.Array, "R L ..."]
    ) -> Float[jax.Array, "R L ..."]:
        """Returns `y` with the product added where `targets` says so."""
        at = self.at(linear.place)
        if at is None:
            return y
        rank, scale = at
        (inputs, in_axis), (outputs, out_axis) = linear.inputs, linear.outputs
        # The axis of the rank is whole on every device; the others are where the kernel's are.
        parameter = lambda *args: linear.parameter(*args, rows=x.shape[0])  # noqa: E731
        # PyTorch's kaiming_uniform_ with PEFT's a = sqrt(5) is the start of its linear maps.
        a = parameter(LORA_A, as_pytorch(inputs), (inputs, rank), (in_axis, None))
        b = parameter(LORA_B, nn.initializers.zeros, (rank, outputs), (None, out_axis))
        joined = jnp.reshape(x, (*x.shape[:2], inputs))
        hidden = _times(linear.dropout(joined, self.dropout), a) * scale
        return (jnp.asarray(y, jnp.float32) + _times(hidden, b).reshape(y.shape)).astype(y.dtype)


# Else the backward pass would keep the input once more, in float32.
@jax.checkpoint
def _times(x: Array, matrix: Array) -> jax.Array:
    """[R, L, inputs] times [#R, 1, inputs, outputs], float32."""
    x = jnp.asarray(x, jnp.float32)
    if matrix.shape[0] == 1:
        return x @ matrix[0, 0]
    return jnp.einsum("rli,rio->rlo", x, matrix[:, 0])


def _places(paths: Iterable[str]) -> set[str]:
    """The places of LoRA's parameters."""
    own = (path.rpartition("/") for path in paths)
    return {place_of(module) for module, _, name in own if name in (LORA_A, LORA_B)}


def _setting(field: str, name: str) -> str:
    """The setting that is called so, or whose pattern has this expression."""
    own = f"methods.LoRA.{field}"
    return own if name == field else f"{own}_pattern's value for {name!r}"


def _first(pairs: _Pattern, place: str, default: Any) -> Any:
    """The value of the first expression that matches a place."""
    return next((value for regex, value in pairs if re.fullmatch(regex, place)), default)


def _pairs(setting: str, value: Any) -> _Pattern:
    """The pairs of a pattern."""
    try:
        return tuple((regex, x) for regex, x in value)
    except (TypeError, ValueError) as e:
        raise ConfigError(
            f"{setting} is no list of pairs",
            got=value,
            expected="pairs of an expression and a number, as (('.*/key', 2),)",
            fix=f"correct {setting}",
        ) from e


def _check_expressions(setting: str, regexes: Iterable[Any]) -> None:
    """Raises ConfigError unless all are regular expressions."""
    for regex in regexes:
        try:
            re.compile(regex)
        except (re.error, TypeError) as e:
            raise ConfigError(
                f"{setting} holds what is no regular expression",
                got=regex,
                expected="regular expressions, as '.*/query'",
                fix=f"correct {setting}: {e}",
            ) from e
