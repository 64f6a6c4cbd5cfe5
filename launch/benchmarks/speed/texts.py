"""How long real texts are, so that a clone without the data sets can be measured on their lengths."""

import dataclasses

import numpy as np

EOS_ID = 1


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The lengths of a data set's examples, EOS included.

    Attributes:
      inputs: Tokens of an input at each of `QUANTILES`.
      labels: Tokens of each of its two labels.
    """

    inputs: tuple[int, ...]
    labels: tuple[int, int]


QUANTILES = (*np.linspace(0, 0.95, 20), 0.98, 1.0)

# The validation splits of SuperGLUE's RTE (277 examples, 79.0 tokens on average) and BoolQ (3,270 examples, 155.5) as
# `taskless_super_glue_rte_v102` and `taskless_super_glue_boolq_v102` write them, in the pieces of T5's vocabulary:
# `numpy.quantile` of what `task.get_dataset` yields. Cut to 512 tokens BoolQ's average is 154.7.
DATA_SETS = {
    "rte": Lengths(
        (22, 34, 40, 42, 46, 48, 51, 54, 56, 59, 61, 65, 69, 75, 81, 90, 111, 136, 155, 173)
        + (216, 279),
        (5, 6),
    ),
    "boolq": Lengths(
        (32, 63, 76, 85, 94, 103, 111, 118, 126, 133, 141, 150, 157, 167, 178, 190, 204, 225, 248)
        + (292, 350, 1138),
        (2, 4),
    ),
}


def lengths(data_set: str, num_examples: int, limit: int) -> np.ndarray:
    """Returns the lengths [num_examples] int64 of inputs, in an order drawn once for all.

    They are the data set's own distribution, read at evenly spaced quantiles.

    Args:
      data_set: A name of `DATA_SETS`.
      num_examples: How many.
      limit: Longer ones are cut to it, as TASK_FEATURE_LENGTHS cuts. Unit: tokens, EOS included.
    """
    at = (np.arange(num_examples) + 0.5) / num_examples
    drawn = np.interp(at, QUANTILES, DATA_SETS[data_set].inputs).round().astype(np.int64)
    return np.random.default_rng(0).permutation(np.minimum(drawn, limit))


def token_ids(lengths: np.ndarray, vocab_size: int) -> list[np.ndarray]:
    """Returns random ids of each length, EOS last."""
    rng = np.random.default_rng(1)
    return [np.append(rng.integers(3, vocab_size, n - 1), EOS_ID) for n in lengths]


def label_ids(data_set: str) -> list[np.ndarray]:
    """Returns ids that stand for the two labels, EOS last."""
    return token_ids(np.asarray(DATA_SETS[data_set].labels), 1000)
