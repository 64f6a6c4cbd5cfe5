"""Pipelines are made without AutoGraph where that is possible, and are the same."""

import pytest
import tensorflow as tf

from prompt_tuning.data import pipelines
from prompt_tuning.errors import DataError


def _values(ds):
    return [int(x) for x in ds.as_numpy_iterator()]


def _absolute(x):
    if x < 0:  # Python's control flow over a tensor.
        return -x
    return x


def test_control_flow_over_tensors_is_converted_all_the_same():
    ds = tf.data.Dataset.from_tensor_slices([-2, 3])
    assert _values(pipelines.made(lambda: ds.map(_absolute))) == [2, 3]


def test_what_needs_no_conversion_is_traced_once_and_as_it_is():
    made = []

    def double(x):
        made.append(__file__ == double.__code__.co_filename)
        return 2 * x

    ds = pipelines.made(lambda: tf.data.Dataset.range(3).map(double))
    assert _values(ds) == [0, 2, 4]
    assert made == [True]


@pytest.mark.parametrize(("error", "times"), [(DataError, 1), (KeyError, 2)])
def test_errors_are_those_of_what_makes_it(error, times):
    calls = []

    def make():
        calls.append(1)
        if error is KeyError:
            raise KeyError("inputs")
        raise DataError("Wrong", got=1, expected="2", fix="mend it")

    with pytest.raises(error) as raised:
        pipelines.made(make)
    assert len(calls) == times
    assert raised.value.__context__ is None
