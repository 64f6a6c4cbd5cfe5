"""Examples that were made without a pipeline are those of the pipeline."""

import numpy as np
import pytest
import seqio

from prompt_tuning.data import dataset_checks, samples
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.own.file_tasks import from_files
from prompt_tuning.data.t0.tasks import tasks
from prompt_tuning.errors import DataError
from tests.data.local_data import write_jsonl
from tests.data.t0 import written


@pytest.fixture
def t0(tmp_path, vocabulary):
    """The mixture's tasks, of whose records one has nothing to ask: T0 drops it."""
    templates = written.write_templates(tmp_path / "templates")
    data = written.write_records(tmp_path / "data")
    rows = [{**written.rte(number), "premise": "p" * (number != 1)} for number in range(3)]
    written.write_jsonl(tmp_path / "data" / "super_glue" / "rte" / "train.jsonl", rows)
    name = tasks("t0++_train", templates, data, skip_missing=True)
    return [task.name for task in seqio.MixtureRegistry.get(name).tasks]


def same(name):
    task = seqio.TaskRegistry.get(name)
    found = samples.first(task, "train")
    assert found is not None
    expected = task.get_dataset(None, split="train", shuffle=False, num_epochs=1)
    pairs = list(zip(found, expected.as_numpy_iterator(), strict=True))
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value, err_msg=key)
            assert np.asarray(ours[key]).dtype.kind == np.asarray(value).dtype.kind, key
    return len(pairs)


def test_records_written_by_templates_are_the_pipelines(t0):
    assert {same(name) for name in t0[:2]} == {6}
    assert all(same(name) for name in t0)


@pytest.mark.parametrize("labels", [None, {"0": "negative", "1": "positive"}])
def test_files_of_ones_own_are_the_pipelines(tmp_path, vocabulary, labels):
    rows = [{"q": "a river", "a": "1"}, {"q": "Émile's mill", "a": "0"}]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    from_files("samples_test", inputs="q: {q}", targets="{a}", train=path, label_map=labels)
    assert same("samples_test") == 2


def test_what_needs_a_pipeline_has_none(tmp_path, vocabulary):
    path = str(write_jsonl(tmp_path / "a.jsonl", [{"q": "a", "a": "x"}, {"q": "b", "a": "y"}]))
    from_files(
        "samples_test",
        inputs="{q}",
        targets="{a}",
        validation=path,
        label_map={"x": "negative", "y": "positive"},
    )
    task = seqio.TaskRegistry.get("samples_test_rank")
    assert samples.first(task, "validation") is None

    class Own(seqio.Task):
        pass

    task = seqio.TaskRegistry.get("samples_test")
    task.__class__ = Own
    assert samples.first(task, "validation") is None


def test_what_is_wrong_is_told_as_the_pipeline_tells_it(t0, tmp_path):
    file = tmp_path / "data" / "hellaswag" / "train.jsonl"
    file.write_text(file.read_text().replace("endings", "ending"))
    told = []
    for name in ("hellaswag_ending", "t0++_train"):
        cfg = DatasetConfig(name, {"inputs": 32, "targets": 8}, "train", 4)
        with pytest.raises(DataError) as error:
            dataset_checks.check_dataset(cfg, trains=True)
        told.append(str(error.value))
    assert told[0] == told[1] and "hellaswag" in told[0]
