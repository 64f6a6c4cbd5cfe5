"""The `infer` command: predictions or scores for a SeqIO split or a file, in shards that resume."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from prompt_tuning.checkpoints import one_writer
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.data import batches, dataset_checks, inference_examples, made_from
from prompt_tuning.data.benchmarks import leaderboard
from prompt_tuning.data.example_tasks import all_names
from prompt_tuning.data.inference_examples import InferenceExample
from prompt_tuning.errors import ConfigError, DataError, check_choice
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run import checks, compilation_cache
from prompt_tuning.run.identity import describe_inference
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.prompt_start import prompt_file_of
from prompt_tuning.run.shard import Shard
from prompt_tuning.run.start import load_for_inference
from prompt_tuning.training.progress_bar import progress_bar
from prompt_tuning.types import TASK, PyTree

MODES = ("predict", "score", "predict_with_aux")


def infer(
    *,
    model: EncoderDecoderModel,
    dataset_cfg: batches.DatasetConfig,
    restore_checkpoint_cfg: RestoreCheckpointConfig,
    partitioner: PjitPartitioner,
    output_dir: str,
    mode: str = "predict",
    input_file: str | None = None,
    num_shards: int = 1,
    shard_id: int = 0,
    checkpoint_period: int = 100,
    prompts: Mapping[str, str] | None = None,
    config_text: str = "",
) -> str:
    """Writes one JSON object an example to `{task}-{mode}.jsonl-{shard:05}-of-{shards:05}`.

    Chunks of `checkpoint_period` batches are written as they are done, so that a run that was stopped goes on at the
    first missing chunk; the finished file is closed by `….COMPLETED` and is not computed again. Both hold the settings
    they were made with, and are refused under others. Predictions for the test split of a SuperGLUE task, in one shard,
    are also written to `leaderboard/`, ready to submit.

    Args:
      model: The model; its prompt initializer supplies the prompt where the checkpoint has none.
      dataset_cfg: Task, split, lengths and batch size. With `input_file` only lengths and batch size are read,
        and, of a registered task that is named all the same, whether inputs end with EOS.
      restore_checkpoint_cfg: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run, which names them.
      partitioner: Mesh and axis rules.
      output_dir: INFER_OUTPUT_DIR; what is compiled is kept there too.
      mode: "predict" (decoded text), "score" (log-likelihood of the targets, nats) or "predict_with_aux" (text and
        its score).
      input_file: JSONL, TSV, CSV or plain text instead of a task.
      num_shards: Parts the examples are dealt into, in turn.
      shard_id: The part this run does, from 0.
      checkpoint_period: Batches in a chunk.
      prompts: Name -> prompt file, for an `input_file` that mixes tasks: the `task` of each example names its prompt.
        None for one prompt, the model's.
      config_text: The resolved gin config, written to `output_dir/config.gin`.

    Returns:
      The path of the finished file.

    Raises:
      ConfigError, DataError, CheckpointError: Before anything compiles.

    Source: T5X `infer.py`: file names, keys and modes. Differs: shards resume at whole chunks by re-reading the input.
    """
    compilation_cache.keep_in(output_dir)
    dataset_cfg = checks.enter(model, dataset_cfg)
    check(model, partitioner, dataset_cfg, input_file, mode, num_shards, shard_id, prompts)
    examples = read_examples(model, dataset_cfg, input_file, mode, prompts)
    source = open_source(restore_checkpoint_cfg.path or "", mode=restore_checkpoint_cfg.mode)
    # The newest of several is settled once, so that it is the one recorded.
    restore = dataclasses.replace(restore_checkpoint_cfg, path=str(source.path), mode="specific")
    name = epath.Path(input_file).stem if input_file else dataset_cfg.mixture_or_task_name
    shard = Shard(
        epath.Path(output_dir),
        f"{name}-{mode}.jsonl-{shard_id:05}-of-{num_shards:05}",
        {
            "infer.mode": mode,
            "infer.num_shards": num_shards,
            "infer.checkpoint_period": checkpoint_period,
            **describe_inference(source, restore.dtype, model, dataset_cfg, input_file, prompts),
        },
    )
    # Shards share the folder; each is somebody's.
    with one_writer.holding(shard.directory, "INFER_OUTPUT_DIR", shard.name):
        if (num_done := shard.open()) is None:
            logging.info("%s is complete already", shard.final)
        else:
            shard.write_config(config_text)
            files = list((prompts or {}).values())
            loaded = load_for_inference(model, partitioner, restore, prompt_files=files)
            own, num_chunks = itertools.islice(examples, shard_id, None, num_shards), 0
            rows = dataset_cfg.batch_size
            with progress_bar(" examples") as bar:
                inference = Inference(model, partitioner, rows, lambda: bar.update(rows))
                for chunk in in_chunks(own, checkpoint_period * rows):
                    # What was done before is read again and skipped: so is it known where the next chunk starts.
                    if num_chunks >= num_done:
                        lines = run_chunk(model, inference, loaded.params, chunk, mode)
                        shard.write_chunk(num_chunks, lines)
                    num_chunks += 1
                    # Batches are not always full, and labels of one input share a row.
                    bar.n = (num_chunks - 1) * checkpoint_period * rows + len(chunk)
            if not num_chunks:
                raise no_examples(name, shard_id, num_shards)
            shard.finish(num_chunks)
        # Of a complete shard too: the run that finished it may have died before it wrote this.
        write_submission(shard, dataset_cfg, mode, num_shards, input_file)
    return str(shard.final)


def no_examples(name: str, shard_id: int, num_shards: int) -> DataError:
    """Returns the error for a shard without examples."""
    return DataError(
        f"Nothing to infer from {name!r}",
        got="0 examples",
        expected=f"at least one example in shard {shard_id} of {num_shards}",
        fix="name another split or file, or use fewer shards",
    )


def write_submission(
    shard: Shard, cfg: batches.DatasetConfig, mode: str, num_shards: int, input_file: str | None
) -> None:
    """Writes the predictions for a whole test split of SuperGLUE once more, as its leaderboard takes them."""
    task = cfg.mixture_or_task_name or ""
    is_whole_test = cfg.split == "test" and num_shards == 1 and input_file is None
    if mode != "predict" or not is_whole_test or not leaderboard.takes(task):
        return
    if jax.process_index() != 0:
        return
    if cfg.use_cached:
        # A cache holds the examples in another order than the original files, whose numbers the leaderboard wants.
        logging.info("No file for the leaderboard of SuperGLUE: USE_CACHED_TASKS is True")
        return
    lines = shard.final.read_text().split("\n")
    texts = [json.loads(line)["prediction"] for line in lines if line]
    folder = str(shard.directory / "leaderboard")
    path = leaderboard.write_predictions(task, texts, folder, data_dir=cfg.data_dir)
    logging.info("For the leaderboard of SuperGLUE: %s", path)


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
    cfg: batches.DatasetConfig,
    input_file: str | None,
    mode: str,
    prompts: Mapping[str, str] | None = None,
) -> Iterator[InferenceExample]:
    """Yields the examples of the file, or of the task's split; with `prompts`, each with the number of its own."""
    if input_file is None:
        checks.warn(dataset_checks.check_dataset(cfg, needs_targets=mode == "score"))
        made_from.check_cache(cfg)
        return inference_examples.from_task(cfg)
    # A name for each prompt; or a method's tasks, some of which have several.
    tasks = [[name] for name in prompts] if prompts else cfg.tasks
    examples = inference_examples.from_file(
        input_file,
        inputs_end=inference_examples.inputs_end(cfg.mixture_or_task_name),
        input_vocabulary=model.input_vocabulary,
        output_vocabulary=model.output_vocabulary,
        lengths=cfg.task_feature_lengths,
        needs_targets=mode == "score",
        task_names=all_names(tasks) or None,
    )
    if not tasks:
        return examples
    return inference_examples.numbered(examples, tasks, table.INDEX if prompts else TASK)


def check(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    cfg: batches.DatasetConfig,
    input_file: str | None,
    mode: str,
    num_shards: int,
    shard_id: int,
    prompts: Mapping[str, str] | None = None,
) -> None:
    """Raises ConfigError for the first thing wrong with input, mode, shard, prompts, batch size or vocabulary."""
    if input_file is None and cfg.mixture_or_task_name is None:
        raise ConfigError(
            "Nothing to infer from",
            got=None,
            expected="MIXTURE_OR_TASK_NAME or INFER_INPUT_FILE",
            fix="bind one of the two",
        )
    check_choice("infer.mode", mode, MODES)
    if not 0 <= shard_id < num_shards:
        raise ConfigError(
            "--shard_id out of range",
            got=shard_id,
            expected=f"0 to {num_shards - 1}, with infer.num_shards = {num_shards}",
            fix="number the shards from 0",
        )
    if prompts and input_file is None:
        raise ConfigError(
            "--prompts needs a file whose examples say which prompt they take",
            got="no INFER_INPUT_FILE",
            expected="a JSONL or TSV file with `inputs` and `task`",
            fix="bind INFER_INPUT_FILE, or evaluate several prompts on one task with `prompt-tuning ensemble`",
        )
    own = {
        "PROMPT_FILE": prompt_file_of(model.prompt),
        "METHOD_FILE": model.method and model.method.path,
    }
    for name, file in own.items() if prompts else ():
        if file is not None:
            raise ConfigError(
                f"{name} names a prompt beside those of --prompts",
                got=file,
                expected="one or the other",
                fix=f"leave {name} out, or add it to --prompts under a name",
            )
    checks.check_model(model, partitioner, [cfg.batch_size])
    checks.check_inputs(model, [cfg])


def in_chunks(
    examples: Iterator[InferenceExample], size: int
) -> Iterator[Sequence[InferenceExample]]:
    """Yields lists of `size` examples; the last may be shorter."""
    return iter(lambda: list(itertools.islice(examples, size)), [])
