"""The model against T5X's and the authors' numbers, and what a prompt may and may not change."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from tests import both_layouts
from tests.helpers import tiny_config
from tests.models.conftest import logits_of, make_model, max_difference, param_shapes

TOLERANCE = 2e-5


def _loss(logits, targets, weights):
    log_z = jax.nn.logsumexp(logits, axis=-1)
    correct = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jnp.sum((log_z - correct + 1e-4 * log_z**2) * weights)


# Without recomputation, tests/parity compares it.
@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("remat_policy", ["minimal", "full"])
def test_prompt_gradient_is_the_authors(reference, scan_layers, remat_policy):
    model = make_model(scan_layers=scan_layers, remat_policy=remat_policy)
    frozen = both_layouts.to_scanned(reference.frozen) if scan_layers else reference.frozen
    weights = jnp.asarray(reference.batch["decoder_loss_weights"], jnp.float32)

    def loss(prompt):
        params = tree.unflatten({**frozen, PROMPT_PATH: prompt})
        logits = model.apply({"params": params}, *reference.tokens, enable_dropout=False)
        return _loss(logits, reference.tokens[2], weights)

    value, grad = jax.jit(jax.value_and_grad(loss))(jnp.asarray(reference.prompt))
    assert abs(float(value) - reference.forward["loss"]) <= 1e-6 * abs(reference.forward["loss"])
    expected = reference.forward["grad_prompt"]
    assert max_difference(grad, expected) <= 1e-5 * np.abs(expected).max()


def test_remat_policies_are_carried_out(reference):
    """The backward pass of each policy recomputes more matrix products than that of the one before."""
    counts = []
    for policy in ("none", "minimal", "full"):
        model = make_model(None, remat_policy=policy)

        def total(params, model=model):
            variables = {"params": params}
            logits: Any = model.apply(variables, *reference.tokens, enable_dropout=False)
            return jnp.sum(logits)

        jaxpr = jax.make_jaxpr(jax.grad(total))(tree.unflatten(reference.frozen))
        counts.append(str(jaxpr).count("dot_general"))
    assert counts[0] < counts[1] < counts[2], counts


def test_bfloat16_activations(reference):
    model, real = make_model(dtype="bfloat16"), reference.is_target
    logits = logits_of(model, reference.params, reference.tokens)
    assert logits.dtype == np.float32
    # bfloat16 itself moves these logits (up to 7.6) by 0.089 in the authors' code.
    assert max_difference(logits[real], reference.forward_bf16["logits"][real]) <= 0.15
    assert max_difference(logits[real], reference.forward["logits"][real]) <= 0.15
    encoded = jax.eval_shape(
        lambda p: model.apply(
            {"params": p}, reference.tokens[0], enable_dropout=False, method=model.encode
        ),
        tree.unflatten(reference.params),
    )
    assert encoded.dtype == jnp.bfloat16


def test_frozen_bfloat16_weights_with_float32_prompt(reference):
    """Weights are cast where they are used: stored in bfloat16 they give what their rounded values give."""
    model, real = make_model(dtype="bfloat16"), reference.is_target
    stored = {path: jnp.asarray(leaf, jnp.bfloat16) for path, leaf in reference.frozen.items()}
    rounded = {path: leaf.astype(jnp.float32) for path, leaf in stored.items()}
    prompt = {PROMPT_PATH: jnp.asarray(reference.prompt)}
    logits = logits_of(model, {**stored, **prompt}, reference.tokens)
    assert max_difference(logits, logits_of(model, {**rounded, **prompt}, reference.tokens)) == 0.0
    assert max_difference(logits[real], reference.forward_bf16["logits"][real]) <= 0.15


def test_padding_changes_nothing(reference):
    """Longer padding on either side leaves every real logit as it is, also with a prompt."""
    model, real = make_model(), reference.is_target
    inputs, shifted, targets = reference.tokens
    padded = (
        np.pad(inputs, ((0, 0), (0, 9))),
        np.pad(shifted, ((0, 0), (0, 3))),
        np.pad(targets, ((0, 0), (0, 3))),
    )
    logits = logits_of(model, reference.params, reference.tokens)
    longer = logits_of(model, reference.params, padded)
    assert longer.shape == (4, 11, 256)
    assert max_difference(longer[:, :8][real], logits[real]) <= TOLERANCE


def test_prompt_argument_replaces_the_parameter(reference):
    with_parameter = logits_of(make_model(), reference.params, reference.tokens)
    for model in (make_model(None), make_model()):
        passed = logits_of(model, reference.frozen, reference.tokens, prompt=reference.prompt)
        assert max_difference(passed, with_parameter) == 0.0


def test_equal_rows_equal_one_prompt(reference):
    rows = np.repeat(reference.prompt[None], 4, axis=0)
    logits = logits_of(make_model(None), reference.frozen, reference.tokens, prompt=rows)
    one = logits_of(make_model(), reference.params, reference.tokens)
    assert max_difference(logits, one) == 0.0


def test_rows_do_not_see_each_others_prompts(reference):
    """Row i with prompt i equals a batch in which every row has prompt i."""
    prompts = reference.prompt[None] * np.arange(1, 5, dtype=np.float32)[:, None, None]
    model, real = make_model(None), reference.is_target
    mixed = logits_of(model, reference.frozen, reference.tokens, prompt=prompts)
    for i in range(4):
        same = logits_of(model, reference.frozen, reference.tokens, prompt=prompts[i])
        assert max_difference(mixed[i][real[i]], same[i][real[i]]) <= TOLERANCE


@pytest.mark.parametrize("scan_layers", [False, True])
def test_left_padded_prompts_equal_unpadded_ones(reference, scan_layers):
    """A shorter prompt, padded on its left and masked, computes exactly what it computes alone.

    Relative biases depend on distances only, and left padding keeps the distances among real positions: the prompt
    still touches its tokens. (Padding on the right would put a gap between them and move the tokens away.)
    """
    model, real = make_model(None, scan_layers=scan_layers), reference.is_target
    frozen = both_layouts.to_scanned(reference.frozen) if scan_layers else reference.frozen
    lengths = [6, 2, 2, 6]
    # What stands in the padding must not matter, so it is large.
    rows = np.full((4, 6, 32), 50.0, np.float32)
    mask = np.zeros((4, 6), np.int32)
    for i, length in enumerate(lengths):
        rows[i, 6 - length :] = reference.prompt[:length]
        mask[i, 6 - length :] = 1
    padded = logits_of(model, frozen, reference.tokens, prompt=rows, prompt_mask=mask)
    for i, length in enumerate(lengths):
        alone = logits_of(model, frozen, reference.tokens, prompt=reference.prompt[:length])
        assert max_difference(padded[i][real[i]], alone[i][real[i]]) <= TOLERANCE
    every = np.ones_like(mask)
    unmasked = logits_of(model, frozen, reference.tokens, prompt=rows, prompt_mask=every)
    assert max_difference(padded[real], unmasked[real]) > 0.1


def _packed(reference) -> tuple[Any, dict[str, Any], Any]:
    """Two rows of the batch as one packed row, and where each one's targets are."""
    inputs, shifted, targets = reference.tokens
    n, t = (inputs[:2] > 0).sum(1), (targets[:2] > 0).sum(1)
    join = lambda x, sizes: np.concatenate([x[i, : sizes[i]] for i in range(2)])[None]  # noqa: E731
    segments = lambda sizes: np.repeat([1, 2], sizes)[None].astype(np.int32)  # noqa: E731
    tokens = (join(inputs, n), join(shifted, t), join(targets, t))
    return tokens, {"encoder_segment_ids": segments(n), "decoder_segment_ids": segments(t)}, t


def test_packed_examples_equal_separate_ones(reference):
    model = make_model(None)
    tokens, segment_ids, sizes = _packed(reference)
    packed = logits_of(model, reference.frozen, tokens, **segment_ids)[0]
    alone = logits_of(model, reference.frozen, reference.tokens)
    assert max_difference(packed[: sizes[0]], alone[0, : sizes[0]]) <= TOLERANCE
    assert max_difference(packed[sizes[0] :], alone[1, : sizes[1]]) <= TOLERANCE


def test_packed_examples_with_prompts_equal_separate_ones(reference):
    """Each example has its own copy of the prompt in front, at the places that `prompt_positions` names."""
    (inputs, shifted, targets), segment_ids, sizes = _packed(reference)
    (boundary,) = np.flatnonzero(np.diff(segment_ids["encoder_segment_ids"][0])) + 1
    places = np.arange(1, 7, dtype=np.int32)

    def with_places(x, first, second):
        parts = (first, x[0, :boundary], second, x[0, boundary:])
        return np.concatenate(parts).astype(np.int32)[None]

    none, one = np.zeros(6), np.ones(6)
    segments = segment_ids["encoder_segment_ids"]
    model = make_model()
    packed = logits_of(
        model,
        reference.params,
        (with_places(inputs, none, none), shifted, targets),
        encoder_segment_ids=with_places(segments, one, 2 * one),
        decoder_segment_ids=segment_ids["decoder_segment_ids"],
        prompt_positions=with_places(np.zeros_like(inputs), places, places),
    )[0]
    alone = logits_of(model, reference.params, reference.tokens)
    assert max_difference(packed[: sizes[0]], alone[0, : sizes[0]]) <= TOLERANCE
    assert max_difference(packed[sizes[0] :], alone[1, : sizes[1]]) <= TOLERANCE


def test_segment_ids_with_a_prompt_are_refused(reference):
    tokens, segment_ids, _ = _packed(reference)
    with pytest.raises(ConfigError, match="pack = False"):
        logits_of(make_model(), reference.params, tokens, **segment_ids)
    with pytest.raises(ConfigError, match="pack = False"):
        logits_of(
            make_model(None), reference.frozen, tokens, prompt=reference.prompt, **segment_ids
        )
    encoded = np.zeros((1, 6 + tokens[0].shape[1], 32), np.float32)
    with pytest.raises(ConfigError, match="pack = False"):
        make_model().apply(
            {"params": tree.unflatten(reference.params)},
            encoded,
            *tokens,
            **segment_ids,
            method="decode",
        )


def test_segment_ids_are_checked(reference):
    tokens, segment_ids, _ = _packed(reference)
    with pytest.raises(ConfigError, match="no decoder_segment_ids"):
        only_encoder = {"encoder_segment_ids": segment_ids["encoder_segment_ids"]}
        logits_of(make_model(None), reference.frozen, tokens, **only_encoder)
    with pytest.raises(ConfigError, match="cannot be decoded"):
        make_model(None).apply(
            {"params": tree.unflatten(reference.frozen)},
            *tokens,
            **segment_ids,
            enable_dropout=False,
            decode=True,
            mutable=["cache"],
        )


@pytest.mark.parametrize(
    ("prompt", "prompt_mask", "message"),
    [
        (np.zeros((6, 31), np.float32), None, r"got \(6, 31\), expected \[P, 32\]"),
        (np.zeros((3, 6, 32), np.float32), None, r"got \(3, 6, 32\)"),
        (np.zeros((6, 32), np.float32), np.ones((4, 5), np.int32), r"got \(4, 5\).*\(4, 6\)"),
        (None, np.ones((4, 6), np.int32), r"got \(4, 6\).*\(4, 0\)"),
    ],
)
def test_unfitting_prompts_are_refused(reference, prompt, prompt_mask, message):
    with pytest.raises(ConfigError, match=message):
        make_model(None).apply(
            {"params": tree.unflatten(reference.frozen)},
            *reference.tokens,
            enable_dropout=False,
            prompt=prompt,
            prompt_mask=prompt_mask,
        )


def test_encoder_output_shorter_than_tokens_is_refused(reference):
    encoded = np.zeros((4, 10, 32), np.float32)
    with pytest.raises(ConfigError, match="got '10 positions', expected at least the 24 tokens"):
        make_model(None).apply(
            {"params": tree.unflatten(reference.frozen)},
            encoded,
            *reference.tokens,
            enable_dropout=False,
            method="decode",
        )


def test_tied_head_is_the_rescaled_table(reference):
    """T5 1.0: one projection named `wi`, no output matrix; the logits are those of the table / sqrt(H)."""
    tied = T5(tiny_config(dropout_rate=0.0, mlp_activations=("relu",), logits_via_embedding=True))
    untied = T5(tiny_config(dropout_rate=0.0, mlp_activations=("relu",)))
    params = {
        path.replace("wi_0", "wi"): leaf
        for path, leaf in reference.frozen.items()
        if "wi_1" not in path
    }
    assert set(param_shapes(untied.config)) == set(params)
    assert "encoder/layers_0/mlp/wi/kernel" in params
    table = params["token_embedder/embedding"]
    without_head = {path: leaf for path, leaf in params.items() if "logits_dense" not in path}
    assert set(param_shapes(tied.config)) == set(without_head)
    logits = logits_of(tied, without_head, reference.tokens)
    head = {"decoder/logits_dense/kernel": table.T / np.sqrt(np.float32(32))}
    expected = logits_of(untied, {**params, **head}, reference.tokens)
    assert max_difference(logits, expected) <= TOLERANCE


def test_t5x_reads_scan_layers_from_the_module():
    assert make_model(scan_layers=True).scan_layers is True
    assert make_model().scan_layers is False
