"""This package's side of each piece of work, with random weights, through what runs call."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from prompt_tuning import ladder
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.speed import texts
from prompt_tuning.launch.benchmarks.speed.rows import Work
from prompt_tuning.launch.benchmarks.training_step import Step, Workload
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run import compilation_cache, steps
from prompt_tuning.run.inference import Inference

_VOCABULARY = f"{ladder.LADDER}/vocabulary.model"
_TRAIN = """train --gin_file=prompt_tuning/configs/ladder/mini.gin --gin_file=prompt_tuning/configs/ladder/prompt.gin
  --gin.INITIAL_CHECKPOINT_PATH='prompt_tuning/ladder/mini/adapted/checkpoint_1200'
  --gin.MIXTURE_OR_TASK_NAME='synthetic_sentiment' --gin.CLASS_LABELS=['negative','positive']"""


def prepare(work: Work, settings: Mapping[str, Any]) -> Callable[[int], Any]:
    """Returns what does one round of the work, everything compiled.

    Args:
      work: The work.
      settings: Hugging Face's `config.json` of the model; our own sizes are those that `work` names.
    """
    run = {"step": _step, "train": _train, "decode": _decode, "infer": _infer, "rank": _rank}
    return _start(work) if work.kind == "start" else run[work.kind](work)


def _config(work: Work) -> T5Config:
    config = measuring.config_of(work.size)
    return dataclasses.replace(
        config, dtype=work.dtype, param_dtype=work.dtype, scan_layers=work.scan_layers
    )


def _new_step(work: Work) -> Step:
    sizes = Workload(
        batch_size=work.batch_size,
        inputs=work.inputs,
        targets=work.targets,
        prompt_length=work.prompt_length,
        frozen_dtype=work.dtype,
    )
    return Step(_config(work), sizes)


def _step(work: Work) -> Callable[[int], Any]:
    """A step over full rows."""
    step = _new_step(work)
    step.time()
    return lambda index: step.time()


def _train(work: Work) -> Callable[[int], Any]:
    """A part of a pass over texts, which are read, tokenized and batched as in a run."""
    step, num_batches = _new_step(work), work.num_examples // work.batch_size
    for batch in itertools.islice(_train_batches(work), num_batches):
        step.compile(batch)
    stream = _train_batches(work)

    def run(index: int) -> None:
        for batch in itertools.islice(stream, num_batches // work.parts):
            step.take(batch)
        step.wait()

    return run


def _train_batches(work: Work) -> Iterator[Any]:
    """The batches of a run that trains on the texts, from its beginning."""
    # Only this work needs TensorFlow.
    from prompt_tuning.data import batches, context, vocabularies
    from prompt_tuning.data.batch_shapes import BatchShapes
    from prompt_tuning.data.own import file_tasks

    vocabulary = vocabularies.sentencepiece_vocabulary(ladder.locate(_VOCABULARY), extra_ids=100)
    context.set_context(vocabulary=vocabulary)
    path = pathlib.Path(tempfile.mkdtemp()) / "train.jsonl"
    path.write_text("".join(_lines(work, vocabulary)))
    task = file_tasks.from_files(
        "benchmark", inputs="{text}", targets="{label}", train=str(path), metrics=[]
    )
    lengths = {"inputs": work.inputs, "targets": work.targets}
    cfg = batches.DatasetConfig(
        task,
        lengths,
        "train",
        work.batch_size,
        length_window=work.length_window,
    )
    shapes = BatchShapes(
        work.batch_size, lengths, prompt_length=work.prompt_length, packs=work.packs
    )
    return map(shapes.fit, batches.train_batches(cfg, seed=0))


def _lines(work: Work, vocabulary: Any) -> Iterator[str]:
    """The texts as a user's file has them: of words that are one token each."""
    pieces = (vocabulary.tokenizer.IdToPiece(i) for i in range(vocabulary.tokenizer.vocab_size()))
    words = [p[1:] for p in pieces if p[0] == "▁" and len(p) > 3 and p[1:].isalpha()]
    words = [word for word in words if len(vocabulary.encode(word)) == 1]
    rng = np.random.default_rng(2)
    labels = [" ".join(words[: n - 1]) for n in texts.DATA_SETS[work.data_set].labels]
    lengths = texts.lengths(work.data_set, work.num_examples, work.inputs)
    for number, length in enumerate(lengths):
        text = " ".join(rng.choice(words, length - 1))
        yield json.dumps({"text": text, "label": labels[number % 2]}) + "\n"


def _model(work: Work) -> tuple[EncoderDecoderModel, Any]:
    """The model and its parameters."""
    module = T5(_config(work), PromptConfig(work.prompt_length))
    decode_fn = Greedy() if work.beams == 1 else BeamSearch(work.beams)
    model = EncoderDecoderModel(module, None, None, decode_fn=decode_fn)
    return model, jax.jit(model.init)(jax.random.key(0))


def _decode(work: Work) -> Callable[[int], Any]:
    """Decodes full rows."""
    model, params = _model(work)
    partitioner = PjitPartitioner()
    predict = steps.predict_step(model, partitioner)
    ids = texts.token_ids(np.full(work.batch_size, work.inputs), model.config.vocab_size)
    batch = partitioner.shard_batch({"encoder_input_tokens": np.stack(ids).astype(np.int32)})

    def run(index: int) -> None:
        with partitioner.activate():
            ids = np.asarray(predict(params, batch, work.targets)[0])
        # Rows that end make decoding end early, which PEFT's side is kept from.
        assert texts.EOS_ID not in ids

    run(0)
    return run


def _infer(work: Work) -> Callable[[int], Any]:
    """Decodes texts."""
    model, params = _model(work)
    inference = Inference(model, PjitPartitioner(), work.batch_size)
    examples = list(enumerate(_features(work, ids, []) for ids in _inputs(work, model)))

    def run(index: int) -> None:
        answers = inference.predict(params, examples)
        assert len(answers) == work.num_examples
        assert not any(texts.EOS_ID in ids for _, ids in answers)

    run(0)
    return run


def _rank(work: Work) -> Callable[[int], Any]:
    """Scores texts with each label."""
    model, params = _model(work)
    inference = Inference(model, PjitPartitioner(), work.batch_size)
    two = texts.label_ids(work.data_set)
    pairs = [_features(work, ids, label) for ids in _inputs(work, model) for label in two]
    examples = list(enumerate(pairs))

    def run(index: int) -> None:
        assert len(inference.score(params, examples)) == 2 * work.num_examples

    run(0)
    return run


def _inputs(work: Work, model: EncoderDecoderModel) -> list[np.ndarray]:
    """Ids of texts of real lengths."""
    lengths = texts.lengths(work.data_set, work.num_examples, work.inputs)
    return texts.token_ids(lengths, model.config.vocab_size)


def _features(work: Work, inputs: np.ndarray, targets: Any) -> dict[str, np.ndarray]:
    """What a run makes of an example."""
    from prompt_tuning.data.inference_examples import model_features

    return model_features(inputs, targets, {"inputs": work.inputs, "targets": work.targets})


def _start(work: Work) -> Callable[[int], None]:
    """`prompt-tuning train` until its first step is done, with the programs that a run before compiled."""
    folder = pathlib.Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "prompt_tuning", *_TRAIN.split()]
    env = {name: x for name, x in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    # JAX finds a program again only in the folder that it was kept in: every start is in the same one.
    model_dir, kept = folder / "run", folder / "kept"

    def run(index: int) -> None:
        shutil.rmtree(model_dir)
        shutil.copytree(kept, model_dir / compilation_cache.FOLDER)
        _until_first_step(command, model_dir, env)

    _until_first_step(command, model_dir, env)
    shutil.copytree(model_dir / compilation_cache.FOLDER, kept)
    return run


def _until_first_step(command: list[str], model_dir: pathlib.Path, env: Mapping[str, str]) -> None:
    """Runs a command until its first step is done."""
    with subprocess.Popen(
        [*command, f"--gin.MODEL_DIR={str(model_dir)!r}"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        is_done = any("Step 1 is done" in line for line in process.stdout)
        process.kill()
    assert is_done, "the run ended before its first step"
