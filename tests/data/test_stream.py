"""The stream from any position on is SeqIO's own; what is skipped is not preprocessed where order does not matter."""

import functools
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import pipelines, stream
from prompt_tuning.data.preprocessors import is_of_each_example, mapped, of_each_example
from prompt_tuning.data.text.token_chunks import seeded_map

LENGTHS = {"inputs": 12, "targets": 12}
EXAMPLES = 30
CACHE = seqio.CacheDatasetPlaceholder()
TAIL = (seqio.preprocessors.tokenize, CACHE, seqio.preprocessors.append_eos_after_trim)


def source():
    def read(split, shuffle_files, seed=None):
        del split, shuffle_files, seed
        return tf.data.Dataset.range(EXAMPLES).map(lambda i: {"number": i})

    return seqio.FunctionDataSource(read, splits=["train"], num_input_examples={"train": EXAMPLES})


def text_of(example):
    number = tf.strings.as_string(example["number"])
    return {"inputs": tf.strings.join(["example ", number]), "targets": number}


def draw(example, seed):
    """Text that differs from epoch to epoch."""
    noise = tf.random.stateless_uniform([], seed, maxval=1000, dtype=tf.int32)
    return {**example, "inputs": tf.strings.join([example["inputs"], tf.strings.as_string(noise)])}


def cut(example, seed):
    """Ids that differ from epoch to epoch."""
    size = tf.random.stateless_uniform([], seed, minval=1, maxval=6, dtype=tf.int32)
    return {**example, "inputs": example["inputs"][:size]}


def twice(ds):
    return ds.flat_map(lambda x: tf.data.Dataset.from_tensors(x).repeat(2))


def odd(ds):
    return ds.filter(lambda example: example["number"] % 2 == 1)


TEXT = mapped(text_of)
PIPELINES = {
    "of each example": (TEXT, *TAIL),
    "several of one": (odd, TEXT, twice, *TAIL),
    "drawn as text": (TEXT, lambda ds: seeded_map(ds, draw), *TAIL),
    "drawn behind the cache": (TEXT, *TAIL[:2], lambda ds: seeded_map(ds, cut), TAIL[2]),
    "no place for a cache": (TEXT, TAIL[0], TAIL[2]),
}


def task_of(preprocessors, name="a_task_of_the_test"):
    vocabulary = seqio.ByteVocabulary()
    features = {
        name: seqio.Feature(vocabulary=vocabulary, add_eos=True) for name in ("inputs", "targets")
    }
    return seqio.Task(
        name,
        source=source(),
        output_features=features,
        preprocessors=preprocessors,
        shuffle_buffer_size=8,
    )


def taken(ds, count):
    """The first elements, as {feature: list}."""
    options = tf.data.Options()
    options.deterministic = True
    found = itertools.islice(pipelines.numpy_iterator(ds.with_options(options)), count)
    return [{name: example[name].tolist() for name in LENGTHS} for example in found]


def endless(provider, start):
    return stream.endless(
        provider, LENGTHS, split="train", use_cached=False, shuffle=True, seed=4, start=start
    )


def seqios_own(provider):
    return provider.get_dataset(LENGTHS, split="train", shuffle=True, seed=4, num_epochs=None)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_task_is_seqios_own_from_any_position(name):
    task = task_of(PIPELINES[name])
    whole = taken(seqios_own(task), 120)
    for start in (0, 7, 95):
        assert taken(endless(task, start), 20) == whole[start : start + 20]
    assert len({tuple(example["targets"]) for example in whole}) in (EXAMPLES // 2, EXAMPLES)


@pytest.mark.parametrize(
    ("left_out", "shared"), [("", TAIL[2:]), ("drawn behind the cache", (TAIL[0], TAIL[2]))]
)
def test_a_mixture_is_seqios_own_from_any_position(left_out, shared):
    pipelines_of = {n: p for n, p in PIPELINES.items() if n != left_out}
    tasks = [task_of(p, f"{n.replace(' ', '_')}_task") for n, p in pipelines_of.items()]
    assert tuple(stream._shared_end(tasks, use_cached=False)) == shared
    inner = seqio.Mixture("inner", [(tasks[0], 1), (tasks[1], 3)])
    mixture = seqio.Mixture("outer", [(inner, 1), *((task, 0.7) for task in tasks[2:])])
    whole = taken(seqios_own(mixture), 400)
    for start in (0, 7, 370):
        assert taken(endless(mixture, start), 20) == whole[start : start + 20]


def test_a_task_of_a_class_of_its_own_is_read_as_it_reads_itself():
    class Doubled(seqio.Task):
        def get_dataset(self, *args, **kwargs):
            return twice(super().get_dataset(*args, **kwargs))

    plain = task_of(PIPELINES["of each example"])
    task = Doubled(
        "doubled",
        source=plain.source,
        output_features=plain.output_features,
        preprocessors=plain.preprocessors,
    )
    assert taken(endless(task, 5), 10) == taken(seqios_own(task), 15)[5:]


def test_what_is_skipped_is_not_preprocessed():
    calls = []

    def count(number):
        calls.append(int(number))
        return np.bytes_(str(number))

    def counted(example):
        text = tf.numpy_function(count, [example["number"]], tf.string)
        return {"inputs": tf.ensure_shape(text, []), "targets": tf.ensure_shape(text, [])}

    taken(endless(task_of((mapped(counted), *TAIL)), 10_000), 1)
    # tf.data reads ahead, but not ten thousand.
    assert 0 < len(calls) < 600


def test_only_what_was_declared_makes_each_example_by_itself():
    assert is_of_each_example(functools.partial(seqio.preprocessors.tokenize, with_eos=True))
    assert is_of_each_example(TEXT)
    for other in (twice, odd, lambda ds: ds, CACHE, functools.partial(twice)):
        assert not is_of_each_example(other)

    def shorten(ds):
        return ds

    assert is_of_each_example(of_each_example(shorten))
