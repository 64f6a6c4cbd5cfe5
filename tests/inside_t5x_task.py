"""SeqIO tasks over stored batches of token ids, for T5X's programs and for this package's alike.

They read what two variables name, because the programs run in processes of their own: `STORED_BATCHES`, an `.npz` with
`{i}/encoder_input_tokens` and `{i}/decoder_target_tokens` for each batch i, and `VOCABULARY_MODEL`, a model file of
SentencePiece.
"""

import os
from typing import Any

import numpy as np
import seqio
import tensorflow as tf


def _examples(split: str, shuffle_files: bool = False, seed: int | None = None) -> tf.data.Dataset:
    """The rows of all stored batches, in order, without padding."""
    del split, shuffle_files, seed
    names = {"inputs": "encoder_input_tokens", "targets": "decoder_target_tokens"}
    with np.load(os.environ["STORED_BATCHES"]) as stored:
        rows: Any = {
            feature: np.concatenate([stored[key] for key in sorted(stored) if key.endswith(name)])
            for feature, name in names.items()
        }
    ds = tf.data.Dataset.from_tensor_slices(rows)
    return ds.map(lambda ex: {name: tf.boolean_mask(ids, ids != 0) for name, ids in ex.items()})


def _exact_match(targets: list[str], predictions: list[str]) -> dict[str, float]:
    """Percentage of predictions that equal their target."""
    pairs = zip(targets, predictions, strict=True)
    return {"exact_match": 100 * float(np.mean([t == p for t, p in pairs]))}


def _mean_score(targets: list[str], scores: list[float]) -> dict[str, float]:
    """Mean log likelihood of the targets."""
    del targets
    return {"mean_score": float(np.mean(scores))}


_FEATURE = seqio.Feature(
    seqio.SentencePieceVocabulary(os.environ["VOCABULARY_MODEL"]), add_eos=False
)
_SOURCE: Any = seqio.FunctionDataSource(_examples, splits=("train", "validation"))
seqio.TaskRegistry.add(
    "stored_batches",
    source=_SOURCE,
    preprocessors=[],
    output_features={"inputs": _FEATURE, "targets": _FEATURE},
    metric_fns=[_exact_match, _mean_score],
)
