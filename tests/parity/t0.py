"""Every comparison with a folder of reference numbers of T0 and T-Few.

Such a folder has no meta.json: each of its files says what it was computed with, and each may be missing. One module a
subject, `t0_SUBJECT.py`, yields the rows of the files that it reads.
"""

import pathlib

from tests.parity import subjects
from tests.parity.golden import Report

SUBJECTS = ("templates", "tasks", "ia3", "tfew")


def compare(directory: pathlib.Path, vocabulary: pathlib.Path | None) -> Report:
    """Returns the rows of every subject; arguments as those of `subjects.compare`."""
    return subjects.compare("t0", SUBJECTS, directory, vocabulary)
