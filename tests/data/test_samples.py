"""Examples that were made without a pipeline are those of the pipeline."""

import numpy as np
import pytest
import seqio

from prompt_tuning.data import dataset_checks, samples
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.own.file_tasks import from_files
from prompt_tuning.data.t0.sources import JsonlDataSource
from prompt_tuning.data.t0.tasks import tasks
from prompt_tuning.data.templates.tasks import score_task, template_task
from prompt_tuning.errors import DataError
from tests.data.local_data import write_jsonl
from tests.data.t0 import written
from tests.data.templates import making


def same(task, split="train"):
    found = samples.first(task, split)
    assert found is not None
    expected = task.get_dataset(None, split=split, shuffle=False, num_epochs=1)
    pairs = list(zip(found, expected.as_numpy_iterator(), strict=True))
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value, err_msg=key)
            assert np.asarray(ours[key]).dtype.kind == np.asarray(value).dtype.kind, key
    return len(pairs)


def test_records_written_by_templates_are_the_pipelines(tmp_path, vocabulary):
    path = tmp_path / "train.jsonl"
    written.write_jsonl(path, [{"q": q, "label": i % 2} for i, q in enumerate("abc")])
    source = JsonlDataSource({"train": str(path)})
    # Of the second record there is nothing to ask, and T0 drops it; what is drawn follows from record and seed.
    asked = (
        "{% if q != 'b' %}{{q}} {{['x', 'y'] | choice}} ||| {{answer_choices[label]}}{% endif %}"
    )
    for choices in ("yes ||| no", "{{q}} ||| no"):
        template = making.make(asked, choices)
        assert same(template_task("samples_test", source, template, seed=3, inputs_end=False)) == 2
        assert same(score_task("samples_test", source, template, seed=3, inputs_end=False)) == 4


def test_files_of_ones_own_are_the_pipelines(tmp_path, vocabulary):
    rows = [{"q": "a river", "a": "1"}, {"q": "Émile's mill", "a": "0"}]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    for labels in (None, {"0": "negative", "1": "positive"}):
        files = {"train": path, "validation": path}
        from_files("samples_test", inputs="q: {q}", targets="{a}", label_map=labels, **files)
        assert same(seqio.TaskRegistry.get("samples_test")) == 2
    assert same(seqio.TaskRegistry.get("samples_test_rank"), "validation") == 4

    class Own(seqio.Task):
        """Which may read its examples in a way of its own."""

    task = seqio.TaskRegistry.get("samples_test")
    task.__class__ = Own
    assert samples.first(task, "train") is None


def test_what_is_wrong_is_told_as_the_pipeline_tells_it(tmp_path, vocabulary):
    templates = written.write_templates(tmp_path / "templates")
    data = written.write_records(tmp_path / "data")
    tasks("t0++_train", templates, data, skip_missing=True)
    file = tmp_path / "data" / "hellaswag" / "train.jsonl"
    file.write_text(file.read_text().replace("endings", "ending"))
    told = []
    for name in ("hellaswag_ending", "t0++_train"):
        cfg = DatasetConfig(name, {"inputs": 32, "targets": 8}, "train", 4)
        with pytest.raises(DataError) as error:
            dataset_checks.check_dataset(cfg, trains=True)
        told.append(str(error.value))
    assert told[0] == told[1] and "hellaswag" in told[0]
