"""Wayward prompts: tuned to stay near a text, or near another prompt."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning import tree
from prompt_tuning.data import content
from prompt_tuning.errors import ConfigError, check_number
from prompt_tuning.models.methods.method import Method
from prompt_tuning.params.names import EMBEDDING, PROMPT_PATH
from prompt_tuning.prompts.initializers import FromFile, FromText, build_prompt
from prompt_tuning.types import EncodeText, PyTree


@dataclasses.dataclass(frozen=True)
class Wayward(Method):
    """Adds gamma * |P - D|^2 / rows to the loss of a training step: P is the prompt, D the target, of as many rows.

    It adds no parameters: what a run leaves is a prompt like any other. The term is a part of `loss` and logged as
    `penalty`; evaluation is without it, as the authors' is.

    Attributes:
      path: Not used.
      target: D: a text, whose tokens' frozen embeddings are its rows, or a prompt's file.
      gamma: How much the distance weighs.

    Raises:
      ConfigError: If there is no such target, or gamma is negative.

    Source: Khashabi et al. 2022, section 3; the authors' `extended/train/wayward.py`, whose gamma is the default.
      Differs: the logged `loss` contains the term; there it is left out of all metrics.
    """

    target: FromText | FromFile | None = None
    gamma: float = 0.01

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_number("methods.Wayward.gamma", self.gamma, "[0, inf)")
        if not isinstance(self.target, FromText | FromFile):
            raise ConfigError(
                "methods.Wayward.target is nothing that a prompt can stay near to",
                got=self.target,
                expected="@prompts.from_string() or @prompts.from_file()",
                fix="add --gin_file=methods/wayward.gin and bind PROMPT_TEXT",
            )

    def describe(self) -> dict[str, Any]:
        """Returns its name and settings; see `Method`."""
        return {**super().describe(), "target": content.describe(self.target)}

    def check(self, added: Sequence[str]) -> None:
        """Nothing has to be added; whether the target fits the prompt is known where `penalty` is traced."""
        del added

    def penalty(
        self, params: PyTree, encode_text: EncodeText, embedding_scale: float = 1.0
    ) -> Float[jax.Array, ""]:
        """Returns the term; see `Method`.

        Raises:
          ConfigError: If there is no prompt, or the target has more rows or fewer.
          CheckpointError: If the target's file cannot be read.
        """
        flat = tree.flatten(params)
        prompt = flat.get(PROMPT_PATH)
        rows = len(encode_text(self.target.text)) if isinstance(self.target, FromText) else None
        if prompt is None or rows not in (None, prompt.shape[0]):
            raise ConfigError(
                "The prompt is not as long as the text that methods.Wayward keeps it near to",
                got="no prompt" if prompt is None else f"PROMPT_LENGTH = {prompt.shape[0]}",
                expected=f"a prompt of {rows or 'the file as many'} rows",
                fix=f"bind PROMPT_LENGTH = {rows}"
                if prompt is not None
                else "leave PROMPT = None out",
            )
        assert self.target is not None, "checked where it is made"
        target = build_prompt(
            self.target,
            length=prompt.shape[0],
            embedding_table=flat[EMBEDDING],
            encode_text=encode_text,
            rng=jax.random.key(0),
            embedding_scale=embedding_scale,
        )
        distance = jnp.sum(jnp.square(jnp.asarray(prompt, jnp.float32) - target))
        return self.gamma * distance / prompt.shape[0]
