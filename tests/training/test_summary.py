import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.training.summary import SummaryWriter
from tests.helpers import REPO


def read(log_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir))
    events.Reload()
    return events


def tensors(events, tag):
    import tensorflow as tf

    return [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def test_what_was_written_is_read_back(tmp_path):
    writer = SummaryWriter(tmp_path / "train")
    writer.scalars(0, {"loss": 2.5, "timing/steps_per_second": 3})
    writer.scalars(1000, {"loss": jnp.asarray(1.25), "eval/accuracy": jnp.asarray([50.0])})
    writer.text(0, "config", "    a = 1")
    writer.close()
    writer.close()
    events = read(tmp_path / "train")
    assert sorted(events.Tags()["tensors"]) == [
        "config",
        "eval/accuracy",
        "loss",
        "timing/steps_per_second",
    ]
    assert [(step, float(value)) for step, value in tensors(events, "loss")] == [
        (0, 2.5),
        (1000, 1.25),
    ]
    assert [(step, float(value)) for step, value in tensors(events, "eval/accuracy")] == [
        (1000, 50.0)
    ]
    ((step, text),) = tensors(events, "config")
    assert (step, text.item()) == (0, b"    a = 1")


def test_scalars_are_on_disk_before_the_writer_closes(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.scalars(7, {"loss": 1.0})
    assert [step for step, _ in tensors(read(tmp_path), "loss")] == [7]
    writer.close()


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    writer = SummaryWriter(tmp_path / "train")
    writer.scalars(0, {"loss": 1.0})
    writer.text(0, "config", "x")
    writer.close()
    assert not (tmp_path / "train").exists()


def test_a_vector_is_not_a_scalar(tmp_path):
    with pytest.raises(ValueError, match="reshape"):
        SummaryWriter(tmp_path).scalars(0, {"loss": jnp.ones((2,))})


def test_importing_the_module_does_not_import_tensorflow():
    code = (
        "import sys, prompt_tuning.training.summary; "
        "print([m for m in ('tensorflow', 'clu') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True
    )
    assert done.stdout.strip() == "[]"
