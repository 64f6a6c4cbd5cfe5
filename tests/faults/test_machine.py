"""What the machine refuses is told in one line with the path and a remedy, and leaves nothing half-written."""

import errno
import os
import shutil

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.checkpoints import json_files, one_writer
from prompt_tuning.checkpoints.prompt_files.write import write_prompt
from prompt_tuning.errors import from_machine
from tests.faults.disk import Disk
from tests.faults.kites import _TRAIN

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG)
PROMPT = np.ones((3, 8), np.float32)


def _one_line(error: str, number: int) -> None:
    """Asserts that an error is one line, with a path and a remedy."""
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error, error
    assert os.strerror(number) in lines[0] and " Fix: " in lines[0]


@pytest.mark.parametrize("number", ERRORS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("name", ["p.npy", "p.safetensors", "p"])
def test_export_tells_it_and_leaves_nothing(tmp_path, capsys, name, number):
    write_prompt(tmp_path / "source.npy", PROMPT, {}, file_format="npy")
    form = name.partition(".")[2] or "peft"
    failures = 0
    for at in range(20):
        folder = tmp_path / f"out_{at}"
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch.setattr, folder, number, at)
            code = cli.main(
                ["export", str(tmp_path / "source.npy"), f"{folder}/{name}", f"--format={form}"]
            )
        if disk.asked <= at:
            assert code in (0, None) and (folder / name).exists()
            break
        failures += 1
        assert code == 2
        _one_line(capsys.readouterr().err, number)
        left = [path.name for path in folder.rglob("*")] if folder.exists() else []
        # The JSON of a prompt is written first, and means nothing without it.
        assert not [path for path in left if path.endswith(".tmp") or path == name], left
    assert failures >= 2


@pytest.mark.parametrize("what", ["a file", "below a file", "too long", "read-only"])
def test_an_output_folder_that_cannot_be_is_told_before_anything_is_read(
    kites, capsys, monkeypatch, what
):
    (kites.folder / "file").write_text("x")
    folder, number = {
        "a file": (kites.folder / "file", errno.EEXIST),
        "below a file": (kites.folder / "file" / "run", errno.ENOTDIR),
        "too long": (kites.folder / ("x" * 300), errno.ENAMETOOLONG),
        "read-only": (kites.folder / "sealed", errno.EROFS),
    }[what]
    if what == "read-only":
        Disk(monkeypatch.setattr, folder, errno.EROFS, 0)
    # What it would start from is not there either: that is not looked at.
    argv = [
        *_TRAIN,
        kites.task(),
        *kites.inputs.flags(
            MODEL_DIR=str(folder),
            TASK_FEATURE_LENGTHS={"inputs": 24, "targets": 8},
            INITIAL_CHECKPOINT_PATH="/nothing/checkpoint_1",
            TRAIN_STEPS=2,
        ),
    ]
    assert cli.main(["train", *argv]) == 2
    _one_line(capsys.readouterr().err, number)
    assert (kites.folder / "file").read_text() == "x"


@pytest.mark.slow
def test_a_folder_that_is_removed_meanwhile_is_told(kites, monkeypatch):
    from prompt_tuning import train

    def remove(*args, **kwargs):
        shutil.rmtree(kites.folder / "gone")
        return save(*args, **kwargs)

    save = train.save
    monkeypatch.setattr(train, "save", remove)
    with pytest.raises(FileNotFoundError) as error:
        kites.train(MODEL_DIR=str(kites.folder / "gone"))
    told = str(from_machine(error.value))
    assert str(kites.folder / "gone") in told and "put it back" in told


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_never_ends_is_no_file(tmp_path, capsys, what):
    path = tmp_path / "task.gin"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert cli.main(["train", f"--gin_file={path}"]) == 2
    assert "gin file not found" in capsys.readouterr().err
    side = tmp_path / "p.npy.json"
    write_prompt(tmp_path / "p.npy", PROMPT, {}, file_format="npy")
    side.unlink()
    path.rename(side)
    assert cli.main(["export", str(tmp_path / "p.npy"), str(tmp_path / "q.npy")]) == 2
    assert "no file, but a folder, a device or a pipe" in capsys.readouterr().err


def test_errors_of_libraries_are_told_and_others_are_not():
    tensorstore = ValueError(
        "RESOURCE_EXHAUSTED: Error writing /a/b [OS error 28: ENOSPC No space left]"
    )
    told = str(from_machine(tensorstore))
    assert told.startswith("No space left on device: got '/a/b'") and "free some room" in told
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = PermissionError(errno.EACCES, "Permission denied", "/c")
    assert "got '/c'" in str(from_machine(wrapped))
    # Of a program, not of the machine.
    assert from_machine(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
    memory = ValueError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes")
    assert (
        from_machine(memory) is from_machine(KeyError("/x")) is from_machine(OSError("x")) is None
    )


def test_what_the_killed_have_left_half_written_is_swept(tmp_path):
    for name in (".best.json.123.tmp", ".shard-1.9.tmp", "best.json", ".hidden"):
        (tmp_path / name).write_text("x")
    with one_writer.holding(tmp_path, "INFER_OUTPUT_DIR", "shard-1"):
        assert (tmp_path / ".best.json.123.tmp").exists()
    with one_writer.holding(tmp_path, "MODEL_DIR"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "best.json"]
    with pytest.raises(TypeError):
        json_files.write_atomically(json_files.epath.Path(tmp_path / "x"), "no bytes")  # pyright: ignore[reportArgumentType]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "best.json"]
