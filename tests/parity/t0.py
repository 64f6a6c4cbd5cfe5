"""Every comparison with a folder of reference numbers of T0 and T-Few.

Such a folder has no meta.json: each of its files says what it was computed with, and each may be missing. One module a
subject, `t0_SUBJECT.py`, yields the rows of the files that it reads.
"""

import importlib
import importlib.util
import pathlib
import traceback
from collections.abc import Iterator

from tests.parity.golden import Report
from tests.parity.rows import NotChecked, Row

SUBJECTS = ("templates", "tasks", "ia3", "tfew")


def compare(directory: pathlib.Path, vocabulary: pathlib.Path | None) -> Report:
    """Returns the rows of every subject that can be compared.

    A subject that breaks down is a row that does not hold: numbers that cannot be computed are not equal.

    Args:
      directory: The folder.
      vocabulary: T5's SentencePiece model; None leaves out what needs token ids.
    """
    report = Report()
    for subject in SUBJECTS:
        try:
            for item in _comparisons(subject, directory, vocabulary):
                (report.rows if isinstance(item, Row) else report.not_checked).append(item)  # pyright: ignore
        except Exception as error:  # whatever it is, the other subjects are still worth their rows
            traceback.print_exc()
            note = f"{type(error).__name__}: {error}".splitlines()[0]
            report.rows.append(Row(f"t0/{subject}/completed", float("nan"), 0, "count", note))
    return report


def _comparisons(
    subject: str, directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """The rows of one subject."""
    name = f"tests.parity.t0_{subject}"
    if importlib.util.find_spec(name) is None:
        yield NotChecked(subject, f"{name} does not exist")
        return
    yield from importlib.import_module(name).comparisons(directory, vocabulary)
