"""The order in which promptsource draws at random.

Jinja computes what is constant when it compiles a template, and promptsource compiles one for every record: a `choice`
between constants draws then, before the others, and some draw several times, since Jinja tries a whole expression
before its parts. Here a template is compiled once; what would be drawn meanwhile is drawn in the same order at every
render.
"""

import functools
import random
from collections.abc import Sequence
from typing import Any

from jinja2 import compiler, nodes, visitor

from prompt_tuning.data.templates import sandbox


class Draws:
    """What a render draws at random, as `random.choice` does after `random.seed(seed)`.

    Args:
      seed: The seed.
    """

    def __init__(self, seed: int):
        self._seed = seed

    @functools.cached_property
    def _rng(self) -> random.Random:
        """The generator, whose start takes longer than many a render: most templates draw nothing."""
        return random.Random(self._seed)

    def choice(self, items: Sequence[Any]) -> Any:
        """Returns one of `items`."""
        return self._rng.choice(items)


def draws_of(text: str) -> tuple[tuple[int, int], ...]:
    """Returns the draws that promptsource makes as it compiles a template.

    Args:
      text: The template, which `sandbox.parse` takes.

    Returns:
      (number of the `choice`, length of what it draws from) of each, in order.
    """
    environment = _Folding()
    tree = sandbox.parse(environment, text)
    environment.compile(_WithoutProducts().visit(tree), raw=True)
    return tuple(environment.draws)


class _Folding(sandbox.Environment):
    """Compiles as promptsource's Jinja does, and notes the draws; what it compiles is not run."""

    # Jinja asks this before it computes constants.
    sandboxed = False
    code_generator_class = compiler.CodeGenerator

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[tuple[int, int]] = []
        self.filters["choice"] = self._choice

    def _choice(self, items: Sequence[Any], number: int) -> Any:
        first = items[0]
        self.draws.append((number, len(items)))
        return first


class _WithoutProducts(visitor.NodeTransformer):
    """Puts `and`, which reads the same operands in the same order, where Jinja would compute without a bound."""

    def visit_Mul(self, node: nodes.BinExpr) -> nodes.And:
        self.generic_visit(node)
        return nodes.And(node.left, node.right, lineno=node.lineno)

    visit_Mod = visit_Mul
