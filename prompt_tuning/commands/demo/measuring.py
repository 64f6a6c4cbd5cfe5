"""What the demo measures: the answers of a model, and what a prompt is near to."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prompt_tuning.data.synthetic import benchmark

if TYPE_CHECKING:
    from prompt_tuning.predict import LoadedRun

WORDS = benchmark.FORMS["sentiment"].classes
BATCH_SIZE = 40
# Tokens that the untuned model may write: enough to see that it goes on with the text.
_UNTUNED_LENGTH = 12
_NUM_NEIGHBOURS = 5


class Example(NamedTuple):
    """A sentence of the task and the right answer."""

    sentence: str
    right: str


def read_splits() -> dict[str, list[Example]]:
    """Returns the examples of the task `synthetic_sentiment` by split."""
    return {
        split: [
            Example(row["sentence"], WORDS[row["label"]])
            for row in benchmark.rows("sentiment", split)
        ]
        for split in benchmark.NUM_EXAMPLES
    }


def load_untuned(arguments: Mapping[str, Any]) -> "LoadedRun":
    """Returns the model that a run is going to freeze, without a prompt.

    Args:
      arguments: Those of `train.train`.
    """
    from prompt_tuning.predict import LoadedRun
    from prompt_tuning.run.inference import Inference
    from prompt_tuning.run.start import load_for_inference

    model, partitioner = arguments["model"], arguments["partitioner"]
    model = dataclasses.replace(model, module=model.module.clone(prompt=None))
    loaded = load_for_inference(model, partitioner, arguments["checkpoint_cfg"].restore)
    lengths = arguments["train_dataset_cfg"].task_feature_lengths
    lengths = {**lengths, "targets": _UNTUNED_LENGTH}
    inference = Inference(model, partitioner, BATCH_SIZE)
    return LoadedRun(model, loaded.params, loaded.step, lengths, inference)


def num_params(run: "LoadedRun") -> int:
    """Returns how many numbers a model has, its prompt included."""
    return sum(math.prod(leaf.shape) for leaf in run.model.param_shapes.values())


def answers(run: "LoadedRun", examples: Sequence[Example]) -> list[str]:
    """Returns what a model writes after each sentence."""
    return run.predict(inputs_of(examples))


def choices(run: "LoadedRun", examples: Sequence[Example]) -> list[str]:
    """Returns which of the two words a model finds likelier after each sentence."""
    inputs = inputs_of(examples)
    # In one call: a sentence is encoded once for all words.
    scores = run.score([text for text in inputs for _ in WORDS], [*WORDS] * len(inputs))
    rows = zip(*(scores[number :: len(WORDS)] for number in range(len(WORDS))), strict=True)
    return [WORDS[row.index(max(row))] for row in rows]


def inputs_of(examples: Sequence[Example]) -> list[str]:
    """Returns what the task hands to a model."""
    return [f"sentence: {example.sentence}" for example in examples]


def accuracy(answers: Sequence[str], examples: Sequence[Example]) -> float:
    """Returns the share of answers that are the right word and nothing else, in percent."""
    right = [answer == example.right for answer, example in zip(answers, examples, strict=True)]
    return 100 * sum(right) / len(right)


def naming(answers: Sequence[str], examples: Sequence[Example]) -> float:
    """Returns the share of answers in which the right word comes up, in percent."""
    named = [example.right in answer for answer, example in zip(answers, examples, strict=True)]
    return 100 * sum(named) / len(named)


def majority(examples: Sequence[Example]) -> float:
    """Returns the share of the more frequent answer, in percent."""
    return 100 * max(Counter(example.right for example in examples).values()) / len(examples)


def recorded(directory: str) -> dict[int, float]:
    """Returns step -> accuracy on the validation split in percent, as the run in a folder measured it."""
    from etils import epath

    from prompt_tuning.commands.sweep import cell

    found = cell.recorded_results(epath.Path(directory))
    return {step: next(iter(tasks.values()))["accuracy"] for step, tasks in found.items()}


def neighbours_of_prompt(run: "LoadedRun") -> list[str]:
    """Returns a line for each vector of a tuned prompt: how far its nearest tokens are, and their texts."""
    import numpy as np

    from prompt_tuning import tree
    from prompt_tuning.commands.inspect import frozen_tokens, neighbours
    from prompt_tuning.params.names import EMBEDDING, PROMPT_PATH

    flat = tree.flatten(run.params)
    prompt, table = (np.asarray(flat[path], np.float32) for path in (PROMPT_PATH, EMBEDDING))
    tokens = frozen_tokens.make_tokens(table, run.model.input_vocabulary)
    found = neighbours.find_nearest(prompt, tokens.blocks(), _NUM_NEIGHBOURS)
    lines = []
    for row, (ids, distances) in enumerate(zip(found.ids, found.distances, strict=True)):
        texts = (tokens.text_of(int(token)).removeprefix("▁") for token in ids)
        near = ", ".join(filter(None, texts))
        lines.append(f"vector {row:>2}  {distances[0]:.2f} to {distances[-1]:.2f}:  {near}")
    return lines
