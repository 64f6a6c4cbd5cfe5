"""What was made from other content is not gone on with, nor handed out again: files, task, vocabulary, recipe."""

import dataclasses
import json
import os
import shutil

import pytest

from prompt_tuning.errors import ConfigError
from tests.helpers import train_sentencepiece

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


def edit(path, old, new):
    """Edits a file within its size and its time, as an editor does that is quick enough."""
    times = path.stat()
    text = path.read_text()
    assert old in text and len(old) == len(new)
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            {"task": {"inputs": "is this good? {text}"}},
            "training data, kites, source",
        ),
        (
            {"task": {"label_map": {0: "bad", 1: "good"}}},
            "training data, kites, source",
        ),
        ({"task": {"metrics": ["accuracy", "f1"]}}, "training data, kites, metrics"),
        ({"TASK_FEATURE_LENGTHS": {"inputs": 25, "targets": 8}}, "TASK_FEATURE_LENGTHS"),
        ({"DROPOUT_RATE": 0.2}, "network.T5Config"),
        ({"LABEL_SMOOTHING": 0.1}, "loss"),
        ({"utils.create_learning_rate_scheduler.base_learning_rate": 0.1}, "learning rate"),
        ({"adafactor.Adafactor.decay_rate": 0.5}, "optimizer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_does_not_go_on_as_another(kites, change, name):
    with pytest.raises(ConfigError) as error:
        kites.train(TRAIN_STEPS_RELATIVE=4, **change)
    text = str(error.value)
    assert "The run in MODEL_DIR, which would be resumed, was made from something else: " in text
    assert name in text.partition(": got")[0]
    assert not (kites.folder / "run" / "checkpoint_4").exists()


def test_a_run_does_not_go_on_over_edited_data(kites):
    for split, name in (("train", "training data"), ("validation", "teacher-forcing evaluation")):
        edit(kites.folder / f"{split}.jsonl", "flies", "dives")
        with pytest.raises(ConfigError, match=f"{name}, kites, content of its files"):
            kites.train(TRAIN_STEPS_RELATIVE=4)
        edit(kites.folder / f"{split}.jsonl", "dives", "flies")


def test_a_run_does_not_go_on_with_another_vocabulary(kites, tmp_path):
    other = train_sentencepiece(tmp_path / "other.model", vocab_size=250)
    with pytest.raises(ConfigError, match="vocabulary"):
        dataclasses.replace(
            kites, inputs=dataclasses.replace(kites.inputs, vocabulary=other)
        ).train(TRAIN_STEPS_RELATIVE=4)


def test_fewer_steps_than_saved_are_said(kites, capsys):
    kites.train(TRAIN_STEPS_RELATIVE=1)
    said = "MODEL_DIR holds step 2 already, more than the 1 updates asked for: nothing is trained"
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_goes_on_elsewhere_with_the_same_content(kites, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(kites.folder, moved)
    dataclasses.replace(kites, folder=moved).train(TRAIN_STEPS_RELATIVE=3, EVAL_PERIOD=3)
    assert (moved / "run" / "checkpoint_3").is_dir()


@pytest.mark.slow
def test_predictions_of_other_content_are_refused(kites, tmp_path):
    written = kites.infer()
    before = written.read_text()
    assert len(before.splitlines()) == 2 and kites.infer().read_text() == before
    edit(kites.folder / "validation.jsonl", "flies", "dives")
    with pytest.raises(ConfigError, match="another the task, kites, content of its files"):
        kites.infer()
    edit(kites.folder / "validation.jsonl", "dives", "flies")
    with pytest.raises(ConfigError, match="another the task, kites, source"):
        kites.infer(task={"inputs": "is this good? {text}"})
    checkpoint = kites.folder / "run" / "checkpoint_2"
    shutil.move(checkpoint, tmp_path)
    shutil.copytree(kites.inputs.checkpoint, checkpoint)
    with pytest.raises(ConfigError, match="another content of CHECKPOINT_PATH"):
        kites.infer()
    assert written.read_text() == before
    assert json.loads((written.parent / f"{written.name}.COMPLETED").read_text())["the task"]
