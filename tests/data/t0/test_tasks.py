"""T0's tasks from JSONL files: what they hold, in which order, and what is refused."""

import json
import re

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches, dataset_checks, evaluation, made_from
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.t0.tasks import tasks
from prompt_tuning.errors import ConfigError, DataError
from tests.data.t0.written import rte, write_jsonl, write_records, write_templates

LENGTHS = {"inputs": 32, "targets": 8}
EVAL = "t0_eval_score_eval"


@pytest.fixture
def places(tmp_path):
    templates = write_templates(tmp_path / "templates")
    return {"templates": templates, "data": write_records(tmp_path / "data"), "skip_missing": True}


def examples(name, split="train", **how):
    task = seqio.TaskRegistry.get(name)
    how = {"shuffle": False, "num_epochs": 1, **how}
    return list(task.get_dataset(None, split=split, **how).as_numpy_iterator())


def test_inputs_have_no_end_and_targets_have_one(places, vocabulary):
    assert tasks("t0++_train", **places) == "t0++_train"
    (first, *_) = examples("super_glue_copa_n3")
    assert first["inputs_pretokenized"] == b"p0 or" and first["targets_pretokenized"] == b"one"
    assert first["inputs"].tolist() == vocabulary.encode("p0 or")
    assert first["targets"].tolist() == [*vocabulary.encode("one"), 1]
    mixture = seqio.MixtureRegistry.get("t0++_train")
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
        "hellaswag_ending": 39905.0,
        **{f"super_glue_copa_n{i}": 400.0 for i in range(10)},
    }


def test_choices_of_each_example_are_ranked(places, vocabulary):
    tasks(EVAL, **places)
    rows = examples("hellaswag_ending_score_eval", "validation")
    assert len(rows) == sum(2 + n % 3 for n in range(100, 106))
    cfg = DatasetConfig(EVAL, LENGTHS, "validation", 4)
    made = evaluation.make_evaluator(cfg, log_dir=None)
    assert made is not None

    def score(ds):
        # Of each input the first choice is the likeliest.
        seen, found = set(), []
        for index, features in ds.as_numpy_iterator():
            key = features["encoder_input_tokens"].tobytes()
            found.append((int(index), -float(key in seen)))
            seen.add(key)
        return found

    results = evaluation.run_evaluator(
        made, predict_fn=score, score_fn=score, predict_with_aux_fn=score, step=0
    )
    names = {
        "hellaswag_ending",
        "super_glue_rte_does_it",
        *(f"super_glue_copa_n{i}" for i in range(10)),
    }
    assert results == {f"{name}_score_eval": {"accuracy": 50.0} for name in names}


def test_a_cut_evaluation_counts_whole_examples(places, vocabulary):
    tasks(EVAL, **places)
    task = seqio.TaskRegistry.get("hellaswag_ending_score_eval")
    # Of three choices the first two; of the two after them both.
    rows = examples(task.name, "validation")
    targets = [task.postprocess_fn("", example=row, is_target=True) for row in rows]
    assert [target.num for target in targets[:7]] == [3, 3, 3, 4, 4, 4, 4]
    (metric,) = task.score_metric_fns
    # The second example has label 1, and is whole; its fourth choice is missing in the second call.
    assert metric(targets[:7], [0, -1, -1, 0, 9, 0, 0]) == {"accuracy": 100.0}
    assert metric(targets[:6], [0, -1, -1, 9, 0, 0]) == {"accuracy": 100.0}
    with pytest.raises(DataError, match="EVALUATOR_NUM_EXAMPLES"):
        metric(targets[:2], [0.0, 0.0])


def test_an_epoch_has_each_example_once_and_an_order_of_its_own(places, vocabulary):
    tasks("t0++_train", **places)
    name = "super_glue_copa_n0"
    twice = [e["inputs_pretokenized"] for e in examples(name, shuffle=True, seed=3, num_epochs=4)]
    epochs = [tuple(twice[i : i + 6]) for i in range(0, 24, 6)]
    assert len(set(epochs)) > 1 and {frozenset(epoch) for epoch in epochs} == {frozenset(twice)}
    again = [e["inputs_pretokenized"] for e in examples(name, shuffle=True, seed=3, num_epochs=4)]
    assert again == twice


def test_a_mixture_goes_on_where_it_stopped(places, vocabulary):
    tasks("t0++_train", **places)
    cfg = DatasetConfig("t0++_train", LENGTHS, "train", 4, shuffle=True)
    assert dataset_checks.check_dataset(cfg, trains=True) == []
    whole = batches.train_batches(cfg, seed=1)
    skipped = [next(whole) for _ in range(6)][4]
    resumed = next(batches.train_batches(cfg, seed=1, start_example=16))
    for feature, x in skipped.items():
        np.testing.assert_array_equal(resumed[feature], x)


def test_a_changed_template_or_seed_is_another_run(places, vocabulary, tmp_path):
    cfg = DatasetConfig("t0++_train", LENGTHS, "train", 4)

    def described(**changes):
        tasks("t0++_train", **{**places, **changes})
        return json.dumps(made_from.describe_dataset(cfg))

    first = described()
    assert described() == first and described(seed=1) != first
    moved = tmp_path / "moved"
    (tmp_path / "templates").rename(moved)
    assert described(templates=str(moved)) == first
    file = moved / "hellaswag" / "templates.yaml"
    file.write_text(file.read_text().replace("{{ctx}}", "{{ctx}}!"))
    assert described(templates=str(moved)) != first


def test_what_is_missing_is_named_at_once(places, tmp_path):
    with pytest.raises(ConfigError, match="none for glue/mrpc, glue/qqp") as error:
        tasks("t0_train", **{**places, "skip_missing": False})
    assert "xsum" in str(error.value) and "skip_missing = True" in str(error.value)
    (tmp_path / "data/hellaswag/train.jsonl").unlink()
    (tmp_path / "data/super_glue/copa/train.jsonl").unlink()
    tasks("t0++_train", **{**places, "data": write_records(tmp_path / "other")})
    with pytest.raises(ConfigError, match="tasks.t0.mixture is unknown"):
        tasks("t0", **places)
    with pytest.raises(ConfigError, match="pip download promptsource"):
        tasks("t0_train")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "train.jsonl:2 is not JSON"),
        ('{"premise": "p"}', "template 'n0'.*field that is not there: got 'choice1'"),
    ],
)
def test_a_wrong_record_is_named_before_the_run(places, vocabulary, tmp_path, line, said):
    path = tmp_path / "data/super_glue/copa/train.jsonl"
    first = path.read_text().splitlines()[0]
    path.write_text(f"{first}\n{line}\n")
    tasks("t0++_train", **places)
    cfg = DatasetConfig("super_glue_copa_n0", LENGTHS, "train", 4)
    with pytest.raises(DataError) as error:
        dataset_checks.check_dataset(cfg, trains=True)
    assert re.search(said, str(error.value))


def test_hugging_face_datasets_are_read_by_row(places, vocabulary, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra [t0]")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    write_jsonl(tmp_path / "rte.jsonl", [rte(n) for n in range(5)])
    loaded = datasets.Dataset.from_json(str(tmp_path / "rte.jsonl"), cache_dir=str(tmp_path / "hf"))
    asked = []

    def load_dataset(name, subset, split):
        asked.append((name, subset, split))
        if split == "test":
            raise ValueError("Unknown split")
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tasks(EVAL, **{**places, "data": None})
    rows = examples("super_glue_rte_does_it_score_eval", "validation")
    assert [row["rank/is_right"] for row in rows] == [n % 2 == i for n in range(5) for i in (0, 1)]
    assert asked == [("aps/super_glue", "rte", "validation")]
    with pytest.raises(DataError, match="FOLDER/super_glue/rte/test.jsonl"):
        examples("super_glue_rte_does_it_score_eval", "test")
