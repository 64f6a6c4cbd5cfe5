"""The choices of this run that registered tasks must see: the vocabulary and the folder of local data.

Tasks are registered when their module is imported, before the run's configuration is known, and SeqIO looks them up by
name. What differs between runs therefore lives here, and is read when a dataset is built.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What registered tasks read at the time a dataset is built.

    Attributes:
      vocabulary: The model's vocabulary; None means T5's own.
      data_dir: Folder that holds the original files of the data sets; None means TensorFlow Datasets.
    """

    vocabulary: "seqio.Vocabulary | None" = None
    data_dir: str | None = None


_current = RunContext()


def set_context(vocabulary: "seqio.Vocabulary | None" = None, data_dir: str | None = None) -> None:
    """Replaces the context of this process, and keeps TensorFlow off its accelerators.

    Args:
      vocabulary: The model's vocabulary; None for T5's own.
      data_dir: Folder of local data; None for TensorFlow Datasets.
    """
    global _current
    import tensorflow as tf

    # TensorFlow only reads data here; left alone it would reserve the GPU memory that JAX needs.
    tf.config.set_visible_devices([], "GPU")
    _current = RunContext(vocabulary=vocabulary, data_dir=data_dir)


def get_context() -> RunContext:
    """Returns the context of this process."""
    return _current


def get_vocabulary() -> "seqio.Vocabulary | None":
    """Returns the run's vocabulary, or None where T5's own is meant."""
    return _current.vocabulary


def get_data_dir() -> str | None:
    """Returns the folder of local data, or None where TensorFlow Datasets is meant."""
    return _current.data_dir


@contextlib.contextmanager
def overriding(
    *, vocabulary: "seqio.Vocabulary | None" = None, data_dir: str | None = None
) -> Iterator[None]:
    """Within the `with` block, replaces the choices that are not None.

    Args:
      vocabulary: The vocabulary inside the block; None keeps the current one.
      data_dir: The local folder inside the block; None keeps the current one.

    Yields:
      Nothing; the former context is back afterwards.
    """
    global _current
    before = _current
    changes = {"vocabulary": vocabulary, "data_dir": data_dir}
    changes = {name: value for name, value in changes.items() if value is not None}
    _current = dataclasses.replace(before, **changes)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        _current = before
