"""The filters of templates: promptsource's, and those of Jinja's whose work is no larger than their operands."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import filters as of_jinja

from prompt_tuning.data.templates import limits

_AS_THEY_ARE = """abs capitalize count d default first float int items last length list lower map max min reject
    rejectattr reverse select selectattr sort string title truncate unique upper wordcount""".split()


@jinja2.pass_context
def choice(context: Any, items: Sequence[Any], number: int = -1) -> Any:
    """Returns one of `items`, as `random.choice` draws it: `choice`, and Jinja's own `random`.

    Args:
      context: The render's `sandbox.Context`.
      items: What to draw from.
      number: Of the filter in its template, where its draw may be known already.
    """
    index = context.known.get(number)
    return context.draws.choice(items) if index is None else items[index]


def most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """Returns the items that occur most often, in the order of their first occurrence; None of none."""
    if not items:
        return None
    counts = Counter(items)
    most = max(counts.values())
    return [item for item, count in counts.items() if count == most]


def highlight(text: str) -> str:
    """Returns text in promptsource's colour."""
    return f"<span style='color: #F08080'>{text}</span>"


def joined_by(separator: Any, items: Iterable[Any]) -> list[Any]:
    """Returns items that are to be joined.

    Raises:
      TooMuch: The text between them would be too long.
    """
    found = list(items)
    limits.check_size(len(str(separator)) * len(found))
    return found


@jinja2.pass_eval_context
def _join(eval_ctx: Any, value: Any, d: str = "", attribute: Any = None) -> str:
    # Jinja's filters have asynchronous forms too, which Jinja chooses where an environment asks for them.
    return of_jinja.sync_do_join(eval_ctx, joined_by(d, value), d, attribute)


@jinja2.pass_eval_context
def _replace(eval_ctx: Any, s: Any, old: str, new: str, count: int | None = None) -> str:
    limits.check_replace(str(s), old, new)
    return of_jinja.do_replace(eval_ctx, s, old, new, count)


def formatted(value: Any, *args: Any, **kwargs: Any) -> str:
    """Returns `value % args`, or `value % kwargs`.

    Raises:
      Refused: A field is hundreds of characters wide, or as wide as another value says.
    """
    if re.search(r"\d{3}|\*", str(value)):
        raise limits.Refused("a format with a width of hundreds is used")
    return of_jinja.do_format(value, *args, **kwargs)


def _round(value: Any, precision: int = 0, method: Any = "common") -> float:
    limits.check_digits(precision)
    return of_jinja.do_round(value, precision, method)


def _trim(value: Any, chars: str | None = None) -> str:
    limits.check_strip(chars)
    return of_jinja.do_trim(value, chars)


FILTERS: Mapping[str, Callable[..., Any]] = {
    **{name: of_jinja.FILTERS[name] for name in _AS_THEY_ARE},
    "choice": choice,
    "random": choice,
    "most_frequent": most_frequent,
    "highlight": highlight,
    "join": _join,
    "replace": _replace,
    "format": formatted,
    "round": _round,
    "trim": _trim,
}
