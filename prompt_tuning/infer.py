"""The `infer` command: predictions or scores for a SeqIO split or a file, in shards that resume."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from prompt_tuning.data import context, datasets, inference_examples, vocabularies
from prompt_tuning.data.inference_examples import InferenceExample
from prompt_tuning.encoder_decoder import EncoderDecoderModel
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.inference import Inference
from prompt_tuning.initialization import load_for_inference
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run_config import RestoreCheckpointConfig
from prompt_tuning.types import PyTree

MODES = ("predict", "score", "predict_with_aux")


def infer(
    *,
    model: EncoderDecoderModel,
    dataset_cfg: datasets.DatasetConfig,
    restore_checkpoint_cfg: RestoreCheckpointConfig,
    partitioner: PjitPartitioner,
    output_dir: str,
    mode: str = "predict",
    input_file: str | None = None,
    num_shards: int = 1,
    shard_id: int = 0,
    checkpoint_period: int = 100,
    config_text: str = "",
) -> str:
    """Writes one JSON object an example to `{task}-{mode}.jsonl-{shard:05}-of-{shards:05}`.

    Chunks of `checkpoint_period` batches are written as they are done, so that a run that was stopped goes on at the
    first missing chunk; the finished file is closed by an empty `….COMPLETED` and is not computed again.

    Args:
      model: The model; its prompt initializer supplies the prompt where the checkpoint has none.
      dataset_cfg: Task, split, lengths and batch size. With `input_file` only lengths and batch size are read.
      restore_checkpoint_cfg: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run, which names them.
      partitioner: Mesh and axis rules.
      output_dir: INFER_OUTPUT_DIR.
      mode: "predict" (decoded text), "score" (log-likelihood of the targets, nats) or "predict_with_aux" (text and
        its score).
      input_file: JSONL, TSV or plain text instead of a task.
      num_shards: Parts the examples are dealt into, in turn.
      shard_id: The part this run does, from 0.
      checkpoint_period: Batches in a chunk.
      config_text: The resolved gin config, written to `output_dir/config.gin`.

    Returns:
      The path of the finished file.

    Raises:
      ConfigError, DataError, CheckpointError: Before anything compiles, if something does not fit.

    Source: T5X `infer.py`: file names, keys and modes. Differs: shards resume at whole chunks by re-reading the input.
    """
    context.set_context(vocabulary=model.output_vocabulary, data_dir=dataset_cfg.data_dir)
    check(model, partitioner, dataset_cfg, input_file, mode, num_shards, shard_id)
    name = epath.Path(input_file).stem if input_file else dataset_cfg.mixture_or_task_name
    directory = epath.Path(output_dir)
    final = directory / f"{name}-{mode}.jsonl-{shard_id:05}-of-{num_shards:05}"
    completed = directory / f"{final.name}.COMPLETED"
    if completed.exists():
        logging.info("%s is complete already", final)
        return str(final)
    examples = read_examples(model, dataset_cfg, input_file, mode)
    examples = itertools.islice(examples, shard_id, None, num_shards)
    is_writer = jax.process_index() == 0
    if is_writer:
        (directory / f"{final.name}-tmp").mkdir(parents=True, exist_ok=True)
        (directory / "config.gin").write_text(config_text)
    loaded = load_for_inference(model, partitioner, restore_checkpoint_cfg)
    inference = Inference(model, partitioner, dataset_cfg.batch_size)
    chunks = []
    for number, chunk in enumerate(in_chunks(examples, checkpoint_period * dataset_cfg.batch_size)):
        path = directory / f"{final.name}-tmp" / f"chunk{number:05}"
        chunks.append(path)
        if path.exists():
            logging.info("Chunk %d is done already", number)
            continue
        lines = run_chunk(model, inference, loaded.params, chunk, mode)
        if is_writer:
            write_atomically(path, "".join(line + "\n" for line in lines))
    if not chunks:
        raise DataError(
            f"Nothing to infer from {name!r}",
            got="0 examples",
            expected=f"at least one example in shard {shard_id} of {num_shards}",
            fix="name another split or file, or use fewer shards",
        )
    if is_writer:
        write_atomically(final, "".join(path.read_text() for path in chunks))
        completed.write_text("")
        (directory / f"{final.name}-tmp").rmtree()
    return str(final)


def run_chunk(
    model: EncoderDecoderModel,
    inference: Inference,
    params: PyTree,
    chunk: Sequence[InferenceExample],
    mode: str,
) -> list[str]:
    """Returns a JSON object an example, in order, with T5X's keys."""
    numbered = list(enumerate(example.features for example in chunk))
    records: list[dict[str, Any]] = [{"inputs": dict(example.inputs)} for example in chunk]
    if mode == "score":
        for index, score in inference.score(params, numbered):
            records[index]["score"] = score
    else:
        outputs, aux = inference.predict_with_aux(params, numbered)
        for (index, ids), score in zip(outputs, aux["scores"], strict=True):
            records[index]["prediction"] = model.output_vocabulary.decode(ids)
            if mode == "predict_with_aux":
                records[index]["aux"] = {"scores": score}
    return [json.dumps(record, ensure_ascii=False) for record in records]


def read_examples(
    model: EncoderDecoderModel,
    cfg: datasets.DatasetConfig,
    input_file: str | None,
    mode: str,
) -> Iterator[InferenceExample]:
    """Yields the examples of the file, or of the task's split."""
    if input_file is None:
        datasets.check_dataset(cfg)
        return inference_examples.from_task(cfg)
    return inference_examples.from_file(
        input_file,
        input_vocabulary=model.input_vocabulary,
        output_vocabulary=model.output_vocabulary,
        lengths=cfg.task_feature_lengths,
        needs_targets=mode == "score",
    )


def check(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    cfg: datasets.DatasetConfig,
    input_file: str | None,
    mode: str,
    num_shards: int,
    shard_id: int,
) -> None:
    """Raises the first thing wrong with input, mode, shard, batch size or vocabulary."""
    if input_file is None and cfg.mixture_or_task_name is None:
        raise ConfigError(
            "Nothing to infer from",
            got=None,
            expected="MIXTURE_OR_TASK_NAME or INFER_INPUT_FILE",
            fix="bind one of the two",
        )
    if mode not in MODES:
        raise ConfigError(
            "Unknown infer.mode",
            got=mode,
            expected=f"one of {list(MODES)}",
            fix="bind infer.mode to one of them",
            name=mode,
            candidates=MODES,
        )
    if not 0 <= shard_id < num_shards:
        raise ConfigError(
            "--shard_id out of range",
            got=shard_id,
            expected=f"0 to {num_shards - 1}, with infer.num_shards = {num_shards}",
            fix="number the shards from 0",
        )
    vocabularies.check_vocabulary(model.input_vocabulary)
    model.check_vocabulary_size()
    partitioner.check_batch_size(cfg.batch_size)


def in_chunks(
    examples: Iterator[InferenceExample], size: int
) -> Iterator[Sequence[InferenceExample]]:
    """Yields lists of `size` examples; the last may be shorter."""
    while chunk := list(itertools.islice(examples, size)):
        yield chunk


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a file so that it is never seen half-written under its name."""
    partial = path.parent / f"{path.name}.partial"
    partial.write_text(text)
    partial.rename(path)
