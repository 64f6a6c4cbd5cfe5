"""Where folders cannot be renamed, a save writes under the final name and marks it when done.

A local folder stands in for the bucket; Orbax itself is told that it is one.
"""

import shutil
import types

import pytest
from orbax.checkpoint._src.path import atomicity_defaults

from prompt_tuning.checkpoints import manager
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.run_states import assert_equal, make_state, names, save_steps, to_abstract

MARK = "commit_success.txt"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that this package and Orbax take for one on gs://."""
    bucket = tmp_path / "bucket"

    def in_bucket(path):
        return str(path).startswith(str(bucket))

    stand_in = types.SimpleNamespace(is_gcs_path=in_bucket)
    monkeypatch.setattr(atomicity_defaults, "gcs_utils", stand_in)
    monkeypatch.setattr(manager.paths, "in_object_store", in_bucket)
    return bucket


def cut_short(path):
    """Leaves what a killed save leaves."""
    (path / MARK).unlink()
    (path / "state" / "_METADATA").unlink()


def test_saved_state_comes_back(bucket):
    save_steps(bucket, 1, 2)
    assert names(bucket) == ["checkpoint_2"]
    assert (bucket / "checkpoint_2" / MARK).exists()
    checkpointer = Checkpointer(bucket)
    assert checkpointer.latest_step() == 2
    assert_equal(checkpointer.restore(2, to_abstract(make_state(2)))[0], make_state(2))


def test_a_save_that_was_cut_short_is_set_aside(bucket):
    save_steps(bucket, 1, 2, keep=2)
    cut_short(bucket / "checkpoint_2")
    left = names(bucket / "checkpoint_2")
    checkpointer = Checkpointer(bucket, keep=2)
    assert checkpointer.latest_step() == 1
    assert names(bucket) == ["checkpoint_1", "damaged_checkpoint_2"]
    assert names(bucket / "damaged_checkpoint_2") == left
    checkpointer.save(2, make_state(2), {})
    assert Checkpointer(bucket, keep=2).latest_step() == 2


def test_a_first_save_that_was_cut_short_begins_anew(bucket):
    save_steps(bucket, 1)
    cut_short(bucket / "checkpoint_1")
    assert Checkpointer(bucket).latest_step() is None
    assert names(bucket) == ["damaged_checkpoint_1"]


def test_a_finished_but_damaged_checkpoint_is_no_reason_to_begin_anew(bucket):
    save_steps(bucket, 1)
    (bucket / "checkpoint_1" / "state" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="Every checkpoint.*is damaged"):
        Checkpointer(bucket)
    assert names(bucket) == ["checkpoint_1"]


def test_a_copied_checkpoint_without_the_mark_goes_on(bucket, tmp_path):
    save_steps(tmp_path / "local", 1)
    # Not every version of Orbax marks what it can rename.
    ignore = shutil.ignore_patterns(MARK)
    shutil.copytree(tmp_path / "local", bucket, ignore=ignore)
    assert not (bucket / "checkpoint_1" / MARK).exists()
    checkpointer = Checkpointer(bucket)
    assert checkpointer.latest_step() == 1
    assert_equal(checkpointer.restore(1, to_abstract(make_state(1)))[0], make_state(1))
    checkpointer.save(2, make_state(2), {})
    assert names(bucket) == ["checkpoint_2"]


def test_a_folder_that_cannot_be_renamed_is_named(bucket, monkeypatch):
    save_steps(bucket, 1)
    (bucket / "checkpoint_2").mkdir()

    def refuse(path, target):
        raise PermissionError("no")

    checkpoint = type(manager.paths.absolute(bucket))
    monkeypatch.setattr(checkpoint, "rename", refuse)
    with pytest.raises(
        CheckpointError, match="Cannot set .*checkpoint_2 aside.*move .*checkpoint_2"
    ):
        Checkpointer(bucket)
