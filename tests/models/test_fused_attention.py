"""Attention as one kernel: the numbers of plain attention, forward and backward, and where it is chosen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from prompt_tuning import tree
from prompt_tuning.models import attention_kernel, fused_attention, masks, stacks
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import tiny_config

# Two heads fill a TPU's lanes.
CONFIG = tiny_config(
    head_dim=64,
    num_heads=4,
    num_encoder_layers=1,
    dropout_rate=0.3,
    attention="plain",
)
EVERYTHING = (".*",)
PROMPT = ("prompt/.*",)
BIAS = (".*/rel_embedding",)


@pytest.fixture
def kernel(monkeypatch):
    """Has "auto" mean the given kernel, run on this CPU; tells which backward passes gave the bias' gradient."""
    asked = []

    def use(name: str) -> list[bool]:
        def choose(config, query, key, mask, bias):
            fits = bias is not None and query.shape[1] >= 14
            return name if config.attention == "auto" and fits else None

        monkeypatch.setattr(fused_attention, "choose", choose)
        backward, product = attention_kernel.backward, jax.nn.dot_product_attention

        def recorded(*arguments, with_bias, **kwargs):
            asked.append(with_bias)
            return backward(*arguments, with_bias=with_bias, **kwargs)

        monkeypatch.setattr(attention_kernel, "backward", recorded)
        monkeypatch.setattr(
            jax.nn,
            "dot_product_attention",
            lambda *args, implementation, **kw: product(*args, implementation="xla", **kw),
        )
        return asked

    return use


def gradients(config, regex, *, is_packed=False, partitioner=None, padding=0, trimmed=0):
    """Loss and gradients of an encoder, dropout included, by the parameters that the patterns select.

    Of eight rows of 14 tokens a third is padded, or two examples share each row. Behind all of them there may be more
    padding, or some that was trimmed.
    """
    rng = np.random.default_rng(0)
    batch = {
        "embedded": rng.normal(size=(8, 14, config.emb_dim)).astype(np.float32),
        "tokens": rng.integers(3, 60, (8, 14)).astype(np.int32),
    }
    batch["tokens"][::3, 9:] = 0
    if is_packed:
        is_token = batch["tokens"] > 0
        batch["segment_ids"] = np.where(is_token, 1 + (np.arange(14) > 5), 0).astype(np.int32)
    batch = {
        name: np.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        for name, x in batch.items()
    }
    encoder = stacks.Encoder(config, None if is_packed else PromptConfig(4))
    init = functools.partial(encoder.init, deterministic=True)
    params = jax.jit(init)({"params": jax.random.key(0)}, batch["embedded"], batch["tokens"])
    trainable, frozen = tree.split(params["params"], regex)

    def loss(trainable, frozen, batch):
        encoded = encoder.apply(
            {"params": tree.merge(trainable, frozen)},
            **batch,
            deterministic=False,
            trimmed=trimmed,
            rngs={"dropout": jax.random.key(5)},
        )
        assert isinstance(encoded, jax.Array), "no collection is mutable"
        tokens = encoded[:, -batch["tokens"].shape[1] :]
        is_real = (batch["tokens"] > 0)[..., None].astype(jnp.float32)
        return jnp.sum(is_real * tokens * batch["embedded"]) + jnp.sum(is_real * tokens**4)

    run = jax.jit(jax.value_and_grad(loss))
    if partitioner is None:
        return run(trainable, frozen, batch)
    with partitioner.activate():
        return run(trainable, frozen, partitioner.shard_batch(batch))


def assert_same(got, expected):
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    got, expected = tree.flatten(got[1]), tree.flatten(expected[1])
    assert set(got) == set(expected)
    for path, gradient in expected.items():
        scale = np.abs(gradient).max()
        assert scale > 0, path
        assert np.abs(got[path] - gradient).max() <= 1e-5 * scale, path


@pytest.mark.parametrize(
    ("name", "regex", "changes"),
    [
        ("tpu", EVERYTHING, {}),
        ("tpu", PROMPT, {"scan_layers": True, "remat_policy": "minimal"}),
        ("cudnn", EVERYTHING, {}),
    ],
)
def test_loss_and_gradients_are_those_of_plain_attention(kernel, name, regex, changes):
    asked = kernel(name)
    config = dataclasses.replace(CONFIG, **changes)
    fused = gradients(dataclasses.replace(config, attention="auto"), regex)
    assert_same(fused, gradients(config, regex))
    if name == "tpu":
        # A frozen bias costs nothing, a trained one gets its gradient.
        assert asked and set(asked) == {regex != PROMPT}


def test_trimmed_rows_drop_what_whole_ones_do(kernel):
    kernel("tpu")
    config = dataclasses.replace(CONFIG, attention="auto")
    assert_same(gradients(config, PROMPT, trimmed=5), gradients(config, PROMPT, padding=5))


def test_examples_packed_into_a_row_stay_apart(kernel):
    kernel("tpu")
    fused = gradients(dataclasses.replace(CONFIG, attention="auto"), BIAS, is_packed=True)
    assert_same(fused, gradients(CONFIG, BIAS, is_packed=True))


def test_each_device_works_on_its_examples_and_heads(kernel):
    kernel("tpu")
    config = dataclasses.replace(CONFIG, scan_layers=True, remat_policy="full")
    spread = gradients(
        dataclasses.replace(config, attention="auto"),
        EVERYTHING,
        partitioner=PjitPartitioner(num_partitions=2),
    )
    assert_same(spread, gradients(config, EVERYTHING))


def test_queries_in_chunks_under_a_mask_of_pairs_with_keys_in_front(monkeypatch):
    monkeypatch.setattr(attention_kernel, "_CHUNK", 8)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    # A prefix of three.
    arrays = (*(draw(2, n, 2, 64) for n in (20, 23, 23)), draw(1, 2, 20, 23))
    mask = jnp.tril(jnp.ones((2, 1, 20, 23), bool), 3)

    def plain(query, key, value, bias):
        logits = jnp.einsum("bqnd,bknd->bnqk", query, key) + bias + masks.mask_bias(mask)
        return jnp.einsum("bnqk,bknd->bqnd", jax.nn.softmax(logits), value)

    def fused(query, key, value, bias):
        return fused_attention.attend("tpu", query, key, value, mask, bias)

    got, expected = (
        jax.jit(jax.grad(lambda *x, f=f: jnp.sum(f(*x) ** 2), argnums=(0, 1, 2, 3)))(*arrays)
        for f in (fused, plain)
    )
    for gradient, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("platform", "kind", "changes", "expected"),
    [
        ("tpu", "TPU v5 lite", {}, "tpu"),
        ("tpu", "TPU v5 lite", {"dtype": "float32"}, "tpu"),
        ("tpu", "TPU v5 lite", {"length": 128}, "tpu"),
        ("tpu", "TPU v5 lite", {"length": 127}, None),
        ("tpu", "TPU v5 lite", {"heads": 6}, None),
        ("tpu", "TPU v5 lite", {"prefix": 10}, "tpu"),
        ("tpu", "TPU v5 lite", {"prefix": 600}, None),
        ("tpu", "TPU v5 lite", {"attention": "plain"}, None),
        ("tpu", "TPU v3", {}, None),
        ("gpu", "NVIDIA H100 80GB HBM3", {}, None),
        ("gpu", "NVIDIA H100 80GB HBM3", {"attention": "cudnn"}, "cudnn"),
        ("gpu", "NVIDIA H100 80GB HBM3", {"attention": "cudnn", "dtype": "float32"}, None),
        ("gpu", "NVIDIA H100 80GB HBM3", {"attention": "cudnn", "length": 613}, None),
        ("gpu", "NVIDIA H100 80GB HBM3", {"attention": "cudnn", "prefix": 3}, None),
        ("gpu", "NVIDIA H100 80GB HBM3", {"attention": "cudnn", "pairs": True}, None),
        ("cpu", "cpu", {}, None),
    ],
)
def test_the_devices_and_the_shapes_decide(platform, kind, changes, expected):
    case = {"dtype": "bfloat16", "length": 612, "heads": 8, "attention": "auto", "pairs": False}
    case |= {"prefix": 0, **changes}
    length, heads = case["length"], case["heads"]
    keys = length + case["prefix"]
    config = dataclasses.replace(CONFIG, attention=case["attention"])
    partitioner = PjitPartitioner(num_partitions=2)
    device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    mesh = AbstractMesh((4, 2), ("data", "model"), abstract_device=device)
    shapes = (
        jax.ShapeDtypeStruct((8, length, heads, 64), case["dtype"]),
        jax.ShapeDtypeStruct((8, keys, heads, 64), case["dtype"]),
        jax.ShapeDtypeStruct((8, 1, length if case["pairs"] else 1, keys), bool),
        jax.ShapeDtypeStruct((1, heads, length, keys), case["dtype"]),
    )
    with partitioner.activate(), jax.sharding.use_abstract_mesh(mesh):
        chosen = fused_attention.choose(config, *shapes)
    assert chosen == expected
