"""What a template may do: Jinja without a way to Python, with a bounded amount of work.

Nothing is measured by the clock, so that a template does not fail on a slow machine: the value of every expression is
weighed before it is used, its characters and items, and a render that has weighed too much ends. What may take longer
than its operands are large is looked at first (`*`, `replace`, `join`, …), or does not exist here (`**`, `center`,
macros). Loops go over what has been weighed, and there is no recursion.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import compiler, nodes, runtime, sandbox, utils

from prompt_tuning.data.templates import filters, limits
from prompt_tuning.data.templates.limits import Refused, TooMuch

# Characters of a template; promptsource's longest has 11,000.
MAX_TEMPLATE = 100_000

# What templates are made of. Macros, blocks and imports are not among them: they may recur.
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Assign, nodes.If, nodes.For),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Getattr, nodes.Getitem),
    *(nodes.Slice, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
    *(nodes.Neg, nodes.Pos),
)
# What those that are not allowed are called, where their name is another.
_CALLED = {nodes.Pow: "**", nodes.AssignBlock: "a block of `set`", nodes.Scope: "autoescape"}
# Methods that look at their text once; those that search from its end may take as long as a product.
_STR_METHODS = """capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric
    isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rstrip split splitlines
    startswith strip swapcase title upper"""
_LOOP = (
    "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)
# What may be read of an object; of every other kind, nothing.
_ATTRIBUTES: Mapping[type, frozenset[str]] = {
    str: frozenset(_STR_METHODS.split()),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("get", "items", "keys", "values")),
    runtime.LoopContext: frozenset(_LOOP.split()),
}
_LOADED = (
    *(nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Call, nodes.Filter, nodes.BinExpr),
    *(nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict),
)


class _Counted:
    """An iterator whose items are weighed as they are drawn: lazy ones have no length to weigh before."""

    def __init__(self, items: Iterator[Any], context: "Context"):
        self._items, self._context = items, context

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> Any:
        return self._context.weigh(next(self._items))


class Context(runtime.Context):
    """The variables of one render, what it may still weigh, and what it draws from.

    Attributes:
      left: Characters.
      draws: The `draws.Draws` of `choice`.
      known: Index that was drawn before the render, by the number of a `choice` in the template.
    """

    left: int = limits.MAX_WORK
    draws: Any
    known: Mapping[int, int]

    def weigh(self, value: Any) -> Any:
        """Returns a value that an expression has; generated code calls it.

        Raises:
          TooMuch: The render has come to its end.
          Refused: The value is nothing that a template may handle.
        """
        # The most frequent kind by far; `size_of` says the same of it.
        self.left -= (
            len(value) + limits.ITEM
            if type(value) is str
            else limits.size_of(value, limits.MAX_WORK)
        )
        if self.left < 0:
            raise TooMuch
        if isinstance(value, Iterator) and not isinstance(value, _Counted | runtime.LoopContext):
            return _Counted(value, self)
        return value


class _CodeGenerator(compiler.CodeGenerator):
    """Jinja's, which also has every value weighed but those of which only a part is read."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._unweighed: set[int] = set()

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        is_weighed = isinstance(node, _LOADED) and id(node) not in self._unweighed
        is_part = isinstance(node, nodes.Getattr | nodes.Getitem) and not (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        )
        # The text that a method is called on is read whole; what is called is no value.
        if isinstance(node, nodes.Call) or (is_part and is_weighed):
            self._unweighed.add(id(node.node))  # pyright: ignore[reportAttributeAccessIssue]
        # A namespace can only be assigned to a name, and its parts read.
        is_namespace = isinstance(node, nodes.Call) and node.node == nodes.Name("namespace", "load")
        if not is_weighed or is_namespace or getattr(node, "ctx", "load") != "load":
            return super().visit(node, *args, **kwargs)
        self.write("context.weigh(")
        super().visit(node, *args, **kwargs)
        self.write(")")


class Environment(sandbox.ImmutableSandboxedEnvironment):
    """promptsource's Jinja, closed: filters, methods and attributes are those that are named here."""

    code_generator_class = _CodeGenerator
    context_class = Context
    intercepted_binops = frozenset(("*", "%"))

    def __init__(self) -> None:
        super().__init__(loader=jinja2.BaseLoader(), cache_size=0)
        self.globals = {
            "range": limits.limited_range,
            "zip": zip,
            "dict": dict,
            "namespace": utils.Namespace,
        }
        self.filters = dict(filters.FILTERS)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Returns whether a template may read an attribute."""
        del value
        if isinstance(obj, utils.Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in names for kind, names in _ATTRIBUTES.items())

    def unsafe_undefined(self, obj: Any, attribute: str) -> runtime.Undefined:
        """Raises Refused: Jinja's own sandbox would write nothing, silently, where such a value is printed."""
        raise Refused(f"the attribute {attribute!r} of {type(obj).__name__!r} is read")

    def wrap_str_format(self, value: Any) -> None:
        """Returns None: `str.format` is no method that a template may call."""

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Calls a method, whose work may not be larger than its operands are."""
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and args:
                args = (filters.joined_by(owner, args[0]), *args[1:])
            elif name == "replace" and len(args) > 1:
                limits.check_replace(owner, args[0], args[1])
            elif name in ("strip", "lstrip", "rstrip") and args:
                limits.check_strip(args[0])
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Multiplies, takes the rest, or formats, if the result is not too large."""
        if operator == "%" and isinstance(left, str):
            return filters.formatted(left, *(right if isinstance(right, tuple) else (right,)))
        limits.check_product(left, right)
        return self.binop_table[operator](left, right)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Returns the text of pieces; a loop makes many of a short one."""
        size, found = 0, []
        for piece in pieces:
            size += len(piece)
            limits.check_size(size)
            found.append(piece)
        return "".join(found)


def parse(environment: Environment, text: str) -> nodes.Template:
    """Returns the tree of a template, its `choice` filters numbered in order.

    Args:
      environment: The environment that it is for.
      text: The template.

    Raises:
      jinja2.TemplateSyntaxError: It does not parse.
      Refused: It has what no template may have.
    """
    if len(text) > MAX_TEMPLATE:
        raise Refused(f"it has more than {MAX_TEMPLATE:,} characters")
    tree = environment.parse(text)
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED):
            what = _CALLED.get(type(node), type(node).__name__.lower())
        elif getattr(node, "recursive", False):
            what = "a recursive loop"
        elif str(getattr(node, "attr", "")).startswith("__"):
            what = f"the attribute {node.attr!r}"  # pyright: ignore[reportAttributeAccessIssue]
        else:
            continue
        raise Refused(f"{what} is used{f' on line {node.lineno}' if node.lineno else ''}")
    for number, node in enumerate(tree.find_all(nodes.Filter)):
        if node.name == "choice":
            node.args = [*node.args, nodes.Const(number)]
    return tree
