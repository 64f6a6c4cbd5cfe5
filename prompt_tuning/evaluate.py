"""The evaluation of a prompt or of a model, top to bottom: check, load, decode, score."""

import functools
import json

import jax
from absl import logging
from etils import epath

from prompt_tuning.checkpoints import json_files, one_writer
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.data import batches
from prompt_tuning.data.evaluation import EvaluatorConfig
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import checks, compilation_cache, template_table
from prompt_tuning.run.evaluators import DecodingEval, format_metrics
from prompt_tuning.run.start import load_for_inference


@one_writer.holding_folder("output_dir", "EVAL_OUTPUT_DIR")
def evaluate(
    *,
    model: EncoderDecoderModel,
    dataset_cfg: batches.DatasetConfig,
    restore_checkpoint_cfg: RestoreCheckpointConfig,
    partitioner: PjitPartitioner,
    output_dir: str,
    evaluator: EvaluatorConfig,
    config_text: str = "",
) -> dict[str, dict[str, float]]:
    """Evaluates a checkpoint, with the prompt that it holds or that PROMPT_FILE names.

    Args:
      model: The model; its prompt initializer supplies the prompt where the checkpoint has none.
      dataset_cfg: Task or mixture, split and batch size.
      restore_checkpoint_cfg: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run, which names them.
      partitioner: Mesh and axis rules.
      output_dir: EVAL_OUTPUT_DIR; `inference_eval/`, `config.gin` and compiled programs are written below it.
      evaluator: How much is evaluated and written.
      config_text: The resolved gin config.

    Returns:
      `{task: {metric: value}}`. Where tasks are made of templates, their table is printed and written too.

    Raises:
      ConfigError: If the batch does not divide over the devices or the vocabulary does not fit.
      DataError: If the task is unknown or its split empty.
      CheckpointError: If the checkpoint or prompt is missing or of another model.
    """
    dataset_cfg = checks.with_tasks(model, dataset_cfg)
    directory = prepare(model, dataset_cfg, partitioner, output_dir, config_text)
    decoding = DecodingEval(model, dataset_cfg, partitioner, directory, evaluator)
    loaded = load_for_inference(model, partitioner, restore_checkpoint_cfg)
    results = decoding.run(loaded.params, loaded.step)
    for task, metrics in results.items():
        logging.info("%s at step %d: %s", task, loaded.step, json.dumps(metrics))
        if jax.process_index() == 0:
            print(f"{task} step={loaded.step} {format_metrics(metrics)}", flush=True)
    template_table.show(results, directory, loaded.step, functools.partial(print, flush=True))
    return results


def prepare(
    model: EncoderDecoderModel,
    dataset_cfg: batches.DatasetConfig,
    partitioner: PjitPartitioner,
    output_dir: str,
    config_text: str,
) -> epath.Path:
    """Checks what can be checked before anything is loaded; returns EVAL_OUTPUT_DIR, with `config.gin` in it."""
    compilation_cache.keep_in(output_dir)
    checks.enter(model, dataset_cfg)
    checks.check_data(model, partitioner, [dataset_cfg])
    directory = epath.Path(output_dir)
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        json_files.write_atomically(directory / "config.gin", config_text.encode())
    return directory
