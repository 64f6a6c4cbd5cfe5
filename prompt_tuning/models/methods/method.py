"""What a method of tuning is, beside the prompt: parameters of its own inside a frozen model.

A new method is a file beside this one, with a frozen dataclass that extends `Method` and says

- where it acts: it overrides a hook, which the model's modules call wherever they have such a place;
- which parameters it adds: the hook declares them by `Place.parameter`, so that stacking, partitioning and paths
  follow from where it is called. How their paths end is a line of `params.names.ADDED_NAMES`, by which runs, files and
  checkpoints know what was added to a model;
- how they start: by the initializer that it passes there.

Then come a gin name and a file of `configs/methods/`. The models know no method by its name.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jaxtyping import Bool, Float, Int

from prompt_tuning.errors import ConfigError
from prompt_tuning.params.names import place_of
from prompt_tuning.types import Array, EncodeText, PyTree

KeysAndValues = tuple[Float[jax.Array, "R K N D"], Float[jax.Array, "R K N D"]]


@dataclasses.dataclass(frozen=True)
class Place:
    """A place of the model from which a hook is called.

    Attributes:
      module: Its Linen module, of which added parameters become parameters.
    """

    module: nn.Module

    @property
    def name(self) -> str:
        """The module's name."""
        return self.module.name or ""

    def parameter(
        self,
        name: str,
        init: Callable[..., jax.Array],
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        *,
        rows: int,
    ) -> Float[jax.Array, "#R 1 *shape"]:
        """Declares a parameter, float32, and returns it so that it broadcasts with [R, positions, *shape].

        Args:
          name: Its name, by which `params.names.ADDED_NAMES` knows it.
          init: `(rng, shape, dtype) -> array`.
          shape: Its shape.
          axes: A logical name for each axis; None for one that is whole on every device.
          rows: R of what it is used on. Where each of B rows of a batch has a value of its own (`prompts/table.py`),
            R is B, or a multiple of it while several sequences are decoded for each row.
        """
        if self.module.has_variable("params", name):
            of_rows = jnp.asarray(self.module.get_variable("params", name))
            if of_rows.ndim == len(shape) + 1:
                return jnp.repeat(of_rows, rows // of_rows.shape[0], axis=0)[:, None]
        # Flax takes None for an axis, which its annotation does not say.
        named: Any = axes
        value: Any = nn_partitioning.param_with_axes(
            name, init, shape, jnp.float32, axes=named, module=self.module
        )
        return value[None, None]

    def dropout(self, x: Float[Array, "R L ..."], rate: float) -> Float[Array, "R L ..."]:
        """Returns `x` with a share `rate` of it dropped out, in training: where the module has the rng `dropout`.

        All positions of a row share a mask, as T5's dropout has it: nothing depends on how far rows are padded.
        """
        if not rate or not self.module.has_rng("dropout"):
            return x
        return nn.Dropout(rate, broadcast_dims=(1,), deterministic=False)(x)


@dataclasses.dataclass(frozen=True)
class Linear(Place):
    """The linear map from which a hook is called, by name: query, key, value, out, wi (wi_0, wi_1 if gated) or wo.

    Attributes:
      inputs: Width of its input, several axes of which count as one, and the logical name of that axis.
      outputs: The same of its output.
    """

    inputs: tuple[int, str]
    outputs: tuple[int, str]

    @property
    def place(self) -> str:
        """Where it is in every layer, `STACK/MODULE/MAP`, the same in both layouts: encoder/attention/query."""
        return place_of("/".join(self.module.path))


class Around(NamedTuple):
    """What hooks inside the layers of a stack are told of it; a tree of arrays, the same for each layer.

    Attributes:
      shared: What `Method.shared_of` returned.
      starts: [B, L] or [B, 1] int32, where in its row the example of each position begins; None where all begin at 0.
      prompt_positions: [B, L] int32, row of the prompt at each position, from 1, where packed examples have prompts of
        their own; None where the prompt, if there is one, stands in front.
    """

    shared: Any
    starts: Array | None = None
    prompt_positions: Array | None = None


@dataclasses.dataclass(frozen=True)
class Stack(Place):
    """The stack from which a hook is called, by name: encoder or decoder.

    Attributes:
      width: H.
    """

    width: int


@dataclasses.dataclass(frozen=True)
class Attended(Place):
    """The attention from which a hook is called, by name: attention, self_attention or encoder_decoder_attention.

    Attributes:
      window: Positions that the model tells apart: farther ones are alike to it.
      shared: What `Method.shared_of` returned.
    """

    window: int
    shared: Any


@dataclasses.dataclass(frozen=True)
class Layer(Place):
    """The layer of the encoder from which a hook is called.

    Attributes:
      prompt_length: P, the rows of the prompt; 0 without one.
      prompt_positions: See `Around`.
    """

    prompt_length: int
    prompt_positions: Array | None


@dataclasses.dataclass(frozen=True)
class Tokens(Place):
    """The encoder's embedded tokens, before a prompt joins them.

    Attributes:
      segment_ids: [B, L] packed example of each position, 0 is padding; None where a row is one example.
      prompt_positions: [B, L], above 0 at the places that packed examples keep for their prompts; None without any.
    """

    segment_ids: Int[Array, "B L"] | None = None
    prompt_positions: Int[Array, "B L"] | None = None

    def positions(self) -> Int[jax.Array, "B L"]:
        """Returns which token of its packed example stands at each position, from 0; prompts do not count."""
        assert self.segment_ids is not None, "a row that is one example counts from its start"
        segments = jnp.asarray(self.segment_ids)
        is_token = segments > 0
        if self.prompt_positions is not None:
            is_token &= jnp.asarray(self.prompt_positions) == 0
        count = is_token.astype(jnp.int32)
        before = jnp.cumsum(count, axis=1) - count
        is_first = segments != jnp.pad(segments, ((0, 0), (1, 0)))[:, :-1]
        return before - jax.lax.cummax(jnp.where(is_first, before, 0), axis=1)


@dataclasses.dataclass(frozen=True)
class Joining(Place):
    """The encoder, where a prompt joins its embedded tokens.

    Attributes:
      embedded: [B, L, H] the tokens.
      is_token: [B, L] where these are no padding, of which there may be more or less.
      task: [B] see `types.TASK`; None where there is no such feature.
    """

    embedded: Float[Array, "B L H"]
    is_token: Bool[Array, "B L"]
    task: Int[Array, " B"] | None


@dataclasses.dataclass(frozen=True)
class Method:
    """A method that leaves everything as it is; others override what they change.

    A hook returns what it got, and no copy of it, where the method does not act: several methods at once
    (`several.py`) are told apart by that.

    Attributes:
      path: File to start from, in any form that `checkpoints.method_files.read` knows; None for the initializers.
    """

    path: str | None = None

    @property
    def parts(self) -> tuple["Method", ...]:
        """The methods that it consists of."""
        return (self,)

    @property
    def task_names(self) -> tuple[tuple[str, ...], ...]:
        """The tasks that it tells apart, each by its names: a batch then says which a row is of (`types.TASK`)."""
        return ()

    @property
    def differs_by_example(self) -> bool:
        """Whether examples of one batch have prompts of their own, behind which they cannot be packed."""
        return bool(self.task_names)

    @property
    def prompt_sees(self) -> tuple[str, ...] | None:
        """What the rows of the prompt see, as `masks.with_prompt_visibility` takes it; None for everything."""
        return None

    def prompt_length(self, length: int) -> int:
        """Returns how many rows stand in front of the tokens where the model's own prompt has `length`."""
        return length

    def describe(self) -> dict[str, Any]:
        """Returns its name and settings, JSON values, without the file that it starts from."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["path"]
        return {"name": type(self).__name__, **{name: _listed(x) for name, x in fields.items()}}

    def differences(self, recorded: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
        """Returns the settings, by their gin names, of those recorded with a file by which it is not this method's.

        Of another method it is `name` that differs.

        Args:
          recorded: What `describe` said when the file was made.
          paths: The parameters in the file and in the model.
        """
        del paths
        ours = self.describe()
        if recorded.get("name") != ours["name"]:
            return {"name": recorded.get("name")}
        differ = {name: x for name, x in recorded.items() if ours.get(name) != x}
        return {f"methods.{ours['name']}.{name}": x for name, x in differ.items()}

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError if some of it finds no place in a model.

        Args:
          added: The paths of the parameters that it adds there.
        """
        if not added:
            raise ConfigError(
                f"{type(self).__name__} finds nothing to act on in this model",
                got=self.describe(),
                expected="settings by which it adds parameters",
                fix="bind other settings of the method, or METHOD = None",
            )

    def check_inputs(self, length: int) -> None:
        """Raises ConfigError if it cannot take inputs of so many tokens."""
        del length

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[Array, "*B Q H"] | None:
        """Returns what stands in front of the tokens: [Q, H], or [B, Q, H] where rows differ; None for nothing.

        Args:
          joining: The encoder.
          prompt: The prompt that was passed, or else the model's own; None where there is none.
        """
        del joining
        return prompt

    def input_of(self, linear: Linear, x: Float[Array, "R L ..."]) -> Float[Array, "R L ..."]:
        """Returns what a linear map takes for the input `x`."""
        del linear
        return x

    def output_of(
        self, linear: Linear, x: Float[Array, "R L ..."], y: Float[jax.Array, "R L ..."]
    ) -> Float[jax.Array, "R L ..."]:
        """Returns what a linear map gives for its output `y`, given the input `x`."""
        del linear, x
        return y

    def shared_of(self, stack: Stack) -> Any:
        """Returns what the hooks of a stack's layers share: a tree of arrays, computed once for all of them."""
        del stack

    def keys_and_values_of(self, attention: Attended, own: KeysAndValues) -> KeysAndValues:
        """Returns what an attention takes for its `own` keys and values, each [R, K, N, D]: more, put in front."""
        del attention
        return own

    def layer_input_of(
        self, layer: Layer, x: Float[jax.Array, "B S H"]
    ) -> Float[jax.Array, "B S H"]:
        """Returns what a layer of the encoder takes for the input `x`."""
        del layer
        return x

    def embedded_of(
        self, tokens: Tokens, embedded: Float[jax.Array, "B L H"]
    ) -> Float[jax.Array, "B L H"]:
        """Returns what the encoder takes for its embedded tokens, before a prompt joins them."""
        del tokens
        return embedded

    def penalty(
        self, params: PyTree, encode_text: EncodeText, embedding_scale: float = 1.0
    ) -> Float[jax.Array, ""] | None:
        """Returns what is added to the loss of a training step, once a step; None for nothing.

        Args:
          params: All parameters of the model.
          encode_text: Text to token ids without EOS, as the model's inputs have them.
          embedding_scale: What embedded tokens are, as a multiple of the table's rows.
        """
        del params, encode_text, embedding_scale
        return None


def _listed(x: Any) -> Any:
    """A value with lists in place of tuples, as it is read from JSON."""
    return [_listed(item) for item in x] if isinstance(x, tuple) else x
