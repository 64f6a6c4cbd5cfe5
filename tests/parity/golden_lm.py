"""The language-modelling objectives against T5's own: masks, token functions, lengths and whole pipelines.

Everything here is equal or not, so every row counts the cases that differ.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data.text import denoising, noise_masks, objectives
from prompt_tuning.data.text.prefix_packing import pack_prefix_lm
from tests.parity.rows import Row

_TOKEN_FNS = (
    "noise_span_to_unique_sentinel",
    "nonnoise_span_to_unique_sentinel",
    "noise_span_to_sentinel",
    "nonnoise_span_to_sentinel",
    "noise_token_to_sentinel",
    "drop_noise_tokens",
    "drop_nonnoise_tokens",
)
_OBJECTIVES = {
    "span_corruption": objectives.span_corruption,
    "iid_denoising": objectives.iid_denoising,
    "prefix_lm": objectives.prefix_lm,
    "full_lm": objectives.full_lm,
    "upstream_text_infilling": objectives.text_infilling,
    "upstream_token_deletion": objectives.token_deletion,
}
Examples = list[dict[str, list[int]]]


def comparisons(folder: pathlib.Path) -> Iterator[Row]:
    """Yields one row a function and objective.

    Args:
      folder: Folder of reference numbers, with `lm/` below it.
    """
    yield from _masks(_load(folder, "noise_masks"))
    cases = _load(folder, "denoise_fns")
    for name in _TOKEN_FNS:
        yield _row(f"tokens/{name}", [_token_fn(name, case) == case[name] for case in cases])
    yield _lengths(_load(folder, "random_spans_helper"))
    yield from _pipelines(_load(folder, "pipelines"))


def _load(folder: pathlib.Path, name: str) -> Any:
    """Returns one file of `lm/`."""
    return json.loads((folder / "lm" / f"{name}.json").read_text(encoding="utf-8"))


def _row(name: str, equal: Sequence[bool]) -> Row:
    """Returns the count of cases that differ; no case at all is a difference too."""
    return Row(f"lm/{name}", equal.count(False) if equal else 1, 0, "count")


def _masks(reference: Mapping[str, Any]) -> Iterator[Row]:
    """Compares noise masks drawn with the seeds that the file names."""
    equal: dict[str, list[bool]] = {}
    for case in reference["masks"]:
        name, density = case["fn"], case["noise_density"]
        mask_fn = {
            "iid_noise_mask": lambda d=density: noise_masks.iid_noise_mask(d),
            "random_prefix_noise_mask": noise_masks.random_prefix_noise_mask,
            "random_spans_noise_mask": lambda c=case: noise_masks.random_spans_noise_mask(
                c["noise_density"], c["mean_noise_span_length"], random_roll=c["random_roll"]
            ),
        }[name]()
        # SeqIO's seeds are int64.
        seeds = tf.unstack(tf.constant(case["seeds"], tf.int64))
        mask = mask_fn(tf.constant(case["length"]), seeds).numpy().astype(int).tolist()
        equal.setdefault(name, []).append(mask == case["mask"])
    for name, cases in equal.items():
        yield _row(f"masks/{name}", cases)


def _token_fn(name: str, case: Mapping[str, Any]) -> list[int]:
    """Returns what the token function makes of one case."""
    mask = tf.constant(case["mask"]) == 1
    tokens = tf.constant(case["tokens"], tf.int32)
    vocabulary = seqio.PassThroughVocabulary(size=case["vocab_size"])
    return getattr(denoising, name)(tokens, mask, vocabulary).numpy().tolist()


def _lengths(cases: Sequence[Mapping[str, Any]]) -> Row:
    """Compares the lengths of segments and targets."""
    keys = ("inputs_length", "noise_density", "mean_noise_span_length")
    return _row(
        "span_corruption_lengths",
        [
            list(objectives.span_corruption_lengths(*(case[key] for key in keys))) == case["result"]
            for case in cases
        ],
    )


def _pipelines(reference: Mapping[str, Any]) -> Iterator[Row]:
    """Compares whole objectives, seeded as SeqIO seeds a task, before and after EOS is appended."""
    lengths, seed = reference["sequence_length"], reference["seed"]
    vocabulary = seqio.PassThroughVocabulary(size=reference["vocab_size"], eos_id=1)
    features = {key: seqio.Feature(vocabulary, add_eos=True) for key in ("inputs", "targets")}
    results = reference["results"]
    for name in sorted(results.keys() & _OBJECTIVES.keys()):
        objective = _OBJECTIVES[name]
        for stage, expected in results[name].items():

            def run(ds: tf.data.Dataset, objective=objective, stage=stage) -> tf.data.Dataset:
                ds = objective(ds, lengths, features)
                # T5's full_lm ends each document itself, and its task appends nothing.
                if stage == "raw" or objective is objectives.full_lm:
                    return ds
                return seqio.preprocessors.append_eos_after_trim(
                    ds, output_features=features, sequence_length=lengths
                )

            yield _examples_row(
                f"{name}/{stage}", _seeded(reference["documents"], seed, run), expected
            )
    yield from _packed(reference, features)
    yield _row(
        "append_eos_after_trim",
        [_append_eos(case, features, lengths) for case in results["append_eos_after_trim"]],
    )


def _packed(reference: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[Row]:
    """Compares the packed prefix LM, and the segments that it packs."""
    expected = reference["results"]["pack_prefix_lm_encoder_decoder"]
    lengths = expected["sequence_length"]

    def segments(ds: tf.data.Dataset) -> tf.data.Dataset:
        ds = objectives.full_lm(ds, lengths, features)
        return seqio.trim_and_pad_dataset(ds, {"targets": lengths["targets"]})

    def packed(ds: tf.data.Dataset) -> tf.data.Dataset:
        return pack_prefix_lm(segments(ds), lengths)

    name = "pack_prefix_lm_encoder_decoder"
    for stage, run in (("targets", segments), ("packed", packed)):
        made = _seeded(reference["documents"], reference["seed"], run)
        yield _examples_row(f"{name}/{stage}", made, expected[stage])


def _seeded(
    documents: Sequence[Sequence[int]], seed: int, run: Callable[[tf.data.Dataset], tf.data.Dataset]
) -> Examples:
    """Returns what `run` makes of documents, with SeqIO's seeds counted from `seed`."""
    spec = {"targets": tf.TensorSpec([None], tf.int32)}
    ds = tf.data.Dataset.from_generator(
        lambda: ({"targets": document} for document in documents), output_signature=spec
    )
    with seqio.map_seed_manager(seed):
        examples: Any = run(ds).as_numpy_iterator()
        return [{key: value.tolist() for key, value in example.items()} for example in examples]


def _examples_row(name: str, made: Examples, expected: Examples) -> Row:
    """Counts the examples that differ, missing and superfluous ones included."""
    longest = max(len(made), len(expected))
    padded = [[*examples, *[None] * (longest - len(examples))] for examples in (made, expected)]
    return _row(f"pipelines/{name}", [ours == theirs for ours, theirs in zip(*padded, strict=True)])


def _append_eos(
    case: Mapping[str, Any], features: Mapping[str, Any], lengths: Mapping[str, int]
) -> bool:
    """Whether EOS ends features of `n_inputs` ids from 10 on, and half as many targets from 100 on, as in T5."""
    num_inputs = case["n_inputs"]
    ds = tf.data.Dataset.from_tensors(
        {
            "inputs": np.arange(10, 10 + num_inputs, dtype=np.int32),
            "targets": np.arange(100, 100 + num_inputs // 2, dtype=np.int32),
        }
    )
    ds = seqio.preprocessors.append_eos_after_trim(
        ds, output_features=features, sequence_length=lengths
    )
    examples: Any = ds.as_numpy_iterator()
    (example,) = examples
    return all(example[key].tolist() == case[key] for key in features)
