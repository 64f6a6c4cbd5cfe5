"""SeqIO's offline cache: preprocesses a task once with Apache Beam, for runs with `USE_CACHED_TASKS = True`."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import seqio
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.data.made_from import CACHE_RECORD, describe_cached
from prompt_tuning.data.vocabularies import resolved
from prompt_tuning.errors import ConfigError, DataError

# Beam's `DirectRunner` would first try to download another runner's program.
LOCAL_RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def cache_task(
    task: seqio.Task,
    splits: Sequence[str],
    *,
    cache_dir: str,
    min_shards: int,
    pipeline_options: Sequence[str],
    overwrite: bool,
    set_up: Callable[[], None],
) -> dict[str, Any]:
    """Writes a task's cache, in the files and layout of `seqio_cache_tasks`.

    Args:
      task: The task.
      splits: What to cache.
      cache_dir: Parent of the task's folder; what a run names as `--seqio_additional_cache_dirs`.
      min_shards: Files a split has at least. A run shuffles these files, so that more of them shuffle better.
      pipeline_options: Beam's flags; without `--runner=…` the pipeline runs in this process.
      overwrite: Whether a finished cache makes way for the new one.
      set_up: Registers the task where a worker does not have it; must be picklable.

    Returns:
      {task, path, splits}.

    Raises:
      ConfigError: Beam is not installed, or the task is in the cache already.
      DataError: The task has no place for a cache.
    """
    beam, beam_utils = _import_beam()
    if not task.supports_caching:
        raise DataError(
            "The task cannot be cached",
            got=task.name,
            expected="a task with seqio.CacheDatasetPlaceholder among its preprocessors",
            fix="add the placeholder behind what is to be cached, or run without a cache, as ranked tasks always do",
        )
    folder = epath.Path(cache_dir) / seqio.get_task_dir_from_name(task.name)
    if (folder / "COMPLETED").exists():
        if not overwrite:
            raise ConfigError(
                "The task is in the cache already",
                got=str(folder),
                expected="a folder without COMPLETED",
                fix="add --overwrite, or name another --output_cache_dir",
            )
        folder.rmtree()
    # As the data is when work begins: what is edited meanwhile makes the cache another's.
    folder.mkdir(parents=True, exist_ok=True)
    made_from = {split: describe_cached(task, split) for split in splits}
    json_files.write_atomically(folder / CACHE_RECORD, json_files.encode(made_from))
    options = list(pipeline_options)
    if not any(option.startswith("--runner") for option in options):
        options.append(LOCAL_RUNNER)
    with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(options)) as pipeline:
        done: list[Any] = []
        for split in splits:
            done += _cache_split(pipeline, beam_utils, task, split, str(folder), min_shards, set_up)
        # Written when everything else is: a cache without this file is not read.
        _ = (
            done
            | "all" >> beam.Flatten()
            | "nothing" >> beam.Filter(lambda _: False)
            | "completed"
            >> beam.io.textio.WriteToText(
                os.path.join(str(folder), "COMPLETED"),
                append_trailing_newlines=False,
                num_shards=1,
                shard_name_template="",
            )
        )
    return {"task": task.name, "path": str(folder), "splits": _written(folder, splits)}


def _cache_split(
    pipeline: Any,
    beam_utils: Any,
    task: seqio.Task,
    split: str,
    folder: str,
    min_shards: int,
    set_up: Callable[[], None],
) -> list[Any]:
    """Adds one split to the pipeline; returns what is finished when it is."""
    import apache_beam as beam  # pyright: ignore[reportMissingImports]

    preprocess = beam_utils.PreprocessTask(task, split, setup_fn=set_up)
    num_shards = max(len(preprocess.shards), min_shards)
    examples = (
        pipeline
        | f"{split}_preprocess" >> preprocess
        # SeqIO's own order of steps; this one also shuffles the examples over the files.
        | f"{split}_shuffle" >> beam.Reshuffle()
    )
    # A worker may count tokens before it has registered anything, so it gets the vocabulary itself.
    features = {
        name: dataclasses.replace(feature, vocabulary=resolved(feature.vocabulary))
        for name, feature in task.output_features.items()
    }
    return [
        examples
        | f"{split}_write"
        >> beam_utils.WriteExampleTfRecord(
            seqio.get_cached_tfrecord_prefix(folder, split), num_shards=num_shards
        ),
        examples
        | f"{split}_info" >> beam_utils.GetInfo(num_shards)
        | f"{split}_write_info" >> beam_utils.WriteJson(seqio.get_cached_info_path(folder, split)),
        examples
        | f"{split}_stats" >> beam_utils.GetStats(features)
        | f"{split}_write_stats"
        >> beam_utils.WriteJson(seqio.get_cached_stats_path(folder, split)),
    ]


def _written(folder: epath.Path, splits: Sequence[str]) -> dict[str, Any]:
    """Returns SeqIO's statistics of each split, with the number of files."""
    return {
        split: {
            **json.loads(epath.Path(seqio.get_cached_stats_path(str(folder), split)).read_text()),
            "files": len(list(folder.glob(f"{split}.tfrecord*"))),
        }
        for split in splits
    }


def _import_beam() -> tuple[Any, Any]:
    """Returns the modules `apache_beam` and `seqio.beam_utils`."""
    try:
        import apache_beam  # pyright: ignore[reportMissingImports]
        from seqio import beam_utils
    except ImportError as error:
        raise ConfigError(
            f"Caching needs Apache Beam, which cannot be imported ({error})",
            got="an installation without it",
            expected="the extra [cache]",
            fix="run `pip install 'prompt-tuning[cache]'`, in an environment of its own where Beam and the installed "
            "protobuf do not agree: the cache is read without Beam",
        ) from error
    return apache_beam, beam_utils
