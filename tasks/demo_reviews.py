"""Generated one-sentence reviews under three pairs of answer words: the demo's data, which needs no download.

For each row of `PAIRS`, as in `verbalizer_pairs` on real data:

- `demo_reviews_{pair}_with_phrase`: `answer yes or no: <sentence>`; the phrase says which words to answer with.
- `demo_reviews_{pair}`: `sentence: <sentence>`; nothing names the pair.

The mixture `demo_reviews_pairs` holds all tasks with phrase, and is meant for training the demo's model.
"""

import random
from collections.abc import Iterator

import seqio
import tensorflow as tf

from prompt_tuning.data import columns, metrics, postprocessors, preprocessors
from prompt_tuning.data.registry import register_mixture, register_task
from prompt_tuning.data.verbalizers import register_verbalizers

# Name of the pair -> (word for positive, word for negative).
PAIRS = {
    "great_terrible": ("great", "terrible"),
    "yes_no": ("yes", "no"),
    "up_down": ("up", "down"),
}
MIXTURE = "demo_reviews_pairs"
NUM_EXAMPLES = {"train": 6000, "validation": 400}
_SEED = 20210418

_PRAISE = (
    "bright brave warm clever funny lively candid tender graceful rich fresh gentle "
    "sharp moving joyful charming polished stylish vivid generous"
).split()
_BLAME = (
    "dull cold clumsy dreary noisy shallow bitter stale sloppy bland lifeless tedious "
    "messy hollow crude grim feeble tired confusing careless"
).split()
_THINGS = "film book song play meal hotel garden game concert painting speech museum".split()
_PARTS = "ending start service music colour story cast menu style rhythm humour mood".split()
_PEOPLE = "my sister|our guide|the critic|an old friend|the waiter|my uncle".split("|")
_DEGREES = "|rather |truly |so |very |quite ".split("|")
# (template, whether its adjectives mean the opposite of what the sentence says).
_TEMPLATES = (
    ("the {part} of this {thing} is {degree}{adjective} .", False),
    ("a {adjective} {thing} with a {second} {part} .", False),
    ("{person} called the {thing} {degree}{adjective} .", False),
    ("i found the {part} {adjective} and the {thing} {second} .", False),
    ("{person} said that the {part} was not {adjective} .", True),
    ("nobody would call this {thing} {adjective} .", True),
)


def sentences(split: str) -> list[tuple[str, int]]:
    """Returns `(sentence, label)` with label 1 for praise; the splits share no sentence.

    Args:
      split: "train" or "validation".
    """
    rng = random.Random(_SEED)
    seen: dict[str, int] = {}
    while len(seen) < sum(NUM_EXAMPLES.values()):
        label = rng.randrange(2)
        template, is_negated = rng.choice(_TEMPLATES)
        words = _PRAISE if label != is_negated else _BLAME
        adjective, second = rng.sample(words, 2)
        sentence = template.format(
            part=rng.choice(_PARTS),
            thing=rng.choice(_THINGS),
            person=rng.choice(_PEOPLE),
            degree=rng.choice(_DEGREES),
            adjective=adjective,
            second=second,
        )
        seen.setdefault(sentence, label)
    rows = list(seen.items())
    cut = NUM_EXAMPLES["validation"]
    return rows[:cut] if split == "validation" else rows[cut:]


def corpus() -> Iterator[str]:
    """Yields every text that a model of the demo reads or writes, for training its vocabulary."""
    for positive, negative in PAIRS.values():
        yield from (positive, negative, f"answer {positive} or {negative}:")
    for sentence, _ in sentences("train"):
        yield f"sentence: {sentence}"


def _dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    """Raw examples in GLUE's form."""
    del shuffle_files, seed
    rows = [
        {"sentence": sentence, "label": label, "idx": position}
        for position, (sentence, label) in enumerate(sentences(split))
    ]
    return columns.as_dataset(columns.from_rows(rows))


def _register() -> None:
    """Registers two tasks a pair, and the mixture."""
    probe = [
        {"sentence": "a dull film .", "label": 0, "idx": 0},
        {"sentence": "a warm song .", "label": 1, "idx": 1},
    ]
    for pair, (positive, negative) in PAIRS.items():
        verbalizers = (negative, positive)
        forms = {
            f"demo_reviews_{pair}_with_phrase": preprocessors.phrased_text(
                field="sentence",
                verbalizers=verbalizers,
                phrase=f"answer {positive} or {negative}:",
            ),
            f"demo_reviews_{pair}": preprocessors.classification_text(
                fields=("sentence",), verbalizers=verbalizers
            ),
        }
        for name, to_text in forms.items():
            register_task(
                name,
                source=seqio.FunctionDataSource(
                    _dataset, splits=tuple(NUM_EXAMPLES), num_input_examples=NUM_EXAMPLES
                ),
                to_text=to_text,
                postprocess_fn=postprocessors.label_index(verbalizers),
                metric_fns=[metrics.accuracy],
                probe=probe,
            )
            register_verbalizers(name, verbalizers)
    register_mixture(MIXTURE, [f"demo_reviews_{pair}_with_phrase" for pair in PAIRS])


_register()
