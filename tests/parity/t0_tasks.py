"""T0's tasks and mixtures, P3's caches and rank scores against those of the original code."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import seqio
from seqio import dataset_providers

from prompt_tuning import tree
from prompt_tuning.checkpoints.load import load_params
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.data import context
from prompt_tuning.data.inference_examples import model_features
from prompt_tuning.data.ranking import Choice, accuracy_of_choices
from prompt_tuning.data.t0 import mixtures, p3
from prompt_tuning.data.t0 import tasks as t0_tasks
from prompt_tuning.data.t0.sources import HubDataSource
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.render import fixed_choices
from prompt_tuning.data.templates.tasks import SCORE_EVAL, score_task, template_task
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.inference import Inference
from tests.parity.rows import NotChecked, Row

# t5's function -> ours. T5 counts ReCoRD's questions once each by a number that T0's examples do not have.
_METRICS = {
    "accuracy": "accuracy",
    "bleu": "bleu",
    "deduplicate_metric.<locals>._deduplicated_metric": "squad",
    "f1_score_with_invalid": "binary_f1",
    "rouge": "rouge",
    "sklearn_metrics_wrapper.<locals>.fn": "mean_multiclass_f1",
    "spearman_corrcoef": "spearman_corrcoef",
    "squad": "squad",
}
# These are of classes: left out here where a template has no fixed answers.
_OF_CLASSES = {"binary_f1", "mean_multiclass_f1", "spearman_corrcoef"}
_ANY = Template("any", "any", "", "", False, False, (), "tests")


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of mixtures.json, p3_cache/ and rank_scores.json, whichever there are."""
    if (directory / "mixtures.json").is_file() and (directory / "templates").is_dir():
        yield from _mixtures(directory)
    if (directory / "rank_scores.json").is_file():
        yield from _rank_scores(directory)
    for name, compare in (("p3_cache", _p3), ("p3_card_examples.json", _card)):
        if not (directory / name).exists():
            continue
        if vocabulary is None:
            yield NotChecked(name, "no vocabulary: name T5's by --vocabulary")
            continue
        with context.overriding(vocabulary=sentencepiece_vocabulary(str(vocabulary))):
            yield from compare(directory)


def _mixtures(directory: pathlib.Path) -> Iterator[Row]:
    """Names, rates and sums of the mixtures, and every task in them."""
    reference = _read(directory / "mixtures.json")
    templates = read_templates(str(directory / "templates"))
    members: dict[str, mixtures.Member] = {}
    for name, theirs in reference["mixtures"].items():
        ours = list(mixtures.MIXTURES[name].members(templates))
        members |= {member.name: member for member in ours}
        names = sorted(member.name for member in ours)
        yield _count(
            f"mixtures/{name}/tasks", set(names) ^ set(theirs["tasks"]), f"{len(names)} tasks"
        )
        yield Row(
            f"mixtures/{name}/number",
            abs(len(names) - theirs["num_tasks"]),
            0,
            "count",
            f"{len(names)}",
        )
        if "rates" not in theirs:
            continue
        rates = {member.name: member.rate for member in ours}
        wrong = [task for task, rate in theirs["rates"].items() if rates.get(task) != rate]
        yield _count(f"mixtures/{name}/rates", wrong, f"{len(rates)} rates")
        total = sum(rates.values())
        off = abs(total - theirs["sum_of_rates"])
        yield Row(f"mixtures/{name}/sum_of_rates", off, 0, "count", f"{total:,.0f}")
    if "blacklist" in reference:
        differing = mixtures.BLACKLIST ^ set(reference["blacklist"])
        yield _count("mixtures/blacklist", differing, f"{len(mixtures.BLACKLIST)} names")
    yield from _tasks(reference["tasks"], members)
    yield from _evaluation_templates(reference.get("evaluation_templates", {}), members)


def _tasks(reference: Mapping[str, Any], members: Mapping[str, mixtures.Member]) -> Iterator[Row]:
    """What each task is made of; a task that is evaluated only is compared with its ranked form."""
    wrong: dict[str, list[str]] = {
        part: [] for part in ("templates", "fixed_choices", "metrics", "scored", "splits")
    }
    for name, theirs in reference.items():
        member = members.get(name) or members.get(name + SCORE_EVAL)
        if member is None:
            for missing in wrong.values():
                missing.append(name)
            continue
        data, template = member.data, member.template
        parts = (*data.key, template.name, template.id)
        keys = ("dataset", "subset", "template_name", "template_id")
        if parts != tuple(theirs[key] for key in keys) or (
            template.original_task != theirs["original_task"]
            or template.choices_in_prompt != theirs["choices_in_prompt"]
            or list(template.metrics) != list(theirs["template_metrics"] or ())
        ):
            wrong["templates"].append(name)
        fixed = fixed_choices(template)
        if list(fixed or ()) != list(theirs["fixed_answer_choices"] or ()):
            wrong["fixed_choices"].append(name)
        unscored = dataclasses.replace(member, is_scored=False)
        task = t0_tasks.make_task(unscored, HubDataSource(data), 0)
        expected = [_METRICS[metric] for metric in theirs["metric_fns"]]
        expected = [m for m in expected if fixed or m not in _OF_CLASSES]
        if [_metric_name(fn) for fn in task.metric_fns] != expected:
            wrong["metrics"].append(name)
        if bool(template.answer_choices) != (theirs["score_eval_metric"] is not None):
            wrong["scored"].append(name)
        if sorted(task.splits) != sorted(theirs["splits"]):
            wrong["splits"].append(name)
    for part, names in wrong.items():
        yield _count(f"tasks/{part}", names, f"{len(reference)} tasks")


def _metric_name(fn: Any) -> str:
    """What a metric of ours is called in `_METRICS`."""
    return fn.__qualname__.split(".<locals>")[0].lstrip("_")


def _evaluation_templates(
    reference: Mapping[str, Sequence[str]], members: Mapping[str, mixtures.Member]
) -> Iterator[Row]:
    """The templates that T0 is evaluated with, by data set."""
    ours: dict[str, list[str]] = {}
    for member in members.values():
        if member.is_scored and member.data.eval == "BASE":
            key = " ".join(filter(None, (member.data.path, member.data.round)))
            ours.setdefault(key, []).append(member.template.name)
    if reference:
        wrong = [
            k
            for k in {**ours, **reference}
            if sorted(ours.get(k, ())) != sorted(reference.get(k, ()))
        ]
        total = sum(map(len, reference.values()))
        yield _count(
            "tasks/evaluation_templates", wrong, f"{total} templates of {len(reference)} data sets"
        )


def _p3(directory: pathlib.Path) -> Iterator[Row]:
    """Each cached task read here: the texts and, tokenized again, the ids; and its ranked rows."""
    cache = directory / "p3_cache"
    for folder in sorted(path for path in cache.iterdir() if path.is_dir()):
        if folder.name.endswith(SCORE_EVAL):
            base = cache / folder.name.removesuffix(SCORE_EVAL)
            if not base.is_dir():
                continue
            source = p3.P3DataSource(str(base), has_choices=True)
            task = score_task(folder.name, source, _ANY, text=p3.written(), inputs_end=False)
        else:
            split = _split_of(folder)
            info = _read(folder / f"info.{split}.json")
            has_choices = "answer_choices" in info["features"]
            source = p3.P3DataSource(str(folder), has_choices=has_choices)
            task = template_task(folder.name, source, _ANY, text=p3.written(), inputs_end=False)
        split = _split_of(folder)
        ours = [_plain_example(e) for e in _examples(task, split)]
        theirs = [_plain_example(e) for e in _cached(folder, split)]
        # Files of another number hold the examples in another order.
        ours, theirs = _grouped(ours), _grouped(theirs)
        longest = max(len(ours), len(theirs))
        padded = [[*some, *[None] * (longest - len(some))] for some in (ours, theirs)]
        wrong = [a for a, b in zip(*padded, strict=True) if a != b]
        yield _count(f"p3_cache/{folder.name}", wrong, f"{len(theirs)} examples")


def _split_of(folder: pathlib.Path) -> str:
    """The split that a cached task has."""
    return next(iter(sorted(folder.glob("info.*.json")))).name.split(".")[1]


def _examples(task: seqio.Task, split: str) -> list[Mapping[str, Any]]:
    """All examples of a task, in order."""
    dataset = task.get_dataset(None, split=split, shuffle=False, num_epochs=1)
    return list(dataset.as_numpy_iterator())  # pyright: ignore[reportArgumentType]


def _cached(folder: pathlib.Path, split: str) -> list[Mapping[str, Any]]:
    """The examples of a cache as SeqIO reads it."""
    source: Any = dataset_providers._CachedDataSource(str(folder), split)
    return list(source.get_dataset(split, shuffle=False).as_numpy_iterator())


def _plain_example(example: Mapping[str, Any]) -> dict[str, Any]:
    """What both sides have: ids, texts without the line break of P3, choices, and which rows belong together."""
    found: dict[str, Any] = {name: example[name].tolist() for name in ("inputs", "targets")}
    for name in ("inputs_pretokenized", "targets_pretokenized"):
        found[name] = bytes(example[name]).decode("utf-8").strip()
    if "answer_choices" in example:
        found["choices"] = [choice.decode("utf-8") for choice in example["answer_choices"].tolist()]
    if "idx" in example:
        found |= {"idx": example["idx"].tolist(), "right": bool(example["is_correct"])}
    elif "rank/example" in example:
        idx = [int(example["rank/example"]), int(example["rank/class"])]
        found |= {"idx": idx, "right": bool(example["rank/is_right"])}
    return found


def _grouped(examples: Sequence[dict[str, Any]]) -> list[Any]:
    """The rows of one example together, in order of their choices, and these groups in order of their content."""
    groups: dict[Any, list[Any]] = {}
    for number, example in enumerate(examples):
        group, index = example.pop("idx", (number, 0))
        groups.setdefault(group, []).append((index, example))
    rows = [sorted(group, key=lambda row: row[0]) for group in groups.values()]
    return sorted(rows, key=json.dumps)


def _card(directory: pathlib.Path) -> Iterator[Row]:
    """The examples of P3's card: their texts are these ids."""
    examples = _read(directory / "p3_card_examples.json")["examples"]
    vocabulary = context.get_vocabulary()
    assert vocabulary is not None
    wrong = [
        name
        for example in examples
        for name, end in (("inputs", []), ("targets", [1]))
        if [*vocabulary.encode(example[f"{name}_pretokenized"].strip()), *end] != example[name]
    ]
    yield _count("p3_card_examples/ids", wrong, f"{len(examples)} examples")


def _rank_scores(directory: pathlib.Path) -> Iterator[Row]:
    """Log-likelihoods of the choices of each item, and which one is chosen, by T0's rule and by T-Few's."""
    reference = _read(directory / "rank_scores.json")
    params, model = _load_model(directory / reference["model"])
    inference = Inference(model, PjitPartitioner(), batch_size=8)
    for convention in ("t0", "tfew"):
        items = [(item, item[convention]) for item in reference["items"]]
        rows = [
            (n, c, ids)
            for n, (_, own) in enumerate(items)
            for c, ids in enumerate(own["choice_ids"])
        ]
        lengths = {
            "inputs": max(len(own["input_ids"]) for _, own in items),
            "targets": max(len(ids) for _, _, ids in rows),
        }
        examples = [
            (i, model_features(items[n][1]["input_ids"], ids, lengths))
            for i, (n, _, ids) in enumerate(rows)
        ]
        scores = [score for _, score in inference.score(params, examples)]
        choices = [
            Choice(
                n,
                c,
                len(items[n][1]["choice_ids"]),
                items[n][0]["label"] == c,
                len(ids) if convention == "tfew" else 1,
            )
            for n, c, ids in rows
        ]
        by_item: list[list[float]] = [[] for _ in items]
        for choice, score in zip(choices, scores, strict=True):
            by_item[choice.example].append(score / choice.length)
        sign = 1.0 if convention == "t0" else -1.0
        pairs = zip(by_item, (own["scores"] for _, own in items), strict=True)
        largest = max(float(np.abs(sign * np.array(a) - np.array(b)).max()) for a, b in pairs)
        yield Row(
            f"rank_scores/{convention}/scores", largest, 1e-4, "absolute", f"{len(rows)} choices"
        )
        wrong = [
            n for n, (_, own) in enumerate(items) if int(np.argmax(by_item[n])) != own["prediction"]
        ]
        yield _count(f"rank_scores/{convention}/predictions", wrong, f"{len(items)} items")
        accuracy = accuracy_of_choices(choices, scores)["accuracy"] / 100
        off = abs(accuracy - reference[f"accuracy_{convention}"])
        yield Row(f"rank_scores/{convention}/accuracy", off, 1e-6, "absolute", f"{accuracy:.4f}")


def _load_model(folder: pathlib.Path) -> tuple[Any, EncoderDecoderModel]:
    """The parameters in float32 and the model of a checkpoint in Hugging Face's form."""
    source = open_source(folder)
    assert source.kind == "huggingface" and source.settings is not None
    model = EncoderDecoderModel(T5(T5Config(**source.settings, dtype="float32")), None, None)
    shapes = model.param_shapes
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = load_params(source, shapes, dict.fromkeys(shapes, sharding), model_shapes=shapes)
    return tree.unflatten({path: np.asarray(x) for path, x in placed.items()}), model


def _read(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _count(name: str, wrong: Any, note: str) -> Row:
    """A row of things that are equal or not."""
    return Row(name, len(list(wrong)), 0, "count", note)
