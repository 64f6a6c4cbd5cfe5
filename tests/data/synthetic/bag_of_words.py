"""How far single words go on the synthetic tasks: a bag-of-words baseline beside the majority class.

A logistic regression over counts of words, once per field and once over all fields, trained on a task's training split
by full-batch gradient descent (Adam) in numpy and scored on validation and test. WSC is scored as it is asked in
SuperGLUE: is this candidate the one meant?
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.synthetic import benchmark

_STEPS = 300
_LEARNING_RATE = 0.03
_WEIGHT_DECAY = 1e-4
_NOT_TEXT = ("label", "idx")


def score(name: str) -> dict[str, float]:
    """Returns the accuracy of the majority class and of bags of words on validation and test, in percent.

    Args:
      name: A task of the synthetic suite, for example "boolq".
    """
    train = benchmark.rows(name, "train")
    vocabulary = vocabulary_of(train)
    classes = len(benchmark.FORMS[name].classes)
    weights = fit(counts(train, vocabulary), labels(train), classes)
    majority = Counter(labels(train).tolist()).most_common(1)[0][0]
    row = {}
    for split in ("validation", "test"):
        rows = benchmark.rows(name, split)
        answers = np.argmax(counts(rows, vocabulary) @ weights, axis=1)
        row[f"majority {split}"] = 100 * float(np.mean(labels(rows) == majority))
        row[f"bag of words {split}"] = 100 * float(np.mean(labels(rows) == answers))
    return row


def fit(features: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weights [W, C] of a logistic regression; starts at zero, so that nothing is random.

    Args:
      features: [n, W] float32.
      targets: [n] class indices.
      classes: C.
    """
    weights = np.zeros((features.shape[1], classes), np.float32)
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    right = np.eye(classes, dtype=np.float32)[targets]
    for step in range(1, _STEPS + 1):
        logits = features @ weights
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = odds / odds.sum(axis=1, keepdims=True) - right
        gradient = features.T @ error / len(features) + _WEIGHT_DECAY * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        update = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        weights -= _LEARNING_RATE * update
    return weights


def vocabulary_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the columns of `counts`: every word of the examples, alone and with its field."""
    words = sorted({word for row in rows for word in words_of(row)})
    return {word: i for i, word in enumerate(words)}


def counts(rows: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, int]) -> np.ndarray:
    """Returns how often each word occurs in each example, and a column of ones: [n, W + 1] float32."""
    table = np.zeros((len(rows), len(vocabulary) + 1), np.float32)
    table[:, -1] = 1
    for i, row in enumerate(rows):
        for word in words_of(row):
            if word in vocabulary:
                table[i, vocabulary[word]] += 1
    return table


def words_of(row: Mapping[str, Any]) -> list[str]:
    """Returns the words of an example in small letters, alone and as `field:word`; numbers count as words."""
    found = []
    for field, value in row.items():
        if field not in _NOT_TEXT:
            words = re.findall(r"\w+", str(value).lower())
            found += words + [f"{field}:{word}" for word in words]
    return found


def labels(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns the label of each example."""
    return np.array([row["label"] for row in rows])
