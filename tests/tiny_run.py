"""A run of the shipped gin files, shrunk to a tiny model, a T5X checkpoint and local data made for the test."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning import train, tree
from prompt_tuning.checkpoints import digest
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.data.local_data import write_data
from tests.helpers import tiny_config, train_sentencepiece

STEP = 1_100_000
EMB_DIM = 32
PROMPT_FILE = "encoder.prompt.prompt.prompt"
TINY_SIZES = {
    "NUM_EMBEDDINGS": 256,
    "EMBED_DIM": EMB_DIM,
    "NUM_HEADS": 4,
    "HEAD_DIM": 8,
    "MLP_DIM": 64,
    "NUM_ENCODER_LAYERS": 1,
    "NUM_DECODER_LAYERS": 1,
}


@dataclasses.dataclass(frozen=True)
class TinyInputs:
    """What a tiny run reads."""

    vocabulary: pathlib.Path
    checkpoint: pathlib.Path
    data_dir: pathlib.Path

    def flags(self, **macros: object) -> list[str]:
        """Returns the flags that point the shipped gin files at these inputs, plus `macros`."""
        settings = {
            **TINY_SIZES,
            "TASK_DATA_DIR": str(self.data_dir),
            "seqio.SentencePieceVocabulary.sentencepiece_model_file": str(self.vocabulary),
            **macros,
        }
        return [f"--gin.{name}={value!r}" for name, value in settings.items()]


def run_config(**overrides: Any) -> T5Config:
    """Returns the architecture of a tiny run: one layer a stack, since a run spends its time on tracing layers."""
    return tiny_config(**{"num_encoder_layers": 1, "num_decoder_layers": 1, **overrides})


@functools.cache
def _params() -> dict[str, np.ndarray]:
    """Random weights by path."""
    module = T5(run_config())
    ids = np.ones((1, 1), np.int32)
    init = jax.jit(lambda rng: module.init(rng, ids, ids, ids, enable_dropout=False))
    params = init(jax.random.key(0))["params"]
    return {path: np.asarray(leaf) for path, leaf in tree.flatten(params).items()}


def make_inputs(root: pathlib.Path, *, train: int = 64, validation: int = 16) -> TinyInputs:
    """Writes a vocabulary, a T5X checkpoint of step 1,100,000 and local data below `root`."""
    vocabulary = train_sentencepiece(root / "spiece.model")
    checkpoint = write_t5x_checkpoint(root / f"checkpoint_{STEP}", dict(_params()), STEP)
    data_dir = write_data(root / "data", train=train, validation=validation)
    return TinyInputs(vocabulary, checkpoint, data_dir)


@contextlib.contextmanager
def frozen_stays() -> Iterator[None]:
    """Fails unless runs are trained inside, from the same frozen weights, whose bits are after each what they were."""
    digests, loop = [], train.loop

    def watched(run, *args, **kwargs):
        digests.append(digest.params_digest(tree.flatten(run.frozen)))
        results = loop(run, *args, **kwargs)
        digests.append(digest.params_digest(tree.flatten(run.frozen)))
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "loop", watched)
        yield
    assert len(set(digests)) == 1
