"""Sorted by length, examples give what they give unsorted, in their order; an input is encoded once for its labels."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning.data import widths
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.decoding.sampling import TemperatureSample
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from prompt_tuning.prompts import table
from prompt_tuning.run import evaluators, steps
from prompt_tuning.run.inference import Inference
from prompt_tuning.training.metrics import summarize
from tests.prompts.test_table import make_model, together

LENGTH, TARGETS, ROWS, BATCH = 40, 6, 22, 8
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def every_width_is_worth_it(monkeypatch):
    """A few rows are computed in as many widths as thousands would be."""
    monkeypatch.setattr(widths, "_LEAST_SAVED", 40)
    monkeypatch.setattr(widths, "_LEAST_SHARE", 0)


@functools.cache
def examples():
    """Numbered examples in no order, with inputs and targets of all lengths and a prompt each."""
    rng = np.random.default_rng(0)
    made = []
    for row in range(ROWS):
        inputs, targets = np.zeros(LENGTH, np.int32), np.zeros(TARGETS, np.int32)
        length = [1, 7, LENGTH, 12][row % 4]
        inputs[:length] = rng.integers(2, 256, length)
        targets[: 1 + row % TARGETS] = rng.integers(2, 256, 1 + row % TARGETS)
        features = {
            "encoder_input_tokens": inputs,
            "decoder_target_tokens": targets,
            "decoder_input_tokens": np.concatenate([[0], targets[:-1]]).astype(np.int32),
            "decoder_loss_weights": (targets > 0).astype(np.int32),
            table.INDEX: np.int32(row % 3),
        }
        made.append((100 - row, features))
    return made


def in_one_batch(numbered):
    return {name: np.stack([x[name] for _, x in numbered]) for name in numbered[0][1]}


class Watched:
    """A compiled step that notes the shapes of what it is called with."""

    def __init__(self, step):
        self.step, self.shapes = step, []

    def __call__(self, params, batch, *args):
        self.shapes.append({name: x.shape for name, x in batch.items()})
        return self.step(params, batch, *args)


def watched(model, name, partitioner=None, batch_size=BATCH):
    """An `Inference` and the notes of one of its steps."""
    inference = Inference(model, partitioner or PjitPartitioner(), batch_size)
    notes = Watched(getattr(inference, name))
    setattr(inference, name, notes)
    return inference, notes.shapes


def input_widths(shapes):
    return [shape["encoder_input_tokens"][1] for shape in shapes]


@pytest.mark.parametrize(
    "decode_fn",
    [Greedy(), pytest.param(BeamSearch(), marks=pytest.mark.slow)],
    ids=["greedy", "beam"],
)
def test_sorted_examples_are_answered_as_unsorted_ones(decode_fn):
    model, params = make_model(decode_fn), together()
    inference, shapes = watched(model, "_predict")
    outputs, aux = inference.predict_with_aux(params, examples())
    ids, expected = jax.jit(model.predict)(params, in_one_batch(examples()))
    assert [index for index, _ in outputs] == [index for index, _ in examples()]
    np.testing.assert_array_equal([row for _, row in outputs], ids)
    np.testing.assert_allclose(aux["scores"], expected["scores"], rtol=TOLERANCE, atol=TOLERANCE)
    assert any(EOS_ID in row for _, row in outputs) and len({tuple(r) for _, r in outputs}) > 5
    assert input_widths(shapes) == [LENGTH, 16, 8]
    # What was compiled is used again, by rows that would not be worth a program.
    few = [examples()[i] for i in (1, 3)]
    assert inference.predict(params, few) == [outputs[i] for i in (1, 3)]
    assert input_widths(shapes)[3:] == [16]
    # A longer answer needs a program of its own.
    assert len(inference.predict_with_aux(params, few, TARGETS + 1)[0][0][1]) == TARGETS + 1
    assert inference.predict_with_aux(params, []) == ([], {"scores": []})


@pytest.mark.slow
def test_draws_stay_with_their_rows():
    draws: Any = TemperatureSample(topk=0)
    model, params = make_model(draws), together()
    inference, shapes = watched(model, "_predict")
    numbered = sorted(
        examples()[:16], key=lambda e: len(np.flatnonzero(e[1]["encoder_input_tokens"]))
    )
    outputs = inference.predict(params, numbered)
    assert input_widths(shapes) == [8, LENGTH]
    for start in (0, BATCH):
        batch = in_one_batch(numbered[start : start + BATCH])
        ids, _ = jax.jit(model.predict)(params, batch)
        np.testing.assert_array_equal([row for _, row in outputs[start : start + BATCH]], ids)
    # Fewer rows draw what they would draw in a full batch.
    inference, shapes = watched(model, "_predict", batch_size=2 * BATCH)
    few = inference.predict(params, numbered[:6])
    assert [shape["encoder_input_tokens"][0] for shape in shapes] == [BATCH]
    assert few == outputs[:6]


@pytest.mark.parametrize("splits_length", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sorted_examples_are_scored_as_unsorted_ones(splits_length):
    partitioner = None
    if splits_length:
        rules = dict(standard_logical_axis_rules()) | {"length": "model"}
        partitioner = PjitPartitioner(num_partitions=2, logical_axis_rules=tuple(rules.items()))
    model, params = make_model(), together()
    inference, shapes = watched(model, "_score", partitioner)
    outputs = inference.score(params, examples())
    assert [index for index, _ in outputs] == [index for index, _ in examples()]
    batch = in_one_batch(examples())
    expected = jax.jit(model.score)(params, batch)
    got = np.array([score for _, score in outputs])
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    # The logits of teacher forcing say the same.
    logits = jax.nn.log_softmax(jax.jit(model.apply)(params, batch))
    tokens = np.take_along_axis(np.asarray(logits), batch["decoder_target_tokens"][..., None], 2)
    by_hand = (tokens[..., 0] * batch["decoder_loss_weights"]).sum(axis=1)
    np.testing.assert_allclose(got, by_hand, rtol=TOLERANCE, atol=TOLERANCE)
    assert input_widths(shapes) == [LENGTH, 16, 8]
    # A larger batch has a smaller one behind it.
    inference, shapes = watched(model, "_score", partitioner, 2 * BATCH)
    np.testing.assert_allclose(
        [score for _, score in inference.score(params, examples())],
        expected,
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )
    assert [shape["encoder_input_tokens"] for shape in shapes] == [(16, LENGTH), (8, 8)]


def with_labels():
    """Each input of `examples` with labels of its own, one to five, and the same input with another prompt."""
    numbered = []
    for row, (_, features) in enumerate(examples()[:7]):
        for label in range(1 + row % 5):
            targets = examples()[(row + 3 * label) % ROWS][1]
            own = {name: x for name, x in targets.items() if name.startswith("decoder_")}
            for prompt in (row % 3, 1 + row % 2) if label % 2 else (row % 3,):
                example = {**features, **own, table.INDEX: np.int32(prompt)}
                numbered.append((len(numbered), example))
    return numbered


@pytest.mark.parametrize("scan_layers", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_input_is_encoded_once_for_all_its_labels(scan_layers):
    model, params = make_model(scan_layers=scan_layers), together(scan_layers=scan_layers)
    inference, shapes = watched(model, "_score")
    numbered = with_labels()
    np.random.default_rng(0).shuffle(numbered)
    outputs = inference.score(params, numbered)
    assert [index for index, _ in outputs] == [index for index, _ in numbered]
    # Pair by pair: the input is encoded anew for each label.
    expected = jax.jit(model.score)(params, in_one_batch(numbered))
    got = [score for _, score in outputs]
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    inputs = {(x["encoder_input_tokens"].tobytes(), int(x[table.INDEX])) for _, x in numbered}
    assert len(shapes) == -(-len(inputs) // BATCH) < len(numbered) // BATCH
    # No part holds more than two targets of the longest kind, and some inputs need several parts.
    parts = {shape["decoder_target_tokens"][1:] for shape in shapes}
    assert max(width for _, width in parts) == 2 * TARGETS and max(n for n, _ in parts) == 2


def test_sorted_batches_have_the_same_loss():
    numbered = [
        (i, {name: x for name, x in features.items() if name != table.INDEX})
        for i, features in examples()[:16]
    ]
    read = [in_one_batch(numbered[:BATCH]), in_one_batch(numbered[BATCH:])]
    model = make_model()
    params = jax.jit(model.init)(jax.random.key(0))
    step = steps.eval_step(model, PjitPartitioner())

    def tags(batches):
        sums = [step(params, batch) for batch in batches]
        return summarize({name: float(sum(s[name] for s in sums)) for name in sums[0]}, len(sums))

    trimmed = evaluators.by_length(read)
    assert [batch["encoder_input_tokens"].shape for batch in trimmed] == [(8, LENGTH), (8, 8)]
    assert tags(trimmed) == pytest.approx(tags(read), rel=TOLERANCE)
    kept = evaluators.by_length([batch for batch in trimmed[::-1]][:1], in_order=True)
    np.testing.assert_array_equal(
        kept[0]["decoder_target_tokens"], trimmed[1]["decoder_target_tokens"]
    )
