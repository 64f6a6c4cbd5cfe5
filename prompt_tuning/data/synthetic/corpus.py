"""The text to pre-train on: paragraphs about worlds, mixed with prose of one's own, and never a task.

A document is a line. The paragraphs say what is so and what follows, in the words in which people talk; the form of the
tasks, with the names of their fields, occurs nowhere.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from etils import epath

from prompt_tuning.data.synthetic import (
    beliefs,
    causes,
    pronouns,
    relations,
    reviews,
    senses,
    stories,
)
from prompt_tuning.data.synthetic.world import World, make_world, owner_of
from prompt_tuning.data.text import text_files

# Topic -> its share of the paragraphs; what is hard to learn comes more often.
TOPICS: Mapping[Callable[[random.Random, World, str], str], int] = {
    stories.paragraph: 5,
    beliefs.paragraph: 2,
    relations.paragraph: 2,
    causes.paragraph: 2,
    senses.paragraph: 2,
    pronouns.paragraph: 2,
    reviews.paragraph: 3,
}
SPLITS = {"train": "pretraining", "validation": "heldout"}
_PARAGRAPHS_A_WORLD = 4
# Prose is cut at ends of sentences into documents of about a paragraph's length.
_PROSE_CHARACTERS = 260
_SHORTEST_PROSE = 40


def documents(
    num_paragraphs: int,
    *,
    split: str,
    prose: Sequence[str] = (),
    num_prose: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Returns documents in an order fixed by the seed: paragraphs about worlds, with prose in between.

    Args:
      num_paragraphs: Paragraphs about worlds.
      split: "train" or "validation"; they share no world and no text.
      prose: Text files, of which a twentieth is kept for validation; none for no prose.
      num_prose: Documents of prose at most; None for all there are.
      seed: Seed of worlds and order.

    Returns:
      An iterator of documents without line breaks.
    """
    owner = SPLITS[split]
    rng = random.Random(f"{seed} corpus {split}")
    chunks = [text for path in prose for text in _prose(path) if _prose_split(text) == split]
    rng.shuffle(chunks)
    return _mixed(rng, num_paragraphs, owner, chunks[:num_prose])


def write(
    directory: epath.PathLike,
    num_paragraphs: Mapping[str, int],
    *,
    prose: Sequence[str] = (),
    prose_share: float = 0.1,
    seed: int = 0,
) -> dict[str, epath.Path]:
    """Writes `{split}.txt`, a document a line.

    Args:
      directory: Where to.
      num_paragraphs: Paragraphs about worlds of each split.
      prose: Paths or globs of text files; none for no prose.
      prose_share: Documents of prose for each paragraph, where there are as many.
      seed: See `documents`.

    Returns:
      Split -> file.
    """
    files = text_files.find_files(prose) if prose else []
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, number in num_paragraphs.items():
        path = directory / f"{split}.txt"
        made = documents(
            number, split=split, prose=files, num_prose=round(number * prose_share), seed=seed
        )
        path.write_text("".join(f"{text}\n" for text in made))
        written[split] = path
    return written


def _mixed(
    rng: random.Random, num_paragraphs: int, owner: str, chunks: Sequence[str]
) -> Iterator[str]:
    """Paragraphs and prose, each equally likely to come next as there is of it."""
    topics, shares = list(TOPICS), list(TOPICS.values())
    is_prose = [False] * num_paragraphs + [True] * len(chunks)
    rng.shuffle(is_prose)
    left = iter(chunks)
    world, num_written = make_world(rng, owner), 0
    for from_prose in is_prose:
        if from_prose:
            yield next(left)
            continue
        if num_written % _PARAGRAPHS_A_WORLD == 0:
            world = make_world(rng, owner)
        num_written += 1
        (topic,) = rng.choices(topics, shares)
        yield topic(rng, world, owner)


def _prose(path: str) -> Iterator[str]:
    """Documents of about equal length from a file with a paragraph, or a verse, a line."""
    for document in text_files.read_documents(path, "text"):
        text = ""
        for part in re.split(r"(?<=[.!?;:])\s+", " ".join(document.split())):
            text = f"{text} {part}".strip()
            if len(text) >= _PROSE_CHARACTERS:
                yield text
                text = ""
        if len(text) >= _SHORTEST_PROSE:
            yield text


def _prose_split(text: str) -> str:
    """The split of a piece of prose, from its text alone; the tasks hold none, so that training gets the rest."""
    return "validation" if owner_of(text) == SPLITS["validation"] else "train"
