"""What a task's examples are made from: its files by content, and all that turns them into ids and scores."""

import json
from collections.abc import Mapping
from typing import Any

import seqio
from etils import epath

from prompt_tuning.data import batches, content, context
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.sources import FilesDataSource
from prompt_tuning.data.vocabularies import resolved
from prompt_tuning.errors import DataError

# Digests of files by their paths.
Known = dict[tuple[str, ...], str | None]
FILES = "content of its files (SHA-256)"
# In the folder of a cached task: what each split was made from.
CACHE_RECORD = "made_from.json"
_CACHE_AGAIN = "make the cache again: `prompt-tuning tasks cache` with --overwrite"


def describe_dataset(cfg: DatasetConfig, known: Known | None = None) -> dict[str, Any]:
    """Returns what the examples of a split follow from, by names that users know; JSON values.

    Files are read, to be compared by content. TensorFlow Datasets are known by name and version, with which their
    content does not change; a `seqio.FunctionDataSource` by its function (`content.describe`), since nothing says what
    that reads.

    Args:
      cfg: Task or mixture, split, and where its files are.
      known: Digests that were made before, which are not made again; new ones are added. None keeps none.
    """
    provider = batches.get_task(cfg)
    described: dict[str, Any] = {"task": provider.name, "split": cfg.split}
    if isinstance(provider, seqio.Mixture):
        # Not `get_rate`, which counts examples where a rate depends on them.
        described["rates"] = content.describe(provider._task_to_rate)
    known = {} if known is None else known
    with context.overriding(data_dir=cfg.data_dir):
        for task in seqio.get_subtasks(provider):
            if cfg.split in task.splits:
                described[task.name] = {
                    **describe_examples(task, cfg.split, known, use_cached=cfg.use_cached),
                    "answers": content.describe(task._postprocess_fn),
                    "metrics": content.describe(
                        [*task.metric_fns, *task._metric_objs_constructor_args]
                    ),
                }
    return described


def describe_examples(
    task: seqio.Task, split: str, known: Known, *, use_cached: bool = False
) -> dict[str, Any]:
    """Returns what the ids of a task's examples follow from.

    Args:
      task: The task.
      split: One of its splits.
      known: As of `describe_dataset`.
      use_cached: Whether they come from SeqIO's offline cache.
    """
    features: Mapping[str, Any] = {
        name: {
            "vocabulary": describe_vocabulary(feature.vocabulary),
            "add_eos": feature.add_eos,
            "kind": type(feature).__name__,
        }
        for name, feature in task.output_features.items()
    }
    source = task.source
    if use_cached and task.supports_caching and task.cache_dir:
        source = task._get_cached_source(split)
    return {
        FILES: _digest_of_files(source, split, known),
        "source": _describe_source(task.source),
        "text": content.describe(task.preprocessors),
        "features": features,
    }


def describe_cached(task: seqio.Task, split: str) -> dict[str, Any]:
    """Returns what the examples follow from that SeqIO's offline cache holds: nothing behind the cache's place.

    Args:
      task: A task that supports caching.
      split: One of its splits.
    """
    described = describe_examples(task, split, {})
    return {**described, "text": described["text"][: task._cache_step_idx]}


def describe_vocabulary(vocabulary: seqio.Vocabulary) -> dict[str, Any]:
    """Returns the kind of a vocabulary, its size and special ids, and the content of its file.

    Args:
      vocabulary: Any of SeqIO's. A file that is neither on this machine nor loaded yet is known by its address.
    """
    meant = resolved(vocabulary)
    described: dict[str, Any] = {"kind": type(meant).__name__}
    file = getattr(meant, "sentencepiece_model_file", None)
    if file is not None:
        is_loaded = getattr(meant, "_model", None) is not None
        if not is_loaded and ("://" in str(file) or not epath.Path(file).is_file()):
            return {**described, "address": str(getattr(meant, "address", file))}
        described["content (SHA-256)"] = content.of_bytes(meant.sp_model)  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("vocab_size", "extra_ids", "pad_id", "eos_id", "unk_id", "bos_id"):
        described[name] = getattr(meant, name, None)
    return described


def check_cache(cfg: DatasetConfig) -> None:
    """Raises DataError if a task's offline cache was made from other files, text or vocabulary than the task's now.

    Files that are not on this machine are not compared; nor is a cache of `seqio_cache_tasks`, which says nothing of
    itself.

    Args:
      cfg: Looked at where `use_cached` is set.
    """
    for name in batches.eval_task_names(cfg) if cfg.use_cached else ():
        task = seqio.TaskRegistry.get(name)
        record = epath.Path(task.cache_dir or "") / CACHE_RECORD
        if not task.supports_caching or not task.cache_dir or not record.is_file():
            continue
        with context.overriding(data_dir=cfg.data_dir):
            present = describe_cached(task, cfg.split)
        try:
            recorded = content.unsealed(json.loads(record.read_text()))[cfg.split]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"The record of the cache in {task.cache_dir} is damaged",
                got=f"{CACHE_RECORD}: {error!r}",
                expected="what each split was made from",
                fix=_CACHE_AGAIN,
            ) from error
        if present[FILES] is None:
            present[FILES] = recorded[FILES]
        found = content.difference(recorded, present, name)
        if found:
            part, then, now = found
            raise DataError(
                f"The cache in {task.cache_dir} was made with another {part}",
                got=now,
                expected=f"{then!r}, as recorded in {CACHE_RECORD}",
                fix=_CACHE_AGAIN,
            )


def _describe_source(source: seqio.DataSource) -> dict[str, Any]:
    """What a source makes of its files, wherever these are."""
    described: dict[str, Any] = {"kind": type(source).__name__}
    if isinstance(source, FilesDataSource):
        described["form"] = content.describe(source.form)
    elif isinstance(source, seqio.TfdsDataSource):
        described["name"] = source.tfds_dataset.name
    elif isinstance(source, seqio.FunctionDataSource):
        described["function"] = content.describe(source._dataset_fn)
    elif isinstance(source, seqio.FileDataSource):
        described["reader"] = content.describe(source._reader)
    return described


def _digest_of_files(source: seqio.DataSource, split: str, known: Known) -> str | None:
    """The digest of a split's files; None where there are none that this machine can name."""
    has_files = getattr(source, "has_files", isinstance(source, seqio.FileDataSource))
    try:
        files = tuple(map(str, source.list_shards(split))) if has_files else ()
    except DataError:
        # They are not here: who reads them says so.
        return None
    if files not in known:
        known[files] = content.of_files(files)
    return known[files]
