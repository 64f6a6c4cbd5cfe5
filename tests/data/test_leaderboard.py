"""SuperGLUE's average, and the files that its leaderboard takes."""

import json

import pytest
import seqio

from prompt_tuning.data import context, leaderboard
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import sentinel_targets, super_glue  # noqa: F401  (registers the tasks)
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


@pytest.fixture(autouse=True)
def clean_context():
    yield
    context.set_context()


def test_tasks_of_several_metrics_are_averaged_first():
    expected = (80 + 95 + 70 + 60 + 61 + 75 + 65 + 60) / 8
    assert leaderboard.super_glue_average(RESULTS) == pytest.approx(expected)
    more = {**RESULTS, "super_glue_axb_v102": {"accuracy": 0.0}, "glue_cola_v002": {"m": 0.0}}
    assert leaderboard.super_glue_average(more) == pytest.approx(expected)


def test_a_missing_task_has_no_average():
    for missing in RESULTS:
        rest = {task: metrics for task, metrics in RESULTS.items() if task != missing}
        assert leaderboard.super_glue_average(rest) is None


@pytest.mark.parametrize("suffix", ["_rank", "_sentinel"])
def test_other_forms_have_the_same_average(suffix):
    def renamed(task):
        is_ranked = any(name in task for name in ("boolq", "cb", "copa", "multirc", "rte", "wic"))
        task = task.removesuffix("_examples")
        return f"{task}{suffix}" if suffix != "_rank" or is_ranked else task

    results = {renamed(task): metrics for task, metrics in RESULTS.items()}
    assert leaderboard.super_glue_average(results) == leaderboard.super_glue_average(RESULTS)
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
