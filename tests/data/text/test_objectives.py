"""The objectives of language modelling where T5's examples, which `tests/parity` compares, do not reach."""

import collections
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data.text import denoising, noise_masks, objectives, token_chunks
from prompt_tuning.data.text.prefix_packing import pack_prefix_lm
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.errors import DataError
from tests.helpers import GOLDEN
from tests.parity import golden_lm

VOCABULARY = seqio.PassThroughVocabulary(size=32_100, eos_id=1)
FEATURES = {name: seqio.Feature(VOCABULARY, add_eos=True) for name in ("inputs", "targets")}
LENGTHS = {"inputs": 16, "targets": 16}


def test_a_difference_is_counted(tmp_path):
    folder = tmp_path / "lm"
    folder.mkdir()
    for file in (GOLDEN / "lm").iterdir():
        text = file.read_text()
        if file.name == "noise_masks.json":
            text = text.replace('"mask": [0, 0, 0', '"mask": [0, 0, 1', 2)
        (folder / file.name).write_text(text)
    first = itertools.islice(golden_lm.comparisons(tmp_path), 4)
    assert [row.measured for row in first] == [2, 0, 0, 0]


def documents(*lengths):
    """Documents of consecutive ids from 3 on, so that nothing is lost or doubled unseen."""
    starts = np.cumsum([3, *lengths])
    return [list(range(a, a + n)) for a, n in zip(starts, lengths, strict=False)]


def dataset(docs):
    return tf.data.Dataset.from_generator(
        lambda: ({"targets": doc} for doc in docs),
        output_signature={"targets": tf.TensorSpec([None], tf.int32)},
    )


def run(fn, docs, seed=0, **kwargs):
    with seqio.map_seed_manager(seed):
        return [
            {key: value.tolist() for key, value in example.items()}
            for example in fn(dataset(docs), **kwargs).as_numpy_iterator()
        ]


def objective(fn, docs, seed=0, lengths=LENGTHS):
    return run(fn, docs, seed, sequence_length=lengths, output_features=FEATURES)


def flat(examples, feature="targets"):
    return [token for example in examples for token in example[feature]]


def test_prefix_lm_splits_every_segment_once_and_loses_nothing():
    docs = documents(100, 1, 31, 15)
    examples = objective(objectives.prefix_lm, docs)
    whole = [example["inputs"] + example["targets"] for example in examples]
    assert [len(segment) for segment in whole] == [15] * 6 + [10, 1, 15, 15, 1, 15]
    assert sum(whole, []) == sum(docs, [])
    for example, segment in zip(examples, whole, strict=True):
        assert len(example["targets"]) >= 1
        assert len(example["inputs"]) >= min(1, len(segment) - 1)


def test_the_split_of_prefix_lm_is_uniform():
    splits = [
        len(e["inputs"]) for e in objective(objectives.prefix_lm, documents(*[5] * 1000), seed=3)
    ]
    counts = collections.Counter(splits)
    assert sorted(counts) == [1, 2, 3, 4]
    # 250 expected each; six standard deviations are 82.
    assert all(abs(count - 250) < 82 for count in counts.values())


def test_span_corruption_fills_the_inputs_and_can_be_undone():
    docs = documents(40, 7, 300, 60)
    lengths = {"inputs": 64, "targets": 32}
    examples = objective(objectives.span_corruption, docs, lengths=lengths)
    num_tokens, targets_length = objectives.span_corruption_lengths(64, 0.15, 3.0)
    assert (num_tokens, targets_length) == (70, 14)
    for example in examples[:-1]:
        assert len(example["inputs"]) + 1 == 64 and len(example["targets"]) + 1 == targets_length
    assert sum((undo(example) for example in examples), []) == sum(docs, [])


def undo(example):
    """The segment that span corruption took apart."""
    spans, sentinel = {}, None
    for token in example["targets"]:
        if token > 32_000:
            sentinel = token
            spans[sentinel] = []
        else:
            spans[sentinel].append(token)
    assert list(spans) == sorted(spans, reverse=True) and next(iter(spans)) == 32_099
    return sum((spans[t] if t > 32_000 else [t] for t in example["inputs"]), [])


def test_the_share_of_noise_is_fifteen_percent():
    examples = objective(
        objectives.span_corruption, documents(5000), lengths={"inputs": 512, "targets": 114}
    )
    noise = sum(token < 32_000 for token in flat(examples))
    assert noise == pytest.approx(0.15 * 5000, abs=5)


@pytest.mark.parametrize("fn", [objectives.prefix_lm, objectives.span_corruption])
def test_a_seed_fixes_the_examples(fn):
    docs = documents(100, 50)
    # Where a segment has one span only, T5 puts it at the end.
    lengths = {"inputs": 64, "targets": 32}
    first = objective(fn, docs, seed=1, lengths=lengths)
    assert first == objective(fn, docs, seed=1, lengths=lengths)
    assert first != objective(fn, docs, seed=2, lengths=lengths)


@pytest.mark.parametrize("fn", [objectives.prefix_lm, objectives.span_corruption])
def test_empty_documents_are_left_out(fn):
    examples = objective(fn, [[], *documents(40), []])
    assert examples and all(example["targets"] for example in examples)


def test_one_chunk_of_a_long_document_is_kept():
    docs = documents(10) * 400
    chunks = run(token_chunks.select_random_chunk, docs, max_tokens=4)
    firsts = collections.Counter(tuple(chunk["targets"]) for chunk in chunks)
    assert sorted(firsts) == [(3, 4, 5, 6), (7, 8, 9, 10), (11, 12)]
    # 133 expected each; six standard deviations are 57.
    assert all(abs(count - 133) < 57 for count in firsts.values())


def test_documents_are_joined_in_batches():
    joined = run(token_chunks.join_documents, [*documents(3, 2, 4), [9, 0, 9]], num_documents=3)
    assert [example["targets"] for example in joined] == [list(range(3, 12)), [9, 9]]


@pytest.mark.parametrize(("inputs", "targets"), [(512, 113), (16, 4)])
def test_targets_too_short_for_the_spans_are_refused(inputs, targets):
    with pytest.raises(DataError, match=rf"got {targets}, expected at least {targets + 1} tokens"):
        objective(
            objectives.span_corruption,
            documents(9),
            lengths={"inputs": inputs, "targets": targets},
        )


@pytest.mark.parametrize("lengths", [None, {"inputs": 1, "targets": 8}, {"targets": 8}])
def test_a_missing_length_is_named(lengths):
    with pytest.raises(DataError, match=r"TASK_FEATURE_LENGTHS\['inputs'\]"):
        objective(objectives.prefix_lm, documents(9), lengths=lengths)


def test_packing_needs_one_length():
    with pytest.raises(DataError, match="equal lengths"):
        pack_prefix_lm(dataset(documents(8)), {"inputs": 8, "targets": 4})


def test_a_random_roll_keeps_the_spans():
    seeds = [tf.constant(pair, tf.int64) for pair in ([1, 2], [3, 4])]
    plain, rolled = (
        noise_masks.random_spans_noise_mask(0.15, 3.0, random_roll=roll)(tf.constant(30), seeds)
        for roll in (False, True)
    )
    assert not np.array_equal(plain, rolled) and int(np.sum(plain)) == int(np.sum(rolled)) == 4


def test_a_vocabulary_without_sentinels_is_refused(tiny_vocabulary):
    path = str(tiny_vocabulary)
    with_sentinels = sentencepiece_vocabulary(path)
    assert denoising.sentinel_id(with_sentinels) == with_sentinels.vocab_size - 1
    assert with_sentinels.decode([denoising.sentinel_id(with_sentinels)]) == "<extra_id_0>"
    with pytest.raises(DataError, match="`extra_ids` to 100"):
        denoising.sentinel_id(sentencepiece_vocabulary(path, extra_ids=0))
    # ByT5 takes the last byte values for sentinels.
    assert denoising.sentinel_id(seqio.ByteVocabulary()) == 258
