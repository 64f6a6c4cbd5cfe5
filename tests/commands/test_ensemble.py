"""Prompt ensembles: votes, what is averaged and what is best, and the command over decoded and ranked tasks."""

import json
from typing import Any

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.commands.ensemble import voting
from prompt_tuning.data import batches, context, dataset_checks, evaluation, vocabularies
from prompt_tuning.prompts import table
from tests import tiny_run
from tests.data.ranked_mixture import MIXTURE, TASKS

DECODED, RANKED = TASKS
LENGTHS = {"inputs": 32, "targets": 16}
CLASSES = ("entailment", "contradiction", "neutral")
# Label of validation example i of CB, as tests/data/local_data.py writes it.
RIGHT = [CLASSES[i % 3] for i in range(9)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"), validation=9)


@pytest.mark.parametrize(
    ("answers", "position"),
    [
        (["a"], 0),
        (["a", "b", "b"], 1),
        (["a", "b", "b", "a"], 0),
        (["c", "b", "a", "a", "b"], 1),
        (["c", "b", "a"], 0),
    ],
)
def test_the_majority_wins_and_of_equals_the_first(answers, position):
    assert voting.vote(answers) == position


def test_prompts_vote_on_the_labels_they_rank_first():
    # Two examples, of three labels and of two, with their rows in no order; three prompts.
    labels = [[4, 0, 2], [1, 3]]
    scores = [
        [-9.0, -1.0, -8.0, -2.0, -1.0],  # row 4, row 1
        [-1.0, -5.0, -8.0, -2.0, -2.0],  # row 0, row 3
        [-1.0, -5.0, -8.0, -2.0, -9.0],  # row 0, row 3
    ]
    assert voting.majority_labels(scores, labels) == [1.0, 0.0, 0.0, 1.0, 0.0]
    # One vote each: the first prompt's label.
    assert voting.majority_labels(scores[:2], labels) == [0.0, 1.0, 0.0, 0.0, 1.0]


class Scripted:
    """Stands in for `Inference`: what prompt k says to example i is in a list."""

    def __init__(self, vocabulary, said):
        self.vocabulary, self.said, self.batches = vocabulary, said, []

    def predict_with_aux(self, params, rows):
        outputs, scores = [], []
        for row, features in rows:
            number = int(features[table.INDEX])
            example = row // len(self.said)
            # Evaluation gets nothing but the numbers of rows back.
            ids = self.vocabulary.encode(self.said[number][example])
            outputs.append((row, [*ids, 1, *[0] * (LENGTHS["targets"] - 1 - len(ids))]))
            scores.append(-float(number))
        self.batches.append(len(outputs))
        # Batches may come back in any order.
        return outputs[::-1], {"scores": scores[::-1]}


@pytest.fixture
def scripted(inputs):
    """A function from answers [K][9] to an `Answers` over CB's validation split."""
    vocabulary = vocabularies.SentencePieceVocabulary(str(inputs.vocabulary))
    context.set_context(vocabulary=vocabulary, data_dir=str(inputs.data_dir))
    cfg = batches.DatasetConfig(
        DECODED,
        LENGTHS,
        "validation",
        8,
        module="prompt_tuning.tasks.super_glue",
        data_dir=str(inputs.data_dir),
    )
    dataset_checks.check_dataset(cfg)
    evaluator = evaluation.make_evaluator(cfg, log_dir=None)

    def make(said):
        inference: Any = Scripted(vocabulary, said)
        return inference, voting.Answers(
            inference, {}, len(said), decode=vocabulary.decode, evaluator=evaluator
        )

    return make


def test_an_ensemble_is_right_where_most_of_its_prompts_are(scripted):
    """Each of three prompts errs on three examples of its own, so that two are always right."""
    said = [list(RIGHT) for _ in range(3)]
    for number, answers in enumerate(said):
        for example in range(3 * number, 3 * number + 3):
            answers[example] = "no label at all"
    inference, answers = scripted(said)
    each = [answers.evaluate(number, 0)[DECODED] for number in range(3)]
    together = answers.evaluate(None, 0)[DECODED]
    assert [metrics["accuracy"] for metrics in each] == [pytest.approx(100 * 6 / 9)] * 3
    assert together == {"accuracy": 100.0, "mean_3class_f1": 100.0}
    assert inference.batches == [27], "one pass over the data, each example once for each prompt"


def test_a_majority_can_be_wrong(scripted):
    wrong = [CLASSES[(i + 1) % 3] for i in range(9)]
    _, answers = scripted([RIGHT, wrong, wrong])
    assert answers.evaluate(0, 0)[DECODED]["accuracy"] == 100.0
    assert answers.evaluate(None, 0)[DECODED]["accuracy"] == 0.0


def test_the_score_of_an_answer_is_that_of_the_prompt_it_is_from(scripted):
    wrong = [CLASSES[(i + 1) % 3] for i in range(9)]
    _, answers = scripted([wrong, RIGHT, RIGHT])
    (dataset,) = answers.evaluator.cached_model_datasets.values()
    outputs, aux = answers._predict_with_aux(dataset, None)
    assert len(outputs) == 9 and aux["scores"] == [-1.0] * 9


def test_averages_and_best_are_of_each_task():
    each = [
        {"cb": {"accuracy": 80.0, "f1": 60.0}, "boolq": {"accuracy": 50.0}},
        {"cb": {"accuracy": 70.0, "f1": 80.0}, "boolq": {"accuracy": 40.0}},
    ]
    assert voting.average(each) == {
        "cb": {"accuracy": 75.0, "f1": 70.0},
        "boolq": {"accuracy": 45.0},
    }
    assert [voting.best_of([r[task] for r in each]) for task in ("cb", "boolq")] == [1, 0]
    assert voting.best_of([{"f1": 1.0}, {"f1": 1.0}]) == 0


def test_the_table_joins_metrics_as_the_paper_does():
    results = {
        "average": {"cb": {"accuracy": 99.3, "f1": 99.0}, "super_glue_average": {"average": 90.5}},
        "best": {"cb": {"accuracy": 100.0, "f1": 100.0}, "super_glue_average": {"average": 91.0}},
        "ensemble": {
            "cb": {"accuracy": 100.0, "f1": 100.0},
            "super_glue_average": {"average": 91.3},
        },
    }
    lines = voting.format_table(results).splitlines()
    assert [line.split() for line in lines] == [
        ["task", "metric", "average", "best", "ensemble"],
        ["cb", "accuracy/f1", "99.3/99.0", "100.0/100.0", "100.0/100.0"],
        ["super_glue_average", "average", "90.5", "91.0", "91.3"],
    ]


def _save_prompts(folder, lengths, seed=0):
    rng = np.random.default_rng(seed)
    paths = []
    for number, length in enumerate(lengths):
        paths.append(str(folder / f"{number}.npy"))
        np.save(paths[-1], rng.normal(0, 5, (length, tiny_run.EMB_DIM)).astype(np.float32))
    return paths


def _run(command, inputs, output_dir, *flags, **macros):
    settings = {
        "MIXTURE_OR_TASK_NAME": MIXTURE,
        "MIXTURE_OR_TASK_MODULE": "tests.data.ranked_mixture",
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "EVAL_OUTPUT_DIR": str(output_dir),
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 8,
        "utils.DatasetConfig.split": "validation",
        **macros,
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_eval.gin")
    argv = [command, *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
    return cli.main([*argv, *flags])


@pytest.mark.slow
def test_the_command_over_a_decoded_and_a_ranked_task(inputs, tmp_path, capsys):
    """Prompts that are one agree with it, and with what `eval` says of it."""
    (path,) = _save_prompts(tmp_path, (4,))
    assert _run("ensemble", inputs, tmp_path / "out", f"--prompts={path},{path},{path}") == 0
    printed = capsys.readouterr().out.splitlines()
    record = json.loads((tmp_path / "out" / "ensemble.json").read_text())
    assert record["prompts"] == [path] * 3 and record["step"] == tiny_run.STEP
    assert record["ensemble"] == record["best"] == record["each"][0]
    assert record["best_prompt"] == dict.fromkeys(TASKS, path)
    assert _run("eval", inputs, tmp_path / "eval", PROMPT_FILE=path, PROMPT_LENGTH=4) == 0
    for task in TASKS:
        (metrics,) = (tmp_path / "eval").glob(f"inference_eval/{task}-metrics.jsonl")
        alone = json.loads(metrics.read_text())
        for name in ("accuracy", "mean_3class_f1"):
            assert record["ensemble"][task][name] == alone[name]
            assert record["average"][task][name] == pytest.approx(alone[name])
    assert record["ensemble"][RANKED]["accuracy"] > 0
    assert printed[-3].split() == ["task", "metric", "average", "best", "ensemble"]
    config = (tmp_path / "out" / "config.gin").read_text()
    assert config.startswith("# Resolved for `prompt-tuning ensemble --prompts=")


def test_an_ensemble_without_prompts_is_refused(inputs, tmp_path, capsys):
    assert _run("ensemble", inputs, tmp_path / "out", "--prompts=") == 2
    assert "An ensemble has no prompts" in capsys.readouterr().err
