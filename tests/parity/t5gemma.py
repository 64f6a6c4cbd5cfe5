"""Every comparison with a folder of reference numbers of T5Gemma, T5Gemma 2 and MADLAD-400.

Such a folder has no meta.json, but some of these:

| name | what |
|---|---|
| `D_t5gemma`, `E_t5gemma2` | a folder a case: a model as Hugging Face saved it, with `golden.npz` |
| `G_madlad` | one such case, a T5 with other special ids |
| `F_counts.json` | parameters of every released size |

One module a subject, `t5gemma_SUBJECT.py`, yields the rows of the cases that it knows; shapes and settings come from
the cases' own config.json.
"""

import pathlib

from tests.parity import subjects
from tests.parity.golden import Report

SUBJECTS = ("models", "counts")


def compare(directory: pathlib.Path, vocabulary: pathlib.Path | None) -> Report:
    """Returns the rows of every subject; arguments as those of `subjects.compare`."""
    return subjects.compare("t5gemma", SUBJECTS, directory, vocabulary)
