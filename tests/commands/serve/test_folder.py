"""Prompts come and go while the server answers: by requests and by a watched folder, and from nowhere else."""

import json
import os
import time
import types
from typing import Any

import numpy as np
import openai
import pytest

from prompt_tuning.commands.serve.folder import PromptsFolder
from tests.tiny_run import EMB_DIM

ASK = {"prompt": "the old mill by the river"}


def _names(served):
    return [model.id for model in served.client.models.list()]


def _wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _write(path, seed=1, width=EMB_DIM):
    # Whole at once, as `export` writes.
    partial = path.with_name(f".{path.name}.npy")
    np.save(partial, np.random.default_rng(seed).normal(size=(3, width)).astype(np.float32) * 5)
    os.replace(partial, path)


def test_models_are_listed_and_found(served):
    assert _names(served)[:3] == ["frozen", "boolq", "cb"]
    assert served.client.models.retrieve("cb").parent == "frozen"
    with pytest.raises(openai.NotFoundError, match="No prompt of this name"):
        served.client.models.retrieve("nothing")


def test_what_lies_in_the_folder_is_served(served):
    refused = "prompt_tuning_refused_folder_entries"
    file = served.folder / "new.npy"
    _write(file)
    _wait_for(lambda: "new" in _names(served))
    first = served.client.completions.create(model="new", **ASK).choices[0].text
    _write(file, seed=2)
    _wait_for(lambda: served.client.completions.create(model="new", **ASK).choices[0].text != first)
    # What is broken is told, and what was there before answers on.
    file.write_bytes(b"no prompt")
    (served.folder / "boolq.npy").write_bytes(file.read_bytes())
    (served.folder / "nowhere.npy").symlink_to("nothing")
    (served.folder / "a name.npy").touch()
    _wait_for(lambda: served.figure(refused) == 4)
    assert served.client.completions.create(model="new", **ASK).choices[0].text
    for entry in served.folder.glob("*.npy"):
        entry.unlink()
    _wait_for(lambda: "new" not in _names(served) and served.figure(refused) == 0)
    assert "boolq" in _names(served)
    with pytest.raises(openai.NotFoundError, match="new"):
        served.client.completions.create(model="new", **ASK)


def test_requests_load_and_unload(served):
    (served.folder / ".kept").mkdir(exist_ok=True)
    _write(served.folder / ".kept" / "a.npy")
    content = {"prompt_name": "mine", "prompt_path": ".kept/a.npy"}
    assert served.ask("/v1/load_prompt", content)[0] == 200
    assert served.client.completions.create(model="mine", **ASK).choices[0].text
    # What a request loaded does not go with a file that had its name.
    _write(served.folder / "both.npy")
    _wait_for(lambda: "both" in _names(served))
    assert served.ask("/v1/load_prompt", {**content, "prompt_name": "both"})[0] == 200
    (served.folder / "both.npy").rename(served.folder / "later.npy")
    _wait_for(lambda: "later" in _names(served))
    assert "both" in _names(served)
    (served.folder / "later.npy").unlink()
    assert served.ask("/v1/unload_prompt", {"prompt_name": "both"})[0] == 200
    status, answer, _ = served.ask("/v1/unload_prompt", {"prompt_name": "mine"})
    assert (status, answer["deleted"]) == (200, True)
    status, answer, _ = served.ask("/v1/unload_prompt", {"prompt_name": "mine"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_a_folder_that_is_still_being_copied_is_read_again(tmp_path):
    paths: list[str] = []

    def load(name, path):
        paths.append(path)
        (tmp_path / "run/checkpoint_1/state/step").read_bytes()

    engine: Any = types.SimpleNamespace(load=load, names=lambda: ())
    folder = PromptsFolder(tmp_path, engine)
    (tmp_path / "run/checkpoint_1/state").mkdir(parents=True)
    assert [folder.look(), folder.look(), len(paths)] == [1, 1, 1]
    (tmp_path / "run/checkpoint_1/state/step").touch()
    assert [folder.look(), folder.look(), len(paths)] == [0, 0, 2]


def test_nothing_outside_the_folder_is_read(served, tmp_path):
    _write(tmp_path / "a.npy")
    kept = served.folder / ".hidden"
    kept.mkdir()
    (kept / "file").symlink_to(tmp_path / "a.npy")
    (kept / "folder").symlink_to(tmp_path)
    (kept / "circle").symlink_to(kept / "circle")
    _write(kept / "wide.npy", width=EMB_DIM + 1)
    paths = [
        str(tmp_path / "a.npy"),
        os.path.relpath(tmp_path / "a.npy", served.folder),
        ".hidden/file",
        ".hidden/folder/a.npy",
        ".hidden",
        ".hidden/circle",
        ".hidden/nothing",
        ".",
        "~/a.npy",
        "a\0b",
        "file:///etc/passwd",
        "gs://bucket/a.npy",
        "a" * 4000,
        ".hidden/wide.npy",
    ]
    for path in paths:
        content = {"prompt_name": "x", "prompt_path": path}
        status, answer, _ = served.ask("/v1/load_prompt", content)
        error = answer["error"]
        assert (status, error["param"]) == (400, "prompt_path"), path
        # Nothing of this machine but what was sent is told.
        told = json.dumps(error).replace(json.dumps(path[:80])[1:-1], "")
        assert str(served.folder) not in told and str(tmp_path) not in told, told
    # The reason is, where it names no file.
    assert "33" in answer["error"]["message"] and "wide.npy" in answer["error"]["message"]
    assert "x" not in _names(served)
