"""T-Few's few-shot sets."""

import pytest
import seqio

from prompt_tuning.data import batches, dataset_checks
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.t0.few_shot import few_shot
from prompt_tuning.errors import DataError
from tests.data.t0.written import copa, write_jsonl, write_records, write_templates

MIXTURE = "tfew_copa_seed_7_and_evaluation"


@pytest.fixture
def places(tmp_path):
    for seed in (0, 7):
        file = tmp_path / f"few_shot/copa/32_shot/{seed}_seed.jsonl"
        write_jsonl(file, [copa(seed + n) for n in range(4)])
    return {
        "files": str(tmp_path / "few_shot"),
        "templates": write_templates(tmp_path / "templates"),
        "data": write_records(tmp_path / "data"),
    }


def test_training_draws_a_template_and_evaluation_takes_each(places, vocabulary):
    assert few_shot("copa", seed=7, **places) == MIXTURE
    train = DatasetConfig(MIXTURE, {"inputs": 16, "targets": 8}, "train", 4, shuffle=True)
    scored = DatasetConfig(MIXTURE, {"inputs": 16, "targets": 8}, "validation", 4)
    assert batches.eval_task_names(train) == ["tfew_copa_seed_7"]
    # Of COPA's ten templates T-Few takes the first eight.
    names = [f"tfew_super_glue_copa_n{i}_score_eval" for i in range(8)]
    assert sorted(batches.eval_task_names(scored)) == names
    assert dataset_checks.check_dataset(train, trains=True) == []
    (example,) = (
        seqio.TaskRegistry.get("tfew_copa_seed_7")
        .get_dataset(None, split="train", shuffle=False, num_epochs=1, seed=0)
        .take(1)
    )
    assert [c.decode() for c in example["answer_choices"].numpy()] == ["one", "two"]
    assert int(example["label"]) == 1 and example["targets_pretokenized"].numpy() == b"two"
    assert example["inputs"].numpy()[-1] == 1
    rows = list(
        seqio.TaskRegistry.get(names[0]).get_dataset(None, split="validation", shuffle=False)
    )
    choice = seqio.TaskRegistry.get(names[0]).postprocess_fn("", example=rows[0], is_target=True)
    assert choice.length == len(vocabulary.encode("one")) + 1 and choice.is_right


def test_another_template_is_drawn_in_each_epoch(places, vocabulary, tmp_path):
    path = tmp_path / "templates/super_glue/copa/templates.yaml"
    text = path.read_text()
    for i in range(10):
        text = text.replace("{{premise}} or", f"{{{{premise}}}} number {i}", 1)
    path.write_text(text)
    few_shot("copa", seed=7, **places)
    task = seqio.TaskRegistry.get("tfew_copa_seed_7")

    def texts(seed):
        ds = task.get_dataset(None, split="train", shuffle=True, num_epochs=8, seed=seed)
        return [bytes(e["inputs_pretokenized"]).decode() for e in ds.as_numpy_iterator()]

    drawn = texts(0)
    assert len({text.split()[-1] for text in drawn}) > 4
    assert len({text for text in drawn if text.startswith("p7 ")}) > 1
    assert texts(0) == drawn != texts(1)


def test_a_seed_without_file_is_refused(places):
    with pytest.raises(DataError, match="no file of this seed: got 1, expected one of 0, 7"):
        few_shot("copa", seed=1, **places)
