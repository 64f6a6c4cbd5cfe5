"""The command `prompt-tuning tasks`: lists, shows, measures, checks and caches SeqIO tasks and mixtures."""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.config.flags import add_allow_imports, whole_number
from prompt_tuning.errors import ConfigError
from prompt_tuning.run.text_table import aligned

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
    if not names and flags.view != "list":
        raise ConfigError(
            "No task is named",
            got=None,
            expected="the name of a task or mixture",
            fix=f"write `prompt-tuning tasks {flags.view} NAME`; `prompt-tuning tasks list` shows the names",
        )
    find, to_lines = _VIEWS[flags.view]
    found = find(flags, names)
    if flags.format == "json":
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        print("".join(f"{line}\n" for line in to_lines(found)), end="")
    is_check = flags.view == "check"
    return int(is_check and any(c["status"] == "failed" for row in found for c in row["checks"]))


def prepare(flags: argparse.Namespace) -> list[str]:
    """Registers tasks and sets the vocabulary and the folders, as the flags and gin files say.

    Args:
      flags: Parsed flags; lengths that are not set are taken from the gin files.

    Returns:
      The names that were typed, else the one of the gin files, if any.
    """
    from prompt_tuning.config import queries, resolve
    from prompt_tuning.data import batches, context, vocabularies

    settings = {}
    if flags.gin_file:
        settings = queries.query_macros(flags.gin_file, _MACROS, flags.allow_imports)
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
    from prompt_tuning.commands.tasks import views

    if not views.is_registered(task_name):
        prepare(flags)


def _find_tasks(names: Sequence[str]) -> Iterator[Any]:
    """Yields the tasks of the names, whose vocabularies have been read."""
    from prompt_tuning.commands.tasks import views
    from prompt_tuning.data import vocabularies

    for task in views.find_tasks(names):
        for feature in task.output_features.values():
            vocabularies.check_vocabulary(feature.vocabulary)
        yield task


def _find(flags: argparse.Namespace, names: Sequence[str]) -> Iterator[tuple[Any, list[str]]]:
    """Yields the tasks of the names, each with the splits to look at."""
    from prompt_tuning.commands.tasks import views
    from prompt_tuning.data import batches

    for task in _find_tasks(names):
        if flags.split is not None:
            batches.eval_task_names(batches.DatasetConfig(task.name, None, flags.split, 1))
        yield task, [flags.split] if flags.split else views.available_splits(task)


def _lengths(flags: argparse.Namespace, defaults: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Returns the lengths of each feature, as given or by default."""
    return {f: list(getattr(flags, f"{f}_length") or defaults[f]) for f in defaults}


def _one_length(flags: argparse.Namespace) -> dict[str, int]:
    """Returns the length of each feature, for views that take one."""
    lengths = _lengths(flags, _LENGTHS)
    for feature, values in lengths.items():
        if len(values) != 1:
            raise ConfigError(
                f"--{feature}_length names several lengths",
                got=values,
                expected=f"one for `tasks {flags.view}`; `tasks stats` takes several",
                fix="name one",
            )
    return {feature: values[0] for feature, values in lengths.items()}


def _list(flags: argparse.Namespace, _: Sequence[str]) -> list[dict[str, Any]]:
    """Names of tasks and mixtures that hold PATTERN, or match it as a shell pattern."""
    from prompt_tuning.commands.tasks import views

    return views.list_tasks(flags.names[0] if flags.names else None)


def _list_lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Returns a line a task or mixture."""
    table = []
    for row in rows:
        what = f"mixture of {len(row.get('tasks', ()))}"
        if row["kind"] == "task":
            what = f"{', '.join(row['splits'])}; metrics: {', '.join(row['metrics']) or 'none'}"
        table.append((row["name"], what))
    return aligned(table).splitlines()


def _show(flags: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Raw examples, and the text, answer choices, ids, decoded text and masks made of them."""
    from prompt_tuning.commands.tasks import views

    lengths, count = _one_length(flags), flags.num_examples or 3
    return [
        {
            "task": task.name,
            "split": split,
            "examples": views.show_examples(task, split, lengths=lengths, count=count),
        }
        for task, (split, *_) in _find(flags, names)
    ]


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
                if example["choices"]:
                    yield f"  choices    {' ||| '.join(example['choices'])}"
                for mask in ("encoder_mask", "decoder_mask", "decoder_loss_weights"):
                    values = example["model"][mask]
                    yield f"  {mask:<20} 1 at {sum(values)} of {len(values)} positions"


def _stats(flags: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Lengths, truncation, labels and unknown tokens."""
    from prompt_tuning.commands.tasks import stats

    lengths = _lengths(flags, _STATS_LENGTHS)
    return [
        stats.measure(task, split, lengths=lengths, num_examples=flags.num_examples)
        for task, splits in _find(flags, names)
        for split in splits
    ]


def _stats_lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields one table of the lengths in tokens of all splits, then their labels."""
    table: list[list[str]] = []
    for row in rows:
        for feature, figures in row["features"].items():
            tokens = figures["tokens"]
            if not table:
                head = ("task", "split", "examples", "feature", *tokens)
                table.append([*head, "unk %", "with unk %", "cut off %"])
            unknown = [f"{figures[key]:g}" for key in ("unknown_tokens", "with_unknown")]
            cut = "  ".join(f"{n}: {share:g}" for n, share in figures["truncated"].items())
            first = (row["task"], row["split"], str(row["examples"]), feature)
            table.append([*first, *map(str, tokens.values()), *unknown, cut])
    yield from aligned(table).splitlines()
    for row in rows:
        if row["labels"] is not None:
            labels = ", ".join(f"{label!r} {count}" for label, count in row["labels"].items())
            yield f"{row['task']} {row['split']} targets: {labels}"


def _check(flags: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Schema, labels, gold scores and overlap, and what is cut or unknown; exits with 1 where a check fails."""
    from prompt_tuning.commands.tasks import checks

    lengths = _one_length(flags)
    splits = [flags.split] if flags.split else None
    found = []
    for task in _find_tasks(names):
        results = checks.check_task(task, lengths=lengths, splits=splits)
        warnings = [check.detail for check in results if check.status == "warning"]
        rows = [dataclasses.asdict(check) for check in results if check.status != "warning"]
        found.append({"task": task.name, "checks": rows, "warnings": warnings})
    return found


def _check_lines(found: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yields a line a check."""
    for row in found:
        yield row["task"]
        for check in row["checks"]:
            yield f"  {check['status']:<8} {check['name']}: {check['detail']}"
        yield from (f"  warning  {text}" for text in row["warnings"])


def _cache(flags: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """SeqIO's offline cache, written with Apache Beam (extra [cache])."""
    from prompt_tuning.commands.tasks import cache

    return [
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


def _cache_lines(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Returns a line a task."""
    return [f"{row['task']}: {row['path']} {json.dumps(row['splits'])}" for row in rows]


# View -> what finds what it shows, whose docstring is the view's help, and what makes lines of that.
_VIEWS: dict[str, tuple[Callable[..., Any], Callable[..., Iterable[str]]]] = {
    "list": (_list, _list_lines),
    "show": (_show, _show_lines),
    "stats": (_stats, _stats_lines),
    "check": (_check, _check_lines),
    "cache": (_cache, _cache_lines),
}


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
    for view, (find, _) in _VIEWS.items():
        text = find.__doc__
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
        add_allow_imports(views.choices[view])
        add("--data_dir", help="folder with the original files, instead of TensorFlow Datasets")
        add("--tfds_data_dir", help="folder of TensorFlow Datasets")
        add("--vocabulary", help="SentencePiece model; default: that of --gin_file, else T5's")
        add(
            "--extra_ids",
            type=whole_number(0),
            default=100,
            help="sentinels added to it (default: 100)",
        )
        if view == "list":
            continue
        add("--split", help="default: all whose files are there; show: the first")
        if view == "cache":
            add("--output_cache_dir", required=True, help="folder of all cached tasks")
            add(
                "--min_shards",
                type=whole_number(1),
                default=64,
                help="files a split at least (default: 64)",
            )
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
            add(
                "--num_examples",
                type=whole_number(1),
                help="default: 3" if view == "show" else "default: all",
            )
    return parser
