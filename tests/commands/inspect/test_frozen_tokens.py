"""The embedding table is read alone and in stored blocks."""

import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands.inspect import frozen_tokens, neighbours
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.memory_source import MemorySource
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.commands.inspect import planted

EMBEDDING = "token_embedder/embedding"


def test_only_the_table_is_read_each_number_once_in_whole_blocks(monkeypatch):
    monkeypatch.setattr(frozen_tokens, "_ROWS_AT_ONCE", 25)
    table = planted.make_table(100, np.random.default_rng(0))
    source = MemorySource({EMBEDDING: table, "decoder/logits_dense/kernel": table.T}, 10)
    np.testing.assert_array_equal(frozen_tokens.read_table(source, planted.WIDTH), table)
    assert source.reads == [EMBEDDING] * 7
    assert (source.seen[EMBEDDING] == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_t5x_checkpoint_s_table_is_read_as_float32(tmp_path, dtype):
    table = planted.make_table(100, np.random.default_rng(0)).astype(jnp.dtype(dtype))
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", {EMBEDDING: table}, 7)
    found = frozen_tokens.read_table(open_source(path), planted.WIDTH)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, table.astype(np.float32))


def test_a_checkpoint_of_another_width_or_without_a_table_is_refused():
    table = np.ones((4, 8), np.float32)
    with pytest.raises(
        CheckpointError, match=r"table \[4, 8\]', expected one of the prompt's width 16"
    ):
        frozen_tokens.read_table(MemorySource({EMBEDDING: table}), 16)
    with pytest.raises(CheckpointError, match="got 'no token_embedder/embedding'.*--checkpoint"):
        frozen_tokens.read_table(MemorySource({"other": table}), 8)


def test_a_larger_vocabulary_is_refused():
    with pytest.raises(CheckpointError, match="got '101 ids', expected at most 100"):
        frozen_tokens.make_tokens(np.ones((100, 4), np.float32), planted.Words(101))


def test_a_token_has_one_near_token_on_average():
    tokens = planted.make_tokens()
    units = neighbours.unit(tokens.table[:1000])
    cosines = units @ units.T - 2 * np.eye(1000)
    # Estimated from a quarter of the tokens, by which a thousand pairs are counted to about a tenth.
    assert (cosines >= tokens.near_cosine).sum() == pytest.approx(1000, rel=0.2)


def test_the_mean_norm_is_that_of_tokens_alone():
    tokens = planted.make_tokens()
    norms = np.linalg.norm(tokens.table[:1000], axis=1)
    assert tokens.mean_norm() == pytest.approx(norms.mean(), rel=1e-5)


def test_tokens_are_written_as_the_vocabulary_keeps_them(tiny_vocabulary):
    words = seqio.SentencePieceVocabulary(str(tiny_vocabulary), extra_ids=4)
    table = np.random.default_rng(0).normal(size=(words.vocab_size, 8)).astype(np.float32)
    tokens = frozen_tokens.make_tokens(table, words)
    assert tokens.text_of(1) == "</s>"
    assert tokens.text_of(words.encode("movie")[0]).startswith("▁")
    assert "<extra_id_0>" in tokens.text_of(words.vocab_size - 1)
    table = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    tokens = frozen_tokens.make_tokens(table, seqio.ByteVocabulary())
    assert tokens.text_of(seqio.ByteVocabulary().encode("a")[0]) == "a"
    assert tokens.text_of(0) == "<0>"
