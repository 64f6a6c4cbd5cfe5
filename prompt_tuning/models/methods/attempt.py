"""ATTEMPT: each input mixes trained prompts of other tasks with one of its own, by attention."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.checkpoints.prompt_files.source import read_plain
from prompt_tuning.data import content
from prompt_tuning.errors import (
    CheckpointError,
    ConfigError,
    check_count,
    check_number,
    texts_of,
)
from prompt_tuning.models.methods.method import Joining, Method
from prompt_tuning.params.names import ATTEMPT_BIAS, ATTEMPT_DOWN, ATTEMPT_SCALE, ATTEMPT_UP
from prompt_tuning.types import Array

_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Attempt(Method):
    """Source prompts, which stay as they are, and the model's own prompt, weighted by how well they fit the input.

    A prompt's key is the maximum over its rows, an input's query LN(W_up silu(W_down m)) with m the maximum over its
    embedded tokens. What stands in front is the sum of all prompts, weighted by softmax(query . key / temperature),
    plus the model's own prompt once more. A model without a prompt of its own mixes the sources alone.

    Attributes:
      path: See `Method`.
      sources: Files of prompts [P, H], in any form that `prompt-tuning export` takes.
      temperature: Divides the logits.
      bottleneck: Width between W_down [H, b] and W_up [b, H]; None weighs all prompts alike.

    Raises:
      ConfigError: If there are no sources, or a number is not positive.

    Source: Asai et al. 2022, section 3.2, and the authors' `modeling_t5.py`, `attn_method` "sub" and "constant".
      Differs: the maximum is over tokens alone. Theirs is over padding too, so that an answer would depend on how wide
      a batch is cut.
    """

    sources: tuple[str, ...] = ()
    temperature: float = 1.0
    bottleneck: int | None = 100

    def __post_init__(self) -> None:
        """Makes the names hashable and checks the settings."""
        sources = texts_of("methods.Attempt.sources", self.sources)
        if not sources:
            raise ConfigError(
                "methods.Attempt mixes prompts of other tasks, and none are named",
                got=self.sources,
                expected="a list of prompt files",
                fix="bind SOURCE_PROMPTS to such a list",
            )
        object.__setattr__(self, "sources", sources)
        check_number("methods.Attempt.temperature", self.temperature, "(0, inf)")
        check_count("methods.Attempt.bottleneck", self.bottleneck, "numbers", none_means="no query")

    @property
    def differs_by_example(self) -> bool:
        """See `Method`."""
        return self.bottleneck is not None

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError if the network that weighs finds no place; without one nothing is added. See `Method`."""
        if self.bottleneck is not None:
            super().check(added)

    def prompt_length(self, length: int) -> int:
        """Returns how many rows stand in front of the tokens; see `Method`."""
        return length or self._read().shape[1]

    def describe(self) -> dict[str, Any]:
        """Returns name and settings; sources by their content, since files may move."""
        digests = [content.of_bytes(x.tobytes()) for x in self._read()]
        return {**super().describe(), "sources": digests}

    def _read(self) -> Float[np.ndarray, "sources P H"]:
        """The source prompts, float32.

        Raises:
          CheckpointError: If one cannot be read, is no plain prompt, or is of another shape than the first.
        """
        prompts = [read_plain(path, setting="SOURCE_PROMPTS")[0] for path in self.sources]
        for path, prompt in zip(self.sources, prompts, strict=True):
            if prompt.shape != prompts[0].shape:
                raise CheckpointError(
                    f"The prompt in {path} cannot be mixed with that in {self.sources[0]}",
                    got=list(prompt.shape),
                    expected=f"{list(prompts[0].shape)}",
                    fix="name prompts of one length for one model",
                )
        return np.stack(prompts)

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[Array, "*B P H"]:
        """Returns the prompt of each row, float32; see `Method`."""
        embedded = joining.embedded
        # [#B, sources, P, H]
        mixed = jnp.asarray(self._read())[None]
        length = mixed.shape[2] if prompt is None else prompt.shape[-2]
        if mixed.shape[2:] != (length, embedded.shape[-1]):
            raise CheckpointError(
                "The source prompts cannot be mixed with the model's own prompt, or stand in its place",
                got=list(mixed.shape[2:]),
                expected=f"[PROMPT_LENGTH, width] = {[length, embedded.shape[-1]]}",
                fix="name prompts of this length for this model, or set PROMPT_LENGTH",
            )
        own = jnp.zeros((), jnp.float32)
        if prompt is not None:
            own = jnp.asarray(prompt, jnp.float32)
            own = own[None] if own.ndim == 2 else own
            wide = jnp.broadcast_to(mixed, (own.shape[0], *mixed.shape[1:]))
            mixed = jnp.concatenate([wide, own[:, None]], axis=1)
        if self.bottleneck is None:
            mean = jnp.mean(mixed, axis=1) + own
            # The same for all rows, as a prompt is.
            return mean[0] if len(mean) == 1 else mean
        precise = jax.lax.Precision.HIGHEST
        query = self._query(joining)
        keys = jnp.max(mixed, axis=2)
        logits = jnp.matmul(keys, query[..., None], precision=precise)[..., 0]
        weights = jax.nn.softmax(logits / self.temperature)
        return (
            jnp.einsum(
                "bs,bsph->bph",
                weights,
                jnp.broadcast_to(mixed, (weights.shape[0], *mixed.shape[1:])),
                precision=precise,
            )
            + own
        )

    def _query(self, joining: Joining) -> Float[jax.Array, "B H"]:
        """The query of each input."""
        embedded = jnp.asarray(joining.embedded, jnp.float32)
        rows, _, width = embedded.shape
        assert self.bottleneck is not None
        is_token = jnp.asarray(joining.is_token)[..., None]
        largest = jnp.max(jnp.where(is_token, embedded, -jnp.inf), axis=1)
        # Rows that fill up a batch have no tokens.
        largest = jnp.where(jnp.any(is_token, axis=1), largest, 0)[:, None]
        kernel = nn.initializers.lecun_normal()
        precise = jax.lax.Precision.HIGHEST
        names = ("prompt_embed", "bottleneck")
        shape = (width, self.bottleneck)
        down = joining.parameter(ATTEMPT_DOWN, kernel, shape, names, rows=rows)[:, 0]
        up = joining.parameter(ATTEMPT_UP, kernel, shape[::-1], names[::-1], rows=rows)[:, 0]
        hidden = jax.nn.silu(jnp.matmul(largest, down, precision=precise))
        x = jnp.matmul(hidden, up, precision=precise)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
        of_norm = {"shape": (width,), "axes": names[:1], "rows": rows}
        scale = joining.parameter(ATTEMPT_SCALE, nn.initializers.ones, **of_norm)
        bias = joining.parameter(ATTEMPT_BIAS, nn.initializers.zeros, **of_norm)
        return (x * scale + bias)[:, 0]
