"""Every comparison with a folder of reference numbers of prompts, adapters and other small tuned parts.

Such a folder has no meta.json, but some of these sub-folders, each of which holds cases:

| sub-folder | a case |
|---|---|
| `A_peft` | an adapter as Hugging Face's PEFT saved it, with `golden.npz`; its model is a folder beside it |
| `B_authors` | `model_NAME.npz`, a whole model with modules of the prompt tuning authors; `NAME.npz`, vectors |
| `B_prefix_full` | `NAME.npz`, prefixes of encoder, decoder and attention to the encoder |
| `C_methods` | `NAME.npz`, other methods |

One module a subject, `family_SUBJECT.py`, yields the rows of the cases that it knows by what is in them; rows are named
`family/SUB-FOLDER/CASE/QUANTITY`. A case that no subject knows is named as not checked.
"""

import pathlib

from tests.golden.check import FAMILY_FOLDERS
from tests.parity import subjects
from tests.parity.golden import Report
from tests.parity.rows import NotChecked

SUBJECTS = ("lora", "prefix", "tasks", "cheap")


def compare(directory: pathlib.Path, vocabulary: pathlib.Path | None) -> Report:
    """Returns the rows of every subject; arguments as those of `subjects.compare`."""
    report = subjects.compare("family", SUBJECTS, directory, vocabulary)
    compared = {row.name.rpartition("/")[0].removeprefix("family/") for row in report.rows}
    told = {item.name for item in report.not_checked}
    report.not_checked += [
        NotChecked(case, "no comparison knows what it is")
        for case in _cases(directory)
        if not any(f"{name}/".startswith(f"{case}/") for name in compared | told)
    ]
    return report


def _cases(directory: pathlib.Path) -> list[str]:
    """The cases of a folder, `SUB-FOLDER/CASE`."""
    files = [p for name in FAMILY_FOLDERS[1:] for p in (directory / name).glob("*.npz")]
    adapters = [p.parent for p in (directory / FAMILY_FOLDERS[0]).glob("*/golden.npz")]
    return sorted(f"{p.parent.name}/{p.stem}" for p in files + adapters)
