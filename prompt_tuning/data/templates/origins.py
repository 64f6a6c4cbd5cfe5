"""Which data set and template a task was made of."""

from typing import NamedTuple

_ORIGINS: dict[str, "Origin"] = {}


class Origin(NamedTuple):
    """Where a task comes from.

    Attributes:
      dataset: The data set as it is scored, for example `anli_r1`.
      group: The data sets that count as one, for example `anli`; mostly the data set itself.
      template: Name of the template.
    """

    dataset: str
    group: str
    template: str


def remember(task_name: str, origin: Origin) -> None:
    """Notes where a task comes from, in place of what was noted before.

    Args:
      task_name: Name of the SeqIO task.
      origin: Its data set and template.
    """
    _ORIGINS[task_name] = origin


def of_task(task_name: str) -> Origin | None:
    """Returns where a task comes from, None if it is not made of a template.

    Args:
      task_name: Name of a SeqIO task.
    """
    return _ORIGINS.get(task_name)
