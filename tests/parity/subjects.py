"""Comparisons with a folder of reference numbers that come in subjects: one module a subject."""

import importlib
import importlib.util
import pathlib
import traceback
from collections.abc import Iterable, Iterator, Sequence

from tests.parity.golden import Report
from tests.parity.rows import NotChecked, Row


def compare(
    area: str, names: Sequence[str], directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Report:
    """Returns the rows of every subject that can be compared.

    A subject that breaks down is a row that does not hold: numbers that cannot be computed are not equal.

    Args:
      area: What the subjects are of: the rows of subject NAME come from `tests/parity/AREA_NAME.py`, `comparisons`.
      names: The subjects.
      directory: The folder.
      vocabulary: T5's SentencePiece model; None leaves out what needs token ids.
    """
    report = Report()
    for name in names:
        items = comparisons(f"{area}_{name}", directory, vocabulary)
        for item in guarded(f"{area}/{name}", items):
            (report.rows if isinstance(item, Row) else report.not_checked).append(item)  # pyright: ignore
    return report


def guarded(name: str, items: Iterable[Row | NotChecked]) -> Iterator[Row | NotChecked]:
    """Yields what computes its rows one by one, and where that breaks down `NAME/completed`, which does not hold."""
    try:
        yield from items
    except Exception as error:  # whatever it is, others are still worth their rows
        traceback.print_exc()
        note = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Row(f"{name}/completed", float("nan"), 0, "count", note)


def comparisons(
    module: str, directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of one subject."""
    name = f"tests.parity.{module}"
    if importlib.util.find_spec(name) is None:
        yield NotChecked(module.partition("_")[2], f"{name} does not exist")
        return
    yield from importlib.import_module(name).comparisons(directory, vocabulary)
