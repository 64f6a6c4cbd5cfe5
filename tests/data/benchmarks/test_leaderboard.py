"""Averages over SuperGLUE and GLUE, and the files that SuperGLUE's leaderboard takes."""

import json
from unittest import mock

import pytest
import seqio

from prompt_tuning.data import evaluation
from prompt_tuning.data.benchmarks import leaderboard
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import (  # noqa: F401  (registers the tasks)
    glue,
    sentinel_targets,
    super_glue,
)
from tests.data.local_data import write_jsonl

RESULTS = {
    "taskless_super_glue_boolq_v102": {"accuracy": 80.0},
    "taskless_super_glue_cb_v102": {"mean_3class_f1": 90.0, "accuracy": 100.0},
    "taskless_super_glue_copa_v102": {"accuracy": 70.0},
    "taskless_super_glue_multirc_v102": {"f1": 80.0, "exact_match": 40.0},
    "taskless_super_glue_record_v102": {"em": 60.0, "f1": 62.0},
    "taskless_super_glue_rte_v102_examples": {"accuracy": 75.0},
    "taskless_super_glue_wic_v102": {"accuracy": 65.0},
    "taskless_super_glue_wsc_v102_simple_eval": {"accuracy": 60.0},
}


GLUE_RESULTS = {
    "glue_cola_v200": {"matthews_corrcoef": 50.0},
    "glue_sst2_v200": {"accuracy": 95.0},
    "glue_mrpc_v200_rank": {"f1": 90.0, "accuracy": 86.0},
    "glue_qqp_v200": {"f1": 88.0, "accuracy": 90.0},
    "glue_stsb_v200": {"pearson_corrcoef": 80.0, "spearman_corrcoef": 82.0},
    "glue_mnli_matched_v200": {"accuracy": 84.0},
    "glue_mnli_mismatched_v200_examples": {"accuracy": 86.0},
    "glue_qnli_v200": {"accuracy": 91.0},
    "glue_rte_v200": {"accuracy": 70.0},
}
AVERAGES = {
    "super_glue_average": {"average": pytest.approx((80 + 95 + 70 + 60 + 61 + 75 + 65 + 60) / 8)},
    "glue_average": {"average": pytest.approx((50 + 95 + 88 + 89 + 81 + 85 + 91 + 70) / 8)},
}


def test_tasks_of_several_metrics_are_averaged_first():
    others = {"super_glue_axb_v102": {"accuracy": 0.0}, "glue_wnli_v200": {"accuracy": 0.0}}
    others |= {"glue_mrpc_from_qqp_v200": {"accuracy": 0.0}, "super_glue_wsc_v102_simple_train": {}}
    assert leaderboard.averages({**RESULTS, **GLUE_RESULTS, **others}) == AVERAGES
    assert list(leaderboard.averages(RESULTS)) == ["super_glue_average"]
    taskless = {f"taskless_{task}": metrics for task, metrics in GLUE_RESULTS.items()}
    assert list(leaderboard.averages(taskless)) == ["glue_average"]
    assert set(GLUE_RESULTS) <= set(seqio.TaskRegistry.names())


def test_a_missing_task_has_no_average():
    for results in (RESULTS, GLUE_RESULTS):
        for missing in results:
            rest = {task: metrics for task, metrics in results.items() if task != missing}
            assert leaderboard.averages(rest) == {}


def test_an_evaluation_logs_the_averages_as_it_logs_tasks(tmp_path):
    evaluator = mock.Mock()
    values = {
        task: {metric: seqio.metrics.Scalar(value) for metric, value in metrics.items()}
        for task, metrics in RESULTS.items()
    }
    evaluator.evaluate.return_value = (mock.Mock(result=lambda: values), None)
    evaluator.loggers = [seqio.TensorBoardLogger(str(tmp_path)), seqio.JSONLogger(str(tmp_path))]
    fns = dict.fromkeys(("predict_fn", "score_fn", "predict_with_aux_fn"), mock.Mock())
    results = evaluation.run_evaluator(evaluator, **fns, step=7)
    average = AVERAGES["super_glue_average"]
    assert results == {**RESULTS, "super_glue_average": average}
    line = (tmp_path / "super_glue_average-metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 7, **average}
    (events,) = (tmp_path / "super_glue_average").iterdir()
    assert b"eval/average" in events.read_bytes()
    # The best checkpoint is chosen by the tasks alone.
    assert evaluation.default_metric(results) == evaluation.default_metric(RESULTS)


@pytest.mark.parametrize("suffix", ["_rank", "_sentinel"])
def test_other_forms_have_the_same_average(suffix):
    def renamed(task):
        is_ranked = any(name in task for name in ("boolq", "cb", "copa", "multirc", "rte", "wic"))
        task = task.removesuffix("_examples")
        return f"{task}{suffix}" if suffix != "_rank" or is_ranked else task

    results = {renamed(task): metrics for task, metrics in RESULTS.items()}
    assert leaderboard.averages(results) == leaderboard.averages(RESULTS)
    assert set(results) <= set(seqio.TaskRegistry.names())
    ranked = seqio.MixtureRegistry.get("taskless_super_glue_v102_rank")
    assert suffix != "_rank" or {task.name for task in ranked.tasks} == set(results)


PAIR = {"premise": "p", "hypothesis": "h"}
MULTIRC = {
    "idx": 7,
    "passage": {
        "text": "t",
        "questions": [
            {
                "question": "q",
                "idx": 3,
                "answers": [{"text": "a", "idx": 1}, {"text": "b", "idx": 2}],
            }
        ],
    },
}
RECORD = {
    "idx": 1,
    "passage": {"text": "Ann Bea", "entities": [{"start": 0, "end": 2}]},
    "qas": [{"query": "@placeholder", "idx": 5}],
}
WSC = {
    "text": "The man said that him left",
    "target": {"span1_text": "The man", "span1_index": 0, "span2_text": "him", "span2_index": 4},
}


@pytest.mark.parametrize(
    ("name", "folder", "rows", "answers", "expected"),
    [
        ("boolq", "BoolQ", [{"question": "q", "passage": "p", "idx": 4}], ["True"],
         [{"idx": 4, "label": "true"}]),
        ("cb", "CB", [{**PAIR, "idx": 0}, {**PAIR, "idx": 1}], ["neutral", "no label"],
         [{"idx": 0, "label": "neutral"}, {"idx": 1, "label": "entailment"}]),
        ("copa", "COPA",
         [{"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "idx": 2}],
         ["choice2"], [{"idx": 2, "label": 1}]),
        ("multirc", "MultiRC", [MULTIRC], ["True", "False"],
         [{"idx": 7, "passage": {"questions": [
             {"idx": 3, "answers": [{"idx": 1, "label": 1}, {"idx": 2, "label": 0}]}]}}]),
        ("record", "ReCoRD", [RECORD], ["Ann"], [{"idx": 5, "label": "Ann"}]),
        ("wsc", "WSC", [{**WSC, "idx": 0}, {**WSC, "idx": 1}], ["man", "a dog"],
         [{"idx": 0, "label": "True"}, {"idx": 1, "label": "False"}]),
    ],
)  # fmt: skip
def test_each_task_has_its_format(tmp_path, name, folder, rows, answers, expected):
    write_jsonl(tmp_path / folder / "test.jsonl", rows)
    suffix = "_simple_eval" if name == "wsc" else ""
    task = f"taskless_super_glue_{name}_v102{suffix}"
    path = leaderboard.write_predictions(
        task, answers, str(tmp_path / "out"), data_dir=str(tmp_path)
    )
    assert path == str(tmp_path / "out" / f"{folder}.jsonl")
    with open(path) as file:
        assert [json.loads(line) for line in file] == expected
    with pytest.raises(DataError, match=rf"{len(answers) + 1} answers"):
        leaderboard.write_predictions(
            task, [*answers, "x"], str(tmp_path / "out"), data_dir=str(tmp_path)
        )


def test_a_sentinel_is_no_part_of_the_answer(tmp_path):
    write_jsonl(tmp_path / "CB" / "test.jsonl", [{**PAIR, "idx": 0}, {**PAIR, "idx": 1}])
    task = "taskless_super_glue_cb_v102_sentinel"
    answers = ["<extra_id_0> neutral", "contradiction"]
    path = leaderboard.write_predictions(task, answers, str(tmp_path), data_dir=str(tmp_path))
    with open(path) as file:
        labels = [json.loads(line)["label"] for line in file]
    assert labels == ["neutral", "contradiction"]


def test_other_tasks_are_refused():
    with pytest.raises(DataError, match="is decoded"):
        leaderboard.write_predictions("super_glue_cb_v102_rank", [], "anywhere")
    assert leaderboard.short_name("super_glue_wsc_v102_simple_train") is None
    with pytest.raises(DataError, match="glue_cola_v002"):
        leaderboard.write_predictions("glue_cola_v002", [], "anywhere")
