"""Several methods at once, each with parameters of its own."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
from flax.errors import NameInUseError
from jaxtyping import Float

from prompt_tuning.errors import ConfigError
from prompt_tuning.models.methods.method import (
    Attended,
    Joining,
    KeysAndValues,
    Layer,
    Linear,
    Method,
    Place,
    Stack,
    Tokens,
)
from prompt_tuning.types import Array, EncodeText, PyTree


@dataclasses.dataclass(frozen=True)
class Several(Method):
    """Methods that act one after the other, at places that no two of them share.

    What two of them change, such as the output of one linear map, has no meaning that does not depend on their order:
    that is refused while the model is traced, before anything is loaded.

    Attributes:
      path: What all of them start from together: a run, or a file of one, that tuned the same methods.
      methods: The methods, at least two.

    Raises:
      ConfigError: If they are fewer, are no methods, or one starts from a file of its own.
    """

    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        """Makes the list hashable and checks it."""
        is_list = isinstance(self.methods, list | tuple)
        methods = tuple(self.methods) if is_list else (self.methods,)
        if len(methods) < 2 or not all(isinstance(m, Method) for m in methods):
            raise ConfigError(
                "methods.Several.methods",
                got=list(methods),
                expected="a list of at least two methods, such as [@methods.IA3(), @methods.LoRA()]",
                fix="bind METHODS",
            )
        own = sorted({m.path for m in methods if m.path is not None} - {self.path})
        if own:
            raise ConfigError(
                "Methods that are tuned together start from one file",
                got=own,
                expected="what a run left that tuned all of them",
                fix="bind METHOD_FILE alone",
            )
        alone = tuple(dataclasses.replace(m, path=None) for m in methods)
        object.__setattr__(self, "methods", alone)

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods."""
        return self.methods

    @property
    def task_names(self) -> tuple[tuple[str, ...], ...]:
        """The tasks that one of the methods tells apart."""
        return self._said(lambda method: method.task_names)

    @property
    def differs_by_example(self) -> bool:
        """Whether examples have prompts of their own with one of the methods."""
        return self._said(lambda method: method.differs_by_example)

    @property
    def prompt_sees(self) -> tuple[str, ...] | None:
        """What the rows of the prompt see, as one of the methods has it."""
        return self._said(lambda method: method.prompt_sees)

    def prompt_length(self, length: int) -> int:
        """Returns how many rows stand in front of the tokens where the model's own prompt has `length`."""
        return self._said(lambda method: method.prompt_length(length))

    def describe(self) -> dict[str, Any]:
        """Returns what each of them says of itself."""
        return {**super().describe(), "methods": [method.describe() for method in self.methods]}

    def differences(self, recorded: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
        """Returns what differs of each of them, if the file is of the same methods; see `Method`."""
        theirs = recorded.get("methods", ())
        if [part.get("name") for part in theirs] != [type(m).__name__ for m in self.methods]:
            return super().differences(recorded, paths)
        pairs = zip(self.methods, theirs, strict=True)
        return {name: x for m, part in pairs for name, x in m.differences(part, paths).items()}

    def check_inputs(self, length: int) -> None:
        """Raises ConfigError if one of them cannot take inputs of so many tokens."""
        for method in self.methods:
            method.check_inputs(length)

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[Array, "*B Q H"] | None:
        """Returns `prompt` as one of the methods makes it."""
        return self._one_of(joining, prompt, lambda method: method.prompt_of(joining, prompt))

    def input_of(self, linear: Linear, x: Float[Array, "R L ..."]) -> Float[Array, "R L ..."]:
        """Returns `x` as one of the methods makes it."""
        return self._one_of(linear, x, lambda method: method.input_of(linear, x))

    def output_of(
        self, linear: Linear, x: Float[Array, "R L ..."], y: Float[jax.Array, "R L ..."]
    ) -> Float[jax.Array, "R L ..."]:
        """Returns `y` as one of the methods makes it."""
        return self._one_of(linear, y, lambda method: method.output_of(linear, x, y))

    def shared_of(self, stack: Stack) -> tuple[Any, ...]:
        """Returns what each of them shares."""
        return tuple(method.shared_of(stack) for method in self.methods)

    def keys_and_values_of(self, attention: Attended, own: KeysAndValues) -> KeysAndValues:
        """Returns keys and values as one of the methods makes them."""
        shared = dict(zip(self.methods, attention.shared, strict=True))

        def of(method: Method) -> KeysAndValues:
            its_own = dataclasses.replace(attention, shared=shared[method])
            return method.keys_and_values_of(its_own, own)

        return self._one_of(attention, own, of)

    def layer_input_of(
        self, layer: Layer, x: Float[jax.Array, "B S H"]
    ) -> Float[jax.Array, "B S H"]:
        """Returns `x` as one of the methods makes it."""
        return self._one_of(layer, x, lambda method: method.layer_input_of(layer, x))

    def embedded_of(
        self, tokens: Tokens, embedded: Float[jax.Array, "B L H"]
    ) -> Float[jax.Array, "B L H"]:
        """Returns the embedded tokens as one of the methods makes them."""
        return self._one_of(tokens, embedded, lambda method: method.embedded_of(tokens, embedded))

    def penalty(
        self, params: PyTree, encode_text: EncodeText, embedding_scale: float = 1.0
    ) -> Float[jax.Array, ""] | None:
        """Returns what all of them add to the loss."""
        terms = [method.penalty(params, encode_text, embedding_scale) for method in self.methods]
        there = [term for term in terms if term is not None]
        return sum(there[1:], start=there[0]) if there else None

    def _said(self, ask: Callable[[Method], Any]) -> Any:
        """What the method says of prompts that has something to say: no two change the same prompt."""
        nothing = ask(Method())
        return next((said for m in self.methods if (said := ask(m)) != nothing), nothing)

    def _one_of(self, place: Place, x: Any, act: Callable[[Method], Any]) -> Any:
        """What the one method that acts here makes of `x`; `x` itself where none does."""
        changed, by = x, None
        for method in self.methods:
            try:
                result = act(method)
            except NameInUseError as error:
                raise _clash(place, by, method) from error
            # A hook that leaves something as it is returns it.
            if result is x:
                continue
            if by is not None:
                raise _clash(place, by, method)
            changed, by = result, method
        return changed


def _clash(place: Place, *methods: Method | None) -> ConfigError:
    """The error for methods that act on the same thing."""
    path = "/".join(place.module.path)
    return ConfigError(
        f"Two methods act on the same thing, in {path}",
        got=[method.describe() for method in methods if method is not None],
        expected="methods.Several.methods of which at most one changes it",
        fix="leave one of them out, or bind settings by which they act elsewhere",
    )
