"""What a template may do: Jinja without a way to Python, with a bounded amount of work.

Nothing is measured by the clock, so that a template does not fail on a slow machine: the value of every expression is
weighed before it is used, its characters and items, and a render that has weighed too much ends. What takes longer than
its operands are large is looked at first (`*`, `replace`, `join`, …), or does not exist here (`**`, `center`, macros).
Loops go over what has been weighed, and there is no recursion.
"""

import functools
import operator
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import compiler, nodes, runtime, sandbox, utils, visitor
from jinja2 import filters as jinja_filters

# Characters and items that one render may weigh, and characters that it may make. T0's longest records, of 100,000
# characters, come to a tenth of it; a million steps of a loop take about a second.
MAX_WORK = 4_000_000
# Characters of a template; promptsource's longest has 11,000.
MAX_TEMPLATE = 100_000
# Bits of a product: more digits than any record has.
_MAX_BITS = 4096
# Characters that `strip` may look for, and digits behind the point of `round`.
_MAX_STRIPPED, _MAX_DIGITS = 100, 100

# What templates are made of. Macros, blocks and imports are not among them: they may recur.
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Assign, nodes.If, nodes.For),
    *(nodes.Name, nodes.NSRef, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword, nodes.Getattr, nodes.Getitem),
    *(nodes.Slice, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr),
    *(nodes.Concat, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod),
    *(nodes.Neg, nodes.Pos),
)
_FILTERS = """abs capitalize count d default first float int items last length list lower map max min reject rejectattr
    reverse select selectattr sort string title truncate unique upper wordcount""".split()
_STR_METHODS = """capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric
    isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit
    rstrip split splitlines startswith strip swapcase title upper"""
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
_CONTAINERS = (list, tuple, dict, range, type({}.keys()), type({}.values()), type({}.items()))
_LOADED = (
    *(nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Call, nodes.Filter, nodes.BinExpr),
    *(nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict),
)


class Refused(sandbox.SecurityError):
    """A template does what no template may."""


class TooMuch(Refused):
    """A template runs too long, or makes too much text."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_WORK:,} characters and items are looked at")


class _Counted:
    """An iterator whose items are weighed as they are drawn: lazy ones have no length to weigh before."""

    def __init__(self, items: Iterator[Any], context: "Context"):
        self._items, self._context = items, context

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> Any:
        return self._context.weigh(next(self._items))


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


class Context(runtime.Context):
    """The variables of one render, what it may still weigh, and what it draws from.

    Attributes:
      left: Characters and items.
      draws: Of `choice`.
      known: Index that was drawn before the render, by the number of a `choice` in the template.
    """

    left: int = MAX_WORK
    draws: Draws
    known: Mapping[int, int]

    def weigh(self, value: Any) -> Any:
        """Returns a value that an expression has; generated code calls it.

        Raises:
          TooMuch: The render has come to its end.
          Refused: The value is nothing that a template may hold.
        """
        kind = type(value)
        if kind is str:
            self.left -= len(value) + 1
        elif kind is int:
            self.left -= 1 + value.bit_length() // 8
        elif value is None or kind is bool or kind is float:
            self.left -= 1
        elif isinstance(value, _CONTAINERS):
            self.left -= _size(value, self.left)
        elif isinstance(value, (_Counted, runtime.LoopContext, runtime.Undefined)):
            self.left -= 1
        elif isinstance(value, Iterator):
            return _Counted(value, self)
        else:
            raise Refused(f"a value of the kind {kind.__name__!r} is used")
        if self.left < 0:
            raise TooMuch
        return value


def _size(value: Any, limit: int) -> int:
    """Returns characters and items of a value, those inside of it included, or what is more than `limit`.

    A list that holds another twice counts it twice: so much text it would make.
    """
    size, waiting = 1, [value]
    while waiting and size <= limit:
        item = waiting.pop()
        kind = type(item)
        if kind is str:
            size += len(item)
        elif kind is int:
            size += item.bit_length() // 8
        elif isinstance(item, dict):
            size += 2 * len(item)
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, range):
            size += len(item)
        elif isinstance(item, _CONTAINERS):
            size += len(item)
            waiting += item
        elif not (
            item is None or isinstance(item, bool | float | _Counted | Iterator | runtime.Undefined)
        ):
            raise Refused(f"a value of the kind {kind.__name__!r} is used")
    return size


class _CodeGenerator(compiler.CodeGenerator):
    """Jinja's, which also has every value weighed but those of which only a part is read."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._unweighed: set[int] = set()

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        is_part = isinstance(node, nodes.Getattr) or (
            isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice)
        )
        is_weighed = isinstance(node, _LOADED) and id(node) not in self._unweighed
        # The text that a method is called on is read whole; what is called is no value.
        if isinstance(node, nodes.Call) or (is_part and is_weighed):
            self._unweighed.add(id(node.node))  # pyright: ignore[reportAttributeAccessIssue]
        if not is_weighed or getattr(node, "ctx", "load") != "load":
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
        # Of the object that Jinja makes of a class, nothing can be read.
        self.globals = {
            "range": sandbox.safe_range,
            "zip": zip,
            "dict": dict,
            "namespace": utils.Namespace,
        }
        self.filters = {name: jinja_filters.FILTERS[name] for name in _FILTERS} | {
            "choice": choice,
            "random": choice,
            "most_frequent": most_frequent,
            "highlight": highlight,
            "join": _join,
            "replace": _replace,
            "format": _format,
            "round": _round,
            "trim": _trim,
        }

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
                args = (_joined_by(owner, args[0]), *args[1:])
            elif name == "replace" and len(args) > 1:
                _check_replace(owner, args[0], args[1])
            elif name in ("strip", "lstrip", "rstrip") and args:
                _check_stripped(args[0])
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Multiplies, takes the rest, or formats, if the result is not too large."""
        if operator == "%" and isinstance(left, str):
            return _format(left, *right) if isinstance(right, tuple) else _format(left, right)
        if operator == "*":
            return _product(left, right)
        return self.binop_table[operator](left, right)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Returns the text of pieces; a loop makes many of a short one."""
        size, found = 0, []
        for piece in pieces:
            size += len(piece)
            if size > MAX_WORK:
                raise TooMuch
            found.append(piece)
        return "".join(found)


class FoldingEnvironment(Environment):
    """As promptsource's Jinja compiles: to see which draws of `choice` it makes before it renders.

    Nothing that is compiled here is run.
    """

    # Jinja asks this before it computes constants.
    sandboxed = False
    code_generator_class = compiler.CodeGenerator

    def __init__(self) -> None:
        super().__init__()
        self.filters["choice"] = self._record
        self._draws: list[tuple[int, int]] = []

    def _record(self, items: Sequence[Any], number: int = 0) -> Any:
        self._draws.append((number, len(items)))
        return items[0]

    def draws_of(self, tree: nodes.Template) -> tuple[tuple[int, int], ...]:
        """Returns (number of the filter, length of what it draws from) of every draw, in order."""
        self._draws = []
        self.compile(_WithoutProducts().visit(tree), raw=True)
        return tuple(self._draws)


class _WithoutProducts(visitor.NodeTransformer):
    """Puts `and`, which reads the same operands in the same order, where compiling would compute without a bound."""

    def visit_Mul(self, node: nodes.BinExpr) -> nodes.And:
        self.generic_visit(node)
        return nodes.And(node.left, node.right, lineno=node.lineno)

    visit_Mod = visit_Mul


def parse(environment: Environment, text: str) -> nodes.Template:
    """Returns the tree of a template, its `choice` filters numbered in order.

    Raises:
      jinja2.TemplateSyntaxError: It does not parse.
      Refused: It has what no template may have.
    """
    if len(text) > MAX_TEMPLATE:
        raise Refused(f"it has more than {MAX_TEMPLATE:,} characters")
    tree = environment.parse(text)
    for node in [tree, *tree.find_all(nodes.Node)]:
        if not isinstance(node, _ALLOWED):
            raise Refused(f"{_called(node)} is used on line {node.lineno}")
    for number, node in enumerate(tree.find_all(nodes.Filter)):
        if node.name == "choice":
            node.args = [*node.args, nodes.Const(number)]
    return tree


def _called(node: nodes.Node) -> str:
    """Returns what a template's author calls a node."""
    named = {nodes.Pow: "**", nodes.AssignBlock: "a block of `set`", nodes.CallBlock: "call"}
    return named.get(type(node), type(node).__name__.lower())


@jinja2.pass_context
def choice(context: Context, items: Sequence[Any], number: int = -1) -> Any:
    """Returns one of `items`, as `random.choice` draws it; filter `choice` and Jinja's own `random`."""
    index = context.known.get(number)
    return context.draws.choice(items) if index is None else items[index]


def most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """Returns the items that occur most often, in the order of their first occurrence; filter of promptsource."""
    if not items:
        return None
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


def highlight(text: str) -> str:
    """Returns text in promptsource's colour; its filter."""
    return f"<span style='color: #F08080'>{text}</span>"


@jinja2.pass_eval_context
def _join(eval_ctx: Any, value: Any, d: str = "", attribute: Any = None) -> str:
    return jinja_filters.do_join(eval_ctx, _joined_by(d, value), d, attribute)


@jinja2.pass_eval_context
def _replace(eval_ctx: Any, s: Any, old: str, new: str, count: int | None = None) -> str:
    _check_replace(str(s), old, new)
    return jinja_filters.do_replace(eval_ctx, s, old, new, count)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if re.search(r"\d{3}|\*", str(value)):
        raise Refused("a format with a width of hundreds is used")
    return jinja_filters.do_format(value, *args, **kwargs)


def _round(value: Any, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > _MAX_DIGITS:
        raise Refused(f"round is used with more than {_MAX_DIGITS} digits")
    return jinja_filters.do_round(value, precision, method)


def _trim(value: Any, chars: str | None = None) -> str:
    _check_stripped(chars)
    return jinja_filters.do_trim(value, chars)


def _joined_by(separator: Any, items: Iterable[Any]) -> list[Any]:
    """Returns the items, if the text of their separators is not too long."""
    found = list(items)
    _check_work(len(str(separator)) * len(found))
    return found


def _check_replace(text: str, old: Any, new: Any) -> None:
    """Raises TooMuch where a text may become too long."""
    _check_work(len(text) + (len(text) // max(1, len(str(old))) + 1) * len(str(new)))


def _check_stripped(characters: Any) -> None:
    """Raises Refused where every character of a text would be compared with many."""
    if characters is not None and len(characters) > _MAX_STRIPPED:
        raise Refused(f"more than {_MAX_STRIPPED} characters are stripped")


def _product(left: Any, right: Any) -> Any:
    """Returns left * right, if it is not too large."""
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > _MAX_BITS:
            raise TooMuch
    else:
        for items, number in ((left, right), (right, left)):
            if isinstance(items, str | list | tuple) and isinstance(number, int):
                _check_work(_size(items, MAX_WORK) * max(0, number))
    return operator.mul(left, right)


def _check_work(size: int) -> None:
    """Raises TooMuch where something would become larger than everything may."""
    if size > MAX_WORK:
        raise TooMuch
