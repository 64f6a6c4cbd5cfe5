"""The figures of one prompt: its neighbours, their clusters, rows that share them, class labels among them.

Definitions, where the paper gives none:
- Two tokens are *near* if the cosine of their embeddings is so high that a token has one other like that on average
  (`FrozenTokens.near_cosine`), or if they are spelt alike: equal but for case and the mark of a word's start, or with
  as many first letters in common as make up 60 % of the longer one, at least four.
- The *cluster* of a row is the largest group of its neighbours that nearness connects.
- Rows *share* neighbours if a token is among the nearest of both; groups of rows are connected in this way.
- A class label is *found* in a row if its token is among the row's neighbours; a label of several tokens, if the mean
  of their embeddings, which is what class-label initialization starts from, is as near as the last of the neighbours.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from prompt_tuning.commands.inspect import neighbours
from prompt_tuning.commands.inspect.frozen_tokens import FrozenTokens
from prompt_tuning.commands.inspect.neighbours import Neighbours

_ALIKE_SHARE = 0.6
_ALIKE_LETTERS = 4

Labels = Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The figures of one prompt [P, H].

    Attributes:
      prompt: [P, H] float32.
      nearest: The P rows' neighbours.
      near_one_another: [P] float32, mean cosine between the neighbours of a row.
      clusters: Of each row, the token ids of its cluster; one token if none are near one another.
      groups: Rows that share neighbours, largest group first; none of one row.
      found_in: Label -> rows in which it is found.
    """

    prompt: Float[np.ndarray, "P H"]
    nearest: Neighbours
    near_one_another: Float[np.ndarray, " P"]
    clusters: list[list[int]]
    groups: list[list[int]]
    found_in: dict[str, list[int]]

    @property
    def norms(self) -> Float[np.ndarray, " P"]:
        """Length of each row."""
        return np.linalg.norm(self.prompt, axis=1)

    def figures(self) -> dict[str, float]:
        """Returns the figures of the whole prompt by name; those of labels only where there are labels."""
        found = {
            "norm": float(self.norms.mean()),
            "nearest_distance": float(self.nearest.distances[:, 0].mean()),
            "top_distance": float(self.nearest.distances.mean()),
            "near_one_another": float(self.near_one_another.mean()),
            "cluster_size": float(np.mean([len(cluster) for cluster in self.clusters])),
            "sharing_rows": float(sum(map(len, self.groups))),
        }
        if self.found_in:
            own = [row in rows for row, rows in enumerate(self.found_in.values())]
            found["labels_in_own_row"] = float(sum(own))
            found["labels_anywhere"] = float(sum(map(bool, self.found_in.values())))
        return found

    def figures_from(self, start: "Analysis") -> dict[str, float]:
        """Returns how far the prompt is from where it started: means over rows, and rows that kept a neighbour."""
        units = neighbours.unit(self.prompt), neighbours.unit(start.prompt)
        kept = self.nearest.ids[:, 0] == start.nearest.ids[:, 0]
        return {
            "moved": float(np.linalg.norm(self.prompt - start.prompt, axis=1).mean()),
            "turned": float(1 - (units[0] * units[1]).sum(axis=1).mean()),
            "kept_nearest": float(kept.sum()),
        }


def analyse(
    prompts: Sequence[Float[np.ndarray, "P H"]],
    tokens: FrozenTokens,
    *,
    top: int,
    labels: Labels,
) -> list[Analysis]:
    """Returns the figures of prompts, going through the embedding table once for all of them.

    Args:
      prompts: Each [P, H] float32.
      tokens: The frozen tokens.
      top: k, neighbours of each row.
      labels: Class label -> its token ids; may be empty.
    """
    found = neighbours.find_nearest(np.concatenate(prompts), tokens.blocks(), top)
    ends = np.cumsum([len(prompt) for prompt in prompts])[:-1]
    parts = zip(np.split(found.ids, ends), np.split(found.distances, ends), strict=True)
    return [
        _analyse_one(prompt, Neighbours(*part), tokens, labels)
        for prompt, part in zip(prompts, parts, strict=True)
    ]


def _analyse_one(
    prompt: Float[np.ndarray, "P H"], nearest: Neighbours, tokens: FrozenTokens, labels: Labels
) -> Analysis:
    """The figures of one prompt whose neighbours are known."""
    clusters, near_one_another = [], []
    for ids in nearest.ids:
        units = neighbours.unit(tokens.table[ids])
        cosines = units @ units.T
        texts = [tokens.text_of(int(token)) for token in ids]
        alike = np.array([[spelt_alike(a, b) for b in texts] for a in texts])
        largest = neighbours.components((cosines >= tokens.near_cosine) | alike)[0]
        clusters.append([int(ids[member]) for member in largest])
        pairs = cosines[np.triu_indices(len(ids), 1)]
        near_one_another.append(pairs.mean() if len(pairs) else 0.0)
    different, columns = np.unique(nearest.ids, return_inverse=True)
    holds = np.zeros((len(prompt), len(different)), np.float32)
    np.put_along_axis(holds, columns.reshape(nearest.ids.shape), 1, axis=1)
    shared = holds @ holds.T > 0
    return Analysis(
        prompt,
        nearest,
        np.asarray(near_one_another, np.float32),
        clusters,
        [group for group in neighbours.components(shared) if len(group) > 1],
        {label: _rows_with(ids, prompt, nearest, tokens) for label, ids in labels.items()},
    )


def _rows_with(
    ids: Sequence[int],
    prompt: Float[np.ndarray, "P H"],
    nearest: Neighbours,
    tokens: FrozenTokens,
) -> list[int]:
    """The rows in which the label of these tokens is found."""
    if len(ids) == 1:
        is_found = (nearest.ids == ids[0]).any(axis=1)
    else:
        label = neighbours.unit(tokens.table[list(ids)].mean(axis=0))
        is_found = 1 - neighbours.unit(prompt) @ label <= nearest.distances[:, -1]
    return [int(row) for row in np.flatnonzero(is_found)]


def spelt_alike(one: str, other: str) -> bool:
    """Returns whether two tokens are forms of one word, by their first letters."""
    one, other = (text.removeprefix("▁").casefold() for text in (one, other))
    shared = len(os.path.commonprefix([one, other]))
    return one == other or shared >= max(_ALIKE_LETTERS, _ALIKE_SHARE * max(len(one), len(other)))


def random_prompts(
    prompt: Float[np.ndarray, "P H"], *, draws: int, seed: int
) -> list[Float[np.ndarray, "P H"]]:
    """Returns prompts whose rows have a prompt's norms and random directions.

    Args:
      prompt: [P, H] float32.
      draws: How many.
      seed: Of NumPy's generator.
    """
    rng = np.random.default_rng(seed)
    norms = np.linalg.norm(prompt, axis=1, keepdims=True)
    return [
        neighbours.unit(rng.standard_normal(prompt.shape, np.float32)) * norms for _ in range(draws)
    ]
