"""Initial values of a prompt."""

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.initializers import (
    ClassLabels,
    FromFile,
    FromText,
    SampledVocab,
    Uniform,
    build_prompt,
)

V, H = 6000, 8


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """Row i starts with i, so that a row tells where it is from."""
    rows = np.random.default_rng(0).normal(size=(V, H)).astype(np.float32)
    rows[:, 0] = np.arange(V)
    return rows


def encode_text(text: str) -> list[int]:
    """One id per word: its length."""
    return [len(word) for word in text.split()]


@pytest.fixture
def build(table):
    def build(spec, length=100, **overrides):
        arguments = {"embedding_table": table, "encode_text": encode_text, "rng": jax.random.key(0)}
        return build_prompt(spec, length=length, **{**arguments, **overrides})

    return build


def test_uniform_covers_both_signs(build):
    prompt = np.asarray(build(Uniform(0.5), length=1000))
    assert prompt.shape == (1000, H) and prompt.dtype == np.float32
    assert -0.5 <= prompt.min() < -0.49 and 0.49 < prompt.max() <= 0.5
    assert abs(prompt.mean()) < 0.01 and prompt.std() == pytest.approx(0.5 / 3**0.5, rel=0.02)
    assert np.abs(np.asarray(build(Uniform(2.0)))).max() > 1.5


def test_sampled_rows_are_distinct_and_from_the_population(build, table):
    prompt = np.asarray(build(SampledVocab(), length=4900))
    ids = prompt[:, 0].astype(int)
    assert len(set(ids)) == 4900 and ids.max() < 5000 and ids.min() < 10
    np.testing.assert_array_equal(prompt, table[ids])
    small = np.asarray(build(SampledVocab(population_size=100), length=100))[:, 0].astype(int)
    assert sorted(small) == list(range(100))


def test_sampling_follows_the_key(build):
    first, again = build(SampledVocab()), build(SampledVocab())
    np.testing.assert_array_equal(first, again)
    other = build(SampledVocab(), rng=jax.random.key(1))
    assert not np.array_equal(first, other)


def test_a_table_smaller_than_the_population_is_drawn_from_whole(build, table):
    prompt = build(SampledVocab(), length=50, embedding_table=table[:60])
    ids = np.asarray(prompt)[:, 0].astype(int)
    assert len(set(ids)) == 50 and ids.max() < 60
    with pytest.raises(ConfigError, match="population_size = 5000 of 60.*PROMPT_LENGTH = 61"):
        build(SampledVocab(), length=61, embedding_table=table[:60])


def test_labels_are_means_of_their_tokens(build, table):
    prompt = build(ClassLabels(["aaa", "bb cccc ddddd"]), length=10)
    assert prompt.shape == (10, H)
    np.testing.assert_array_equal(prompt[0], table[3])
    np.testing.assert_allclose(prompt[1], table[[2, 4, 5]].mean(axis=0), rtol=1e-6)
    # The remaining rows are those of the same draw without labels.
    np.testing.assert_array_equal(prompt[2:], build(SampledVocab(), length=10)[2:])


@pytest.mark.parametrize("length", [3, 2, 1])
def test_labels_without_a_row_are_left_out_and_it_is_said(build, table, caplog, length):
    prompt = build(ClassLabels(("a", "bb", "ccc")), length=length)
    np.testing.assert_array_equal(prompt, table[1 : 1 + length])
    said = f"The prompt has {length} rows for 3 labels: only the first are used."
    assert caplog.messages == ([] if length == 3 else [said])


def test_labels_that_cannot_be_embedded_are_refused(build):
    labels = ("a", "bb", "ccc")
    with pytest.raises(ConfigError, match="has no tokens: got ' '"):
        build(ClassLabels(("a", " ")), length=5)
    with pytest.raises(ConfigError, match="token id 30', expected ids below 20"):
        build(ClassLabels(("x" * 30,)), length=5, embedding_table=np.zeros((20, H), np.float32))
    with pytest.raises(ConfigError, match="put the labels into a list"):
        ClassLabels("True")
    with pytest.raises(ConfigError, match="bind VOCABULARY"):
        build(ClassLabels(labels), encode_text=None)


def test_text_fills_rows_in_order(build, table):
    prompt = build(FromText("a bb ccc"), length=5)
    np.testing.assert_array_equal(prompt[:3], table[[1, 2, 3]])
    np.testing.assert_array_equal(prompt[3:], build(SampledVocab(), length=5)[3:])


def test_long_text_is_cut_and_said_so(build, table, caplog):
    prompt = build(FromText("a bb ccc"), length=2)
    np.testing.assert_array_equal(prompt, table[[1, 2]])
    assert "The prompt has 2 rows for 3 tokens: only the first are used." in caplog.text


@pytest.mark.parametrize("suffix", [".npy", ""])
def test_file_with_or_without_suffix(build, tmp_path, suffix):
    prompt = np.random.default_rng(1).normal(size=(12, H)).astype(np.float32)
    path = tmp_path / f"encoder.prompt.prompt.prompt{suffix}"
    with path.open("wb") as file:
        np.save(file, prompt)
    loaded = build(FromFile(str(path)), length=12)
    assert isinstance(loaded, jax.Array)
    np.testing.assert_array_equal(loaded, prompt)
    with pytest.raises(ConfigError, match="12 rows.*PROMPT_LENGTH = 100.*set PROMPT_LENGTH = 12"):
        build(FromFile(str(path)))


def test_file_of_another_width_names_both(build, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((100, 768), np.float32))
    with pytest.raises(CheckpointError, match="got 'width 768', expected the model's width 8"):
        build(FromFile(str(tmp_path / "wide.npy")))
    with pytest.raises(CheckpointError, match="width 768"):
        build(SampledVocab(embedding_file=str(tmp_path / "wide.npy")))


def test_embedding_file_takes_the_tables_place(build, tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.full((50, H), 7, np.float32))
    assert (np.asarray(build(SampledVocab(embedding_file=str(path)), length=20)) == 7).all()


@pytest.mark.parametrize(
    "spec", [SampledVocab(), ClassLabels(("aaa", "bb cc")), FromText("a bb"), Uniform()]
)
def test_sharded_tables_give_the_same_prompt(build, table, spec):
    mesh = Mesh(np.asarray(jax.devices()).reshape(-1), ("model",))
    assert mesh.size == 8
    sharded = jax.device_put(table, NamedSharding(mesh, PartitionSpec("model")))
    expected = np.asarray(build(spec))
    np.testing.assert_allclose(build(spec, embedding_table=sharded), expected, rtol=1e-6)
    replicated = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(
        functools.partial(build_prompt, spec, length=100, encode_text=encode_text),
        out_shardings=replicated,
    )
    prompt = jitted(embedding_table=sharded, rng=jax.random.key(0))
    np.testing.assert_allclose(prompt, expected, rtol=1e-6)


def test_bfloat16_tables_give_float32_prompts(build, table):
    rounded = jnp.asarray(table, jnp.bfloat16)
    prompt = build(ClassLabels(("aaa", "bb cccc")), embedding_table=rounded)
    assert prompt.dtype == jnp.float32
    wide = np.asarray(rounded, np.float32)
    np.testing.assert_array_equal(prompt[1], wide[[2, 4]].mean(axis=0))


def test_plain_functions_pass(build):
    prompt = build(lambda rng, shape: jnp.full(shape, 2.0), length=4)
    np.testing.assert_array_equal(prompt, np.full((4, H), 2.0))


def test_t5x_form_needs_no_model(build, table, tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, table)
    vocabulary: Any = types.SimpleNamespace(encode=encode_text)
    init = initializers.t5x_initializer(ClassLabels(("aaa",), embedding_file=str(path)), vocabulary)
    np.testing.assert_array_equal(
        init(jax.random.key(0), (9, H)), build(ClassLabels(("aaa",)), length=9)
    )
    assert initializers.t5x_initializer(Uniform())(jax.random.key(0), (9, H)).shape == (9, H)
    with pytest.raises(ConfigError, match="bind EMBEDDING_FILE"):
        initializers.t5x_initializer(SampledVocab())
