"""How pipelines of tf.data are made: without what takes most of the time and is not needed, AutoGraph above all."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import seqio
import tensorflow as tf

from prompt_tuning.errors import PromptTuningError
from prompt_tuning.types import TASK

Made = TypeVar("Made")
_NUMBER = seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=0)
# What Python inside datasets raised lately, of which several run at a time: TensorFlow passes on its text, but not the
# error.
_raised: collections.deque[PromptTuningError] = collections.deque(maxlen=256)


def made(make: Callable[[], Made]) -> Made:
    """Returns `make()`, in which the functions that datasets are mapped with are traced as they are.

    AutoGraph would write each of them anew first, and all that they call: most of the seconds that a pipeline takes to
    be made, and for nothing unless they have Python's control flow over tensors. Those cannot be traced without it;
    then all is made again with AutoGraph, as TensorFlow does by itself.

    Args:
      make: Makes datasets; called once more if that fails.

    Raises:
      Exception: What `make` raises.
    """
    try:
        return tf.autograph.experimental.do_not_convert(make)()
    except PromptTuningError:
        raise
    except Exception:  # What it is does not matter: with AutoGraph it comes again, or goes away.
        pass
    return make()


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Around Python inside a dataset: what it raises is what `readable_errors` outside of it raises.

    Yields:
      Nothing.
    """
    try:
        yield
    except PromptTuningError as error:
        _raised.append(error)
        raise


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Within the block, what stops TensorFlow's pipeline is the error that Python inside it raised.

    Yields:
      Nothing.

    Raises:
      PromptTuningError: Raised within `remembering` while the block took examples from a dataset.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for raised in tuple(_raised):
            if str(raised) in str(error):
                raise raised from None
        raise


def numpy_iterator(ds: tf.data.Dataset) -> Iterator[Any]:
    """Returns the elements as numpy arrays, by an iterator that ends at once when it is dropped.

    tf.data's autotuner wakes at growing intervals, up to a minute, and an iterator is only deleted after its next turn:
    a run would wait that long at its end. Without it parallel maps use up to 16 threads.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return ds.with_options(options).as_numpy_iterator()


def to_model_features(
    ds: tf.data.Dataset, lengths: Mapping[str, int], *, pack: bool, with_task: bool
) -> tf.data.Dataset:
    """Returns examples with the features of the model.

    Args:
      ds: Examples with the features of a task.
      lengths: Tokens of each feature.
      pack: Whether several examples are put into one row.
      with_task: Whether examples have the number of their task, `types.TASK`, which is kept.
    """
    if not with_task:
        return converter(pack=pack)(ds, lengths)
    # SeqIO asks for the length of every feature; a number has no axes.
    return converter(pack=pack, kept={TASK: _NUMBER})(ds, {**lengths, TASK: ()})  # pyright: ignore


def converter(
    *, pack: bool = False, kept: Mapping[str, Any] | None = None
) -> seqio.EncDecFeatureConverter:
    """Returns SeqIO's converter of a task's features to those of the model.

    Args:
      pack: Whether it puts several examples into one row.
      kept: Features that stay as they are, and of what kind each is.
    """
    # A task that is read with lengths is cut to them, so that SeqIO has nothing to find when it checks each example's;
    # to make these checks takes a third of the time that a pipeline takes to be made.
    return seqio.EncDecFeatureConverter(
        pack=pack, apply_length_check=False, passthrough_features=kept
    )
