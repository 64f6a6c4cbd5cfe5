"""Tasks, post-processing and metrics against the reference."""

import contextlib
import importlib
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import answer_metrics, columns, context, metrics, postprocessors, registry
from prompt_tuning.data.benchmarks import pronouns, reading
from prompt_tuning.data.text import sentinel_targets
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from tests.parity.golden_folder import Golden
from tests.parity.rows import NotChecked, Row

METRIC = 1e-9
TASK_MODULES = ("glue", "super_glue", "question_answering")
# File of reference results -> what computes them here.
METRICS: dict[str, list[metrics.MetricFn]] = {
    "accuracy": [metrics.accuracy],
    "f1": [metrics.binary_f1, metrics.accuracy],
    "cb": [metrics.mean_multiclass_f1(num_classes=3), metrics.accuracy],
    "matthews_corrcoef": [metrics.matthews_corrcoef],
    "stsb": [metrics.pearson_corrcoef, metrics.spearman_corrcoef],
    "squad": [answer_metrics.squad],
    "record": [answer_metrics.first_of_group(answer_metrics.squad)],
    "multirc": [answer_metrics.f1_over_answers, answer_metrics.exact_groups],
}
_GROUPED = {"multirc": postprocessors.grouped_label_index(("False", "True"))}
_TO_QQP = postprocessors.translated(postprocessors.plain_text, {"equivalent": "duplicate"})
_TO_MRPC = postprocessors.translated(postprocessors.plain_text, {"duplicate": "equivalent"})
_OF_TARGET = {
    "multirc": _GROUPED["multirc"],
    "record": reading.grouped_answers,
    "qa": reading.all_answers,
}


def metric_functions(golden: Golden) -> Iterator[Row | NotChecked]:
    """Metrics over post-processed targets and predictions, and post-processing itself."""
    for path in _files(golden, "metrics", ".json"):
        if path.stem == "meta":
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "postprocess":
            yield from _postprocessing(content)
        elif path.stem == "normalize":
            cases = content["cases"]
            wrong = sum(answer_metrics.normalize_answer(c["text"]) != c["squad"] for c in cases)
            yield Row("metrics/normalize/squad", wrong, 0, "count", f"{len(cases)} cases")
            yield NotChecked("metrics/normalize.json: trivia_qa", "no task here needs it")
        elif path.stem not in METRICS:
            yield NotChecked(f"metrics/{path.name}", "no such metric here")
        else:
            measured = [_metric_difference(METRICS[path.stem], case) for case in content["cases"]]
            note = f"{len(measured)} cases"
            value = float(np.max(measured))
            yield Row(f"metrics/{path.stem}", value, METRIC, "absolute", note)


def _metric_difference(functions: list[metrics.MetricFn], case: dict[str, Any]) -> float:
    """How far a case's result is from the reference's; infinitely, where only one of the two is an error."""
    targets, predictions = (_hashable(case[name]) for name in ("targets", "predictions"))
    if metrics.pearson_corrcoef in functions:
        targets, predictions = ([_number(x) for x in values] for values in (targets, predictions))
    result: dict[str, Any] = {}
    failed = False
    for metric_fn in functions:
        try:
            result |= metric_fn(targets, predictions)
        except (ValueError, ZeroDivisionError, TypeError):
            failed = True
    expected = case["result"]
    if failed or "error" in expected:
        return 0.0 if failed and "error" in expected else math.inf
    if result.keys() != expected.keys():
        return math.inf
    return max(_distance(result[name], float(expected[name])) for name in expected)


def _distance(ours: float, theirs: float) -> float:
    """The absolute difference, 0 of what is not finite and the same, and infinite of NaN and a number."""
    if ours == theirs:
        return 0.0
    if math.isnan(ours) or math.isnan(theirs):
        return 0.0 if math.isnan(ours) and math.isnan(theirs) else math.inf
    return abs(ours - theirs)


def _number(value: Any) -> Any:
    """A number that JSON cannot hold, where its name stands for it; other values as they are."""
    return float(value) if value in ("nan", "inf", "-inf") else value


def _hashable(values: Any) -> Any:
    """Values with groups as tuples, which JSON turned into lists."""
    return [
        {**v, "group": tuple(v["group"])} if isinstance(v, dict) and _is_list(v, "group") else v
        for v in values
    ]


def _is_list(value: dict[str, Any], name: str) -> bool:
    """Whether an entry is a list."""
    return isinstance(value.get(name), list)


def _postprocessing(content: dict[str, list]) -> Iterator[Row | NotChecked]:
    """Texts to values."""
    for name, cases in content.items():
        if name not in POSTPROCESSORS:
            yield NotChecked(f"metrics/postprocess.json: {name}", "no such post-processing here")
            continue
        wrong = sum(not POSTPROCESSORS[name](case) for case in cases)
        yield Row(f"postprocess/{name}", wrong, 0, "count", f"{len(cases)} cases")


def _label_agrees(case: dict[str, Any]) -> bool:
    postprocess = postprocessors.label_index(case["label_classes"])
    return postprocess(case["prediction"]) == case["result"]


def _referent_agrees(case: dict[str, Any]) -> bool:
    example = {"targets_pretokenized": case["referent"].encode()}
    return pronouns.names_referent(case["prediction"], example=example) == case["result"]


def _value_and_target_agree(name: str) -> Callable[[dict[str, Any]], bool]:
    """A comparison of what a postprocessor makes of a prediction and of a target."""

    def agree(case: dict[str, Any]) -> bool:
        postprocess, text = _OF_TARGET[name], case["prediction"]
        target = postprocess(text, example=_example(case["target_result"]), is_target=True)
        value = postprocess(text)
        return _plain(value) == case["result"] and _plain(target) == case["target_result"]

    return agree


def _example(target: Any) -> dict[str, Any]:
    """The example of a target: its answers and numbers are what has to arrive there."""
    if isinstance(target, list):
        return {"answers": [answer.encode() for answer in target]}
    group = target["group"]
    if isinstance(group, list):
        answers = [answer.encode() for answer in target["value"]]
        return {"answers": answers, "idx/passage": group[0], "idx/query": group[1]}
    return {"idx/question": group}


def _translations_agree(case: dict[str, Any]) -> bool:
    text = case["prediction"]
    return (_TO_QQP(text), _TO_MRPC(text)) == (case["mrpc_to_qqp"], case["qqp_to_mrpc"])


# Kind of post-processing -> whether a case agrees.
POSTPROCESSORS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "string_label_to_class_id": _label_agrees,
    "string_to_float": lambda case: (
        _distance(postprocessors.number(case["prediction"]), _number(case["result"])) == 0
    ),
    "wsc_simple": _referent_agrees,
    **{name: _value_and_target_agree(name) for name in _OF_TARGET},
    "remove_extra_id_0": lambda case: (
        sentinel_targets.without_sentinel(case["prediction"]) == case["result"]
    ),
    "mrpc_qqp": _translations_agree,
}


def tasks(golden: Golden) -> Iterator[Row | NotChecked]:
    """The text of every registered task, and with T5's vocabulary its ids and post-processed targets."""
    import seqio

    for module in TASK_MODULES:
        importlib.import_module(f"prompt_tuning.tasks.{module}")
    known = set(seqio.TaskRegistry.names())
    if golden.vocabulary is None:
        yield NotChecked("tasks/*.jsonl: tokens", "no T5 vocabulary; name one with --vocabulary")
    for path in _files(golden, "tasks", ".jsonl"):
        lines = path.read_text(encoding="utf-8").split("\n")
        examples = [json.loads(line) for line in lines if line]
        for form, name in examples[0]["task_names"].items():
            if name is None:
                continue
            if name not in known:
                yield NotChecked(f"tasks/{path.name}: {form}", f"no task {name} here")
                continue
            note = f"{len(examples)} examples"
            wrong = _differing_texts(examples, form)
            yield Row(f"tasks/{path.stem}/{form}/text", wrong, 0, "count", note)
            if golden.vocabulary is not None:
                vocabulary = sentencepiece_vocabulary(str(golden.vocabulary))
                wrong = _differing_ids(examples, form, vocabulary)
                yield Row(f"tasks/{path.stem}/{form}/ids", wrong, 0, "count", note)


def _listed(examples: Sequence[dict[str, Any]], *keys: str) -> list[Any]:
    """What the reference made of the examples in a row; of each it is a list only where it may be several."""
    made: list[Any] = []
    for value in examples:
        for key in keys:
            value = value[key]
        made += value if isinstance(value, list) else [value]
    return made


def _count_differing(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    """How many of two rows differ; all, if one is longer."""
    if len(ours) != len(theirs):
        return max(len(ours), len(theirs))
    return sum(a != b for a, b in zip(ours, theirs, strict=True))


def _differing_texts(examples: Sequence[dict[str, Any]], form: str) -> int:
    """How many texts of a task, or of its form for logged examples, are others."""
    import seqio

    expected = [(made["inputs"], made["targets"]) for made in _listed(examples, form)]
    name = examples[0]["task_names"][form]
    with_examples = name if name.endswith("_examples") else f"{name}_examples"
    raw = [example["raw"] for example in examples]
    return sum(
        _count_differing(registry.texts(seqio.TaskRegistry.get(task), raw), expected)
        for task in {name, with_examples}
    )


def _differing_ids(examples: Sequence[dict[str, Any]], form: str, vocabulary: Any) -> int:
    """How often a task makes other ids, another feature besides, or another value of its target."""
    import seqio

    expected = _listed(examples, form)
    task = seqio.TaskRegistry.get(examples[0]["task_names"][form])
    with _with_vocabulary(vocabulary):
        ds = columns.as_dataset(columns.from_rows([example["raw"] for example in examples]))
        ds = task.preprocess_postcache(task.preprocess_precache(ds), sequence_length=None)
        made = [_plain(features) for features in ds.as_numpy_iterator()]
        values = [
            _plain(
                task.postprocess_fn(
                    vocabulary.decode(features["targets"]), example=features, is_target=True
                )
            )
            for features in made
        ]
    tokens = [{n: f[n] for n in ("inputs", "targets")} for f in made]
    others = [set(reference) - {"inputs", "targets"} for reference in expected]
    features = [{n: f[n] for n in names} for f, names in zip(made, others, strict=False)]
    references = [{n: r[n] for n in names} for r, names in zip(expected, others, strict=True)]
    wrong = _count_differing(tokens, _listed(examples, "tokens", form))
    wrong += _count_differing(features, references)
    if form not in examples[0]["postprocessed_target"]:
        return wrong
    may_be_several = isinstance(examples[0][form], list)
    targets = [example["postprocessed_target"][form] for example in examples]
    return wrong + _count_differing(values, sum(targets, []) if may_be_several else targets)


@contextlib.contextmanager
def _with_vocabulary(vocabulary: Any) -> Iterator[None]:
    """Within the block, tasks use the vocabulary."""
    context.set_context(vocabulary=vocabulary)
    try:
        yield
    finally:
        context.set_context()


def _plain(value: Any) -> Any:
    """A value as JSON would hold it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    is_row = isinstance(value, Sequence) and not isinstance(value, str)
    return [_plain(item) for item in value] if is_row else value


def _files(golden: Golden, folder: str, suffix: str) -> list[pathlib.Path]:
    """The files of a kind in a subfolder."""
    return sorted((golden.path / folder).glob(f"*{suffix}"))
