"""T0's data sets: their names, sizes and parts in T0's mixtures, and the names of their tasks.

`assets/data_sets.csv` has a row for each. Its first six columns are facts of t0/datasets.csv in
bigscience-workshop/t-zero (7a699e3, Apache-2.0) under other headings; `hub_id` is where the Hugging Face Hub keeps the
data set today, as far as it is known to be somewhere else.
"""

import csv
import dataclasses
import functools
import pathlib
import re

_TABLE = pathlib.Path(__file__).parent / "assets" / "data_sets.csv"
# A larger data set takes part with this many examples, dealt to its templates; others with their size, each template.
MAX_EXAMPLES = 500_000
SPLITS = ("train", "validation", "test")
# T0 reads no validation set but this one under another name, and makes three data sets of it.
ANLI_ROUNDS = ("r1", "r2", "r3")


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
      name: Its name in Hugging Face `datasets` when T0 was made.
      subset: Its configuration there, None for the only one.
      kind: The task by convention, such as "NLI".
      train: "BASE" (T0 trains on it), "GPT_EVAL" (T0+ too), "SGLUE" (T0++ too) or "".
      eval: "BASE" (T0 is evaluated on it), "BIAS_FAIRNESS" or "".
      train_size: Examples of the training split that T0 counts, 0 where it counts none.
      hub_id: Its name on the Hub today.
      round: ANLI's round, "r1" to "r3"; "" of all others.
    """

    name: str
    subset: str | None
    kind: str
    train: str
    eval: str
    train_size: int
    hub_id: str
    round: str = ""

    @property
    def key(self) -> tuple[str, str | None]:
        """Name and subset, by which templates are found."""
        return self.name, self.subset

    @property
    def path(self) -> str:
        """`NAME` or `NAME/SUBSET`, as folders are called."""
        return "/".join(filter(None, self.key))

    @property
    def splits(self) -> dict[str, str]:
        """Name of each split -> its name in the data set."""
        if not self.round:
            return {split: split for split in SPLITS}
        theirs = {"train": "train", "validation": "dev", "test": "test"}
        return {split: f"{name}_{self.round}" for split, name in theirs.items()}

    def task_name(self, template_name: str) -> str:
        """Returns T0's name of the task of a template."""
        parts = [part for part in (*self.key, template_name) if part]
        name = re.sub(r"[^\w\d\._]+", "_", "_".join(parts))
        return f"{name}_{self.round}" if self.round else name

    def rate(self, num_templates: int) -> int:
        """Returns the share in a mixture of the task of one of its templates.

        Args:
          num_templates: Templates that the data set has. They divide its share only where it is capped.
        """
        is_capped = self.train_size > MAX_EXAMPLES
        return MAX_EXAMPLES // num_templates if is_capped else self.train_size


@functools.cache
def data_sets() -> tuple[DataSet, ...]:
    """Returns all data sets in the order of T0's table; of ANLI each round."""
    found = []
    with _TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            data = DataSet(
                row["name"],
                row["subset"] or None,
                row["kind"],
                row["train"],
                row["eval"],
                int(row["train_size"] or 0),
                row["hub_id"] or row["name"],
            )
            rounds = ANLI_ROUNDS if data.name == "anli" else ("",)
            found += [dataclasses.replace(data, round=name) for name in rounds]
    return tuple(found)
