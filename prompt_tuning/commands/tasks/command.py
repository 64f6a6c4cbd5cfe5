"""The command `prompt-tuning tasks`: lists, shows, measures, checks and caches SeqIO tasks and mixtures."""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prompt_tuning.errors import ConfigError

_TASKS = "prompt_tuning.tasks"
_MACROS = (
    "MIXTURE_OR_TASK_NAME",
    "MIXTURE_OR_TASK_MODULE",
    "TASK_DATA_DIR",
    "TASK_FEATURE_LENGTHS",
    "VOCABULARY",
)
_LENGTHS = {"inputs": (512,), "targets": (32,)}
_STATS_LENGTHS = {"inputs": (128, 256, 512, 1024), "targets": (8, 32, 128)}
_VIEWS = {
    "list": "names of tasks and mixtures that hold PATTERN, or match it as a shell pattern",
    "show": "raw examples, and the text, ids, decoded text and masks made of them",
    "stats": "lengths, truncation, labels and unknown tokens",
    "check": "schema, labels, gold scores and overlap; exits with 1 where a check fails",
    "cache": "SeqIO's offline cache, written with Apache Beam (extra [cache])",
}


def main(argv: Sequence[str]) -> int:
    """Runs `prompt-tuning tasks VIEW`.

    Args:
      argv: View and flags.

    Returns:
      Exit code: 0, or 1 where `check` found a fault.

    Raises:
      PromptTuningError: A name, a flag or the data is wrong.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    flags = _parser().parse_args(list(argv))
    names = prepare(flags)
    if flags.view == "list":
        from prompt_tuning.commands.tasks import views as task_views

        rows = task_views.list_tasks(flags.names[0] if flags.names else None)
        _print(flags, rows, _list_lines(rows))
        return 0
    if not names:
        raise ConfigError(
            "No task is named",
            got=None,
            expected="the name of a task or mixture",
            fix=f"write `prompt-tuning tasks {flags.view} NAME`; `prompt-tuning tasks list` shows the names",
        )
    views: dict[str, Callable[..., int]] = {
        "show": _show,
        "stats": _stats,
        "check": _check,
        "cache": _cache,
    }
    return views[flags.view](flags, names)


def prepare(flags: argparse.Namespace) -> list[str]:
    """Registers tasks and sets the vocabulary and the folders, as the flags and gin files say.

    Args:
      flags: Parsed flags; lengths that are not set are taken from the gin files.

    Returns:
      The names that were typed, else the one of the gin files, if any.
    """
    from prompt_tuning.config import queries, resolve
    from prompt_tuning.data import batches, context, vocabularies

    settings = queries.query_macros(flags.gin_file, _MACROS) if flags.gin_file else {}
    module = flags.module or settings.get("MIXTURE_OR_TASK_MODULE")
    modules = [module] if module else []
    if not modules and not flags.gin_file:
        package = importlib.import_module(_TASKS)
        modules = [f"{_TASKS}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
    for name in modules:
        batches.load_task_module(batches.DatasetConfig("", None, "", 1, module=name))
    resolve.set_data_dirs(flags.tfds_data_dir, ())
    vocabulary = settings.get("VOCABULARY")
    if flags.vocabulary:
        vocabulary = vocabularies.sentencepiece_vocabulary(flags.vocabulary, flags.extra_ids)
    context.set_context(vocabulary, flags.data_dir or settings.get("TASK_DATA_DIR"))
    for feature, length in (settings.get("TASK_FEATURE_LENGTHS") or {}).items():
        if getattr(flags, f"{feature}_length", 0) is None:
            setattr(flags, f"{feature}_length", [length])
    name = settings.get("MIXTURE_OR_TASK_NAME")
    return flags.names or ([name] if name else [])


def _prepare_worker(task_name: str, flags: argparse.Namespace) -> None:
    """Registers a task in a worker of Beam; in the process that started the pipeline it is there already."""
    from prompt_tuning.commands.tasks import views as task_views

    if not task_views.is_registered(task_name):
        prepare(flags)


def _find(flags: argparse.Namespace, names: Sequence[str]) -> list[tuple[Any, list[str]]]:
    """Returns the tasks of the names, each with the splits to look at."""
    from prompt_tuning.commands.tasks import views as task_views
    from prompt_tuning.data import vocabularies

    found = []
    for task in task_views.find_tasks(names):
        for feature in task.output_features.values():
            vocabularies.check_vocabulary(feature.vocabulary)
        if flags.split is not None and flags.split not in task.splits:
            raise ConfigError(
                f"Task {task.name!r} has no such split",
                got=flags.split,
                expected=f"one of {', '.join(sorted(task.splits))}",
                fix="correct --split",
                name=flags.split,
                candidates=task.splits,
            )
        found.append((task, [flags.split] if flags.split else task_views.available_splits(task)))
    return found


def _lengths(flags: argparse.Namespace) -> dict[str, list[int]]:
    """Returns the lengths of each feature, as given or by default."""
    defaults = _STATS_LENGTHS if flags.view == "stats" else _LENGTHS
    lengths = {f: list(getattr(flags, f"{f}_length") or defaults[f]) for f in _LENGTHS}
    for feature, values in lengths.items():
        if flags.view != "stats" and len(values) != 1:
            raise ConfigError(
                f"--{feature}_length names several lengths",
                got=values,
                expected=f"one for `tasks {flags.view}`; `tasks stats` takes several",
                fix="name one",
            )
    return lengths


def _show(flags: argparse.Namespace, names: Sequence[str]) -> int:
    """Prints the first examples of one split of each task."""
    from prompt_tuning.commands.tasks import views as task_views

    lengths = {feature: values[0] for feature, values in _lengths(flags).items()}
    found: list[dict[str, Any]] = []
    for task, splits in _find(flags, names):
        shown = task_views.show_examples(
            task, splits[0], lengths=lengths, count=flags.num_examples or 3
        )
        found.append({"task": task.name, "split": splits[0], "examples": shown})
    _print(flags, found, _show_lines(found))
    return 0


def _stats(flags: argparse.Namespace, names: Sequence[str]) -> int:
    """Prints the figures of every split."""
    from prompt_tuning.commands.tasks import stats

    rows = [
        stats.measure(task, split, lengths=_lengths(flags), num_examples=flags.num_examples)
        for task, splits in _find(flags, names)
        for split in splits
    ]
    _print(flags, rows, _stats_lines(rows))
    return 0


def _check(flags: argparse.Namespace, names: Sequence[str]) -> int:
    """Prints the result of every check; 1 where one failed."""
    from prompt_tuning.commands.tasks import checks as task_checks
    from prompt_tuning.commands.tasks import views as task_views

    lengths = {feature: values[0] for feature, values in _lengths(flags).items()}
    found: list[dict[str, Any]] = []
    for task in task_views.find_tasks(names):
        splits = [flags.split] if flags.split else None
        checks = task_checks.check_task(task, lengths=lengths, splits=splits)
        found.append({"task": task.name, "checks": [dataclasses.asdict(c) for c in checks]})
    _print(flags, found, _check_lines(found))
    return int(any(c["status"] == "failed" for row in found for c in row["checks"]))


def _cache(flags: argparse.Namespace, names: Sequence[str]) -> int:
    """Writes the cache of each task."""
    from prompt_tuning.commands.tasks import cache

    rows = [
        cache.cache_task(
            task,
            splits,
            cache_dir=flags.output_cache_dir,
            min_shards=flags.min_shards,
            pipeline_options=flags.pipeline_options,
            overwrite=flags.overwrite,
            set_up=functools.partial(_prepare_worker, task.name, flags),
        )
        for task, splits in _find(flags, names)
    ]
    lines = [f"{r['task']}: {r['path']} {json.dumps(r['splits'])}" for r in rows]
    _print(flags, rows, lines)
    return 0


def _print(flags: argparse.Namespace, value: Any, lines: Iterable[str]) -> None:
    """Prints JSON or the table, as asked."""
    if flags.format == "json":
        print(json.dumps(value, ensure_ascii=False, indent=1))
        return
    for line in lines:
        print(line)


def _list_lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields a line a task or mixture."""
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        if row["kind"] == "mixture":
            yield f"{row['name']:<{width}}  mixture of {len(row['tasks'])}"
        else:
            yield (
                f"{row['name']:<{width}}  {', '.join(row['splits'])}; metrics: {', '.join(row['metrics']) or 'none'}"
            )


def _show_lines(found: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields the examples of each task, a field a line."""
    for row in found:
        for number, shown in enumerate(row["examples"]):
            yield f"{row['task']} {row['split']} {number}"
            yield f"  raw      {json.dumps(shown['raw'], ensure_ascii=False)}"
            if not shown["examples"]:
                yield "  dropped by preprocessing"
            for example in shown["examples"]:
                for feature, ids in example["ids"].items():
                    yield f"  {feature}"
                    yield f"    text     {example['text'].get(feature, '')}"
                    yield f"    ids      {' '.join(map(str, ids))}"
                    yield f"    decoded  {example['decoded'][feature]}"
                    yield f"    tokens   {len(ids)}, {example['truncated'][feature]} cut off"
                for mask in ("encoder_mask", "decoder_mask", "decoder_loss_weights"):
                    values = example["model"][mask]
                    yield f"  {mask:<20} 1 at {sum(values)} of {len(values)} positions"


def _stats_lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields one table of the lengths in tokens of all splits, then their labels."""
    table: list[list[str]] = []
    for row in rows:
        for feature, figures in row["features"].items():
            cut = "  ".join(
                f"{length}: {share:g}" for length, share in figures["truncated"].items()
            )
            unknown = [f"{figures[key]:g}" for key in ("unknown_tokens", "with_unknown")]
            tokens = figures["tokens"]
            head = [
                "task",
                "split",
                "examples",
                "feature",
                *tokens,
                "unk %",
                "with unk %",
                "cut off %",
            ]
            table = table or [head]
            cells = [
                row["task"],
                row["split"],
                row["examples"],
                feature,
                *tokens.values(),
                *unknown,
            ]
            table.append([str(cell) for cell in (*cells, cut)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        yield "  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
    for row in rows:
        if row["labels"] is not None:
            labels = ", ".join(f"{label!r} {count}" for label, count in row["labels"].items())
            yield f"{row['task']} {row['split']} targets: {labels}"


def _check_lines(found: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields a line a check."""
    for row in found:
        yield row["task"]
        for check in row["checks"]:
            yield f"  {check['status']:<8} {check['name']}: {check['detail']}"


def _counts(text: str) -> list[int]:
    """Reads whole numbers of at least 1, separated by commas."""
    values = [int(item) for item in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a number below 1")
    return values


def _parser() -> argparse.ArgumentParser:
    """Returns the parser of all views."""
    parser = argparse.ArgumentParser("prompt-tuning tasks", description=__doc__, allow_abbrev=False)
    views = parser.add_subparsers(dest="view", required=True, metavar="VIEW")
    for view, text in _VIEWS.items():
        add = views.add_parser(view, help=text, description=text, allow_abbrev=False).add_argument
        if view == "list":
            add("names", nargs="?", metavar="PATTERN", type=lambda text: [text], default=[])
        else:
            default = "tasks or mixtures; default: that of --gin_file"
            add("names", nargs="*", metavar="NAME", help=default)
        add("--format", choices=("table", "json"), default="table")
        add("--module", help="module that registers the task; default: all of this package")
        add(
            "--gin_file",
            action="append",
            default=[],
            help="gin file that describes the task, or the config.gin of a run; repeatable",
        )
        add("--data_dir", help="folder with the original files, instead of TensorFlow Datasets")
        add("--tfds_data_dir", help="folder of TensorFlow Datasets")
        add("--vocabulary", help="SentencePiece model; default: that of --gin_file, else T5's")
        add("--extra_ids", type=int, default=100, help="sentinels added to it (default: 100)")
        if view == "list":
            continue
        add("--split", help="default: all whose files are there; show: the first")
        if view == "cache":
            add("--output_cache_dir", required=True, help="folder of all cached tasks")
            add("--min_shards", type=int, default=64, help="files a split at least (default: 64)")
            add("--overwrite", action="store_true", help="replace a finished cache")
            add(
                "--pipeline_options",
                type=lambda text: text.split(","),
                default=[],
                help="Beam's flags, comma-separated: --pipeline_options=--runner=DataflowRunner,--project=…",
            )
            continue
        for feature in _LENGTHS:
            several = ", comma-separated" if view == "stats" else ""
            add(f"--{feature}_length", type=_counts, help=f"tokens, EOS included{several}")
        if view != "check":
            add("--num_examples", type=int, help="default: 3" if view == "show" else "default: all")
    return parser
