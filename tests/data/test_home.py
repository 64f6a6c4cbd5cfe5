"""`~` and `$HOME` by one rule: in gin text, in flags, in what Python code names."""

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.config import files, queries
from prompt_tuning.data import home
from prompt_tuning.data.sources import files_by_split


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("start", ["~", "$HOME", "${HOME}"])
def test_paths_that_start_at_home_lead_there(at_home, start):
    assert home.expand(start) == str(at_home)
    assert home.expand(f"{start}/a/b") == f"{at_home}/a/b"
    assert home.expand_flag(f"{start}/a") == f"{at_home}/a"
    assert home.expand_flag(f"--prompts=a={start}/a,b={start}/b") == (
        f"--prompts=a={at_home}/a,b={at_home}/b"
    )
    assert files_by_split({"train": f"{start}/a", "test": [f"{start}/b", "c"]}) == {
        "train": (f"{at_home}/a",),
        "test": (f"{at_home}/b", "c"),
    }


@pytest.mark.parametrize("text", ["a/~/b", "~~", "$HOMES/a", "gs://b/~", "--x=a~/b", "-", ""])
def test_others_are_left_as_they_are(text):
    assert home.expand(text) == home.expand_flag(text) == text


def test_gin_text_says_paths_and_other_texts(at_home):
    (at_home / "a.gin").write_text(
        "include '~/b.gin'\nMODEL_DIR = '~'\nTASK_DATA_DIR = '$HOME/data'\nWORDS = ['~', '$HOME a/b']\n"
    )
    (at_home / "b.gin").write_text("FILES = ['${HOME}/x.jsonl', 'y']\n")
    names = ["MODEL_DIR", "TASK_DATA_DIR", "WORDS", "FILES"]
    assert queries.query_macros(["$HOME/a.gin"], names) == {
        "MODEL_DIR": str(at_home),
        "TASK_DATA_DIR": f"{at_home}/data",
        "WORDS": ["~", "$HOME a/b"],
        "FILES": [f"{at_home}/x.jsonl", "y"],
    }
    assert files.find_file("~/b.gin").is_file()


def test_every_command_has_its_flags_expanded(at_home, capsys):
    np.save(at_home / "a.npy", np.ones((2, 3), np.float32))
    assert cli.main(["export", "~/a.npy", "$HOME/b.safetensors"]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in at_home.iterdir()) == ["a.npy", "b.safetensors"]
