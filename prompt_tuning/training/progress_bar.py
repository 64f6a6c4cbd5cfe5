"""The bar on the terminal, or a line now and then in a log file, that says how far a run has come."""

import sys

import jax
from tqdm import tqdm


def progress_bar(unit: str, *, total: int | None = None, initial: int = 0) -> tqdm:
    """Returns a bar that process 0 shows.

    Args:
      unit: What is counted.
      total: How many there are; None where nobody knows.
      initial: How many were done before.
    """
    return tqdm(
        total=total,
        initial=initial,
        unit=unit,
        dynamic_ncols=True,
        disable=jax.process_index() != 0,
        mininterval=1.0 if sys.stderr.isatty() else 30.0,
    )
