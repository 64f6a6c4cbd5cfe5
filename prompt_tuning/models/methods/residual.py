"""The residual reparametrization of a prompt, which is discarded after training."""

import dataclasses

import jax
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_choice, check_count
from prompt_tuning.models.methods.method import Joining, Method
from prompt_tuning.models.methods.starts import as_pytorch
from prompt_tuning.params import residual
from prompt_tuning.prompts.prompt import PROMPT_AXES
from prompt_tuning.types import Array


@dataclasses.dataclass(frozen=True)
class Residual(Method):
    """Puts P + MLP(P) in front of the tokens, P the model's prompt: a bottleneck with a skip around it.

    The run's checkpoints hold P and the MLP; its prompt files, and what is exported, the sum alone: a plain prompt.

    Attributes:
      path: See `Method`.
      hidden: Width of the bottleneck.
      activation: "relu", "tanh" or "sigmoid".
      layer_norm: Whether a norm stands behind the MLP, within the skip.
      separate: Whether each row has an MLP of its own.
      repeats: How often the MLP is applied, with the same weights and one skip around all: 1 is the authors' MLP1, 2
        their MLP2.

    Raises:
      ConfigError: If a setting is out of range.

    Source: Razdaibiedina et al. 2023, section 3; the authors' `ResMLP`, and the defaults of their `train.py`.
    """

    hidden: int = 800
    activation: str = "relu"
    layer_norm: bool = True
    separate: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_count("methods.Residual.hidden", self.hidden, "units")
        check_choice("methods.Residual.activation", self.activation, residual.ACTIVATIONS)
        check_count("methods.Residual.repeats", self.repeats, "passes")

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[jax.Array, "P H"]:
        """Returns P + MLP(P); see `Method`.

        Raises:
          ConfigError: If there is no prompt, or one for each row.
        """
        if prompt is None or prompt.ndim != 2:
            raise ConfigError(
                "methods.Residual changes the model's own prompt",
                got="no prompt" if prompt is None else "prompts of rows of their own",
                expected="one prompt, in front of every input",
                fix="bind PROMPT = @prompts.Prompt(), or METHOD = None for prompts that are trained",
            )
        length, width = prompt.shape
        rows = (length,) if self.separate else ()
        from_width, from_hidden = as_pytorch(width), as_pytorch(self.hidden)
        declared = {
            residual.DOWN: (from_width, (width, self.hidden)),
            residual.DOWN_BIAS: (from_width, (self.hidden,)),
            residual.UP: (from_hidden, (self.hidden, width)),
            residual.UP_BIAS: (from_hidden, (width,)),
        }
        if self.layer_norm:
            declared[residual.NORM] = (nn.initializers.ones, (width,))
            declared[residual.NORM_BIAS] = (nn.initializers.zeros, (width,))
        weights = {}
        for name, (init, shape) in declared.items():
            shape = (*rows, *shape)
            axes = (PROMPT_AXES[0],) * (len(shape) - 1) + (PROMPT_AXES[1],)
            weights[name] = joining.parameter(name, init, shape, axes, rows=1)[0, 0]
        return residual.reparametrized(
            prompt, weights, activation=self.activation, repeats=self.repeats
        )
