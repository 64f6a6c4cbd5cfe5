"""Finding and reading gin files."""

import pathlib

import pytest

from prompt_tuning.config import files, plan
from prompt_tuning.errors import ConfigError
from tests.gin_runs import CONFIGS, flags, write
from tests.helpers import REPO

# Finding files.


@pytest.mark.parametrize(
    "name", [f"{CONFIGS}/runs/prompt_finetune.gin", "runs/prompt_finetune.gin"]
)
def test_names_resolve_from_the_package(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = files.find_file(name)
    assert pathlib.Path(found) == files.PACKAGE_CONFIGS / "runs/prompt_finetune.gin"


def test_files_on_disk_and_in_search_paths_are_found(tmp_path, monkeypatch):
    write(tmp_path / "mine.gin", "X = 1")
    monkeypatch.chdir(tmp_path)
    assert files.find_file("mine.gin").read_text() == "X = 1"
    assert files.find_file(str(tmp_path / "mine.gin")).read_text() == "X = 1"
    monkeypatch.chdir("/")
    assert files.find_file("mine.gin", ["/nowhere", str(tmp_path)]).read_text() == "X = 1"


def test_a_search_path_with_the_authors_files_does_not_hide_the_package(tmp_path):
    theirs = tmp_path / CONFIGS / "runs"
    theirs.mkdir(parents=True)
    write(theirs / "prompt_finetune.gin", "from t5x import utils")
    write(theirs / "prompt_extra.gin", "X = 1")
    found = files.find_file(f"{CONFIGS}/runs/prompt_finetune.gin", [str(tmp_path)])
    assert "t5x import" not in found.read_text()
    extra = files.find_file(f"{CONFIGS}/runs/prompt_extra.gin", [str(tmp_path)])
    assert extra.read_text() == "X = 1"


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        (f"{CONFIGS}/runs/prompt_finetun.gin", f"{CONFIGS}/runs/prompt_finetune.gin"),
        ("runs/prompt_evl.gin", "runs/prompt_eval.gin"),
    ],
)
def test_a_missing_file_lists_the_closest_names(name, closest):
    with pytest.raises(
        ConfigError, match=f"gin file not found.*{name}.*Closest matches: .*{closest}"
    ):
        files.read([name])


@pytest.mark.parametrize("prefix", ["", f"{CONFIGS}/", "configs/", f"{REPO}/configs/"])
def test_a_model_without_a_prompt_is_the_one_with_it_and_no_prompt(prefix, monkeypatch):
    monkeypatch.chdir(REPO)
    read = files.read([f"{prefix}models/ul2.gin"])
    assert pathlib.Path(read.files[0]).name == "ul2_prompt.gin"
    bindings = [s for s in read.statements if isinstance(s, files.Binding)]
    last = [binding for binding in bindings if binding.selector == "PROMPT"][-1]
    assert last.value is None and last.where.endswith("models/ul2.gin:2")
    assert last.source.is_shipped
    assert f"{CONFIGS}/models/ul2.gin" in files.shipped_files()


# Reading.


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("from t5x import utils", "utils.SaveCheckpointConfig.period = 1000"),
        ("import t5x.partitioning", "partitioning.PjitPartitioner.num_partitions = 1"),
        ("from t5x import something_new", "delete the line"),
        ("from prompt_tuning.train import prompts as train_prompts", "PROMPT_LENGTH = 100"),
        (
            "include 't5x/configs/runs/finetune.gin'",
            f"include '{CONFIGS}/runs/model_finetune.gin'",
        ),
        (
            'include "t5x/examples/t5/t5_1_1/xl.gin"',
            f"include '{CONFIGS}/models/t5_1_1_xl.gin'",
        ),
        (
            f"include '{CONFIGS}/t5x/prompt_finetune.gin'",
            f"include '{CONFIGS}/runs/prompt_finetune.gin'",
        ),
    ],
)
def test_a_file_that_needs_t5x_is_told_what_to_write(tmp_path, line, instead):
    path = write(
        tmp_path / "old.gin", f"# mine\nfrom __gin__ import dynamic_registration\n{line}\n"
    )
    with pytest.raises(ConfigError) as error:
        files.read([str(path)])
    assert f"{path}:3" in str(error.value)
    assert instead in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("MODEL_DIR", "/tmp/x", "--gin.MODEL_DIR=\"'/tmp/x'\""),
        ("MIXTURE_OR_TASK_NAME", "boolq", "--gin.MIXTURE_OR_TASK_NAME=\"'boolq'\""),
        ("CLASS_LABELS", "[positive, negative]", "--gin.CLASS_LABELS=\"['a', 'b']\""),
        ("TRAIN_STEPS", "1_100_000 + 50", "as one number"),
    ],
)
def test_a_value_without_its_quotes_is_shown_with_them(name, value, fix):
    with pytest.raises(ConfigError) as error:
        files.read([], flags({name: value}))
    assert name in str(error.value) and value in str(error.value) and fix in str(error.value)


def test_a_value_without_quotes_in_a_file_names_the_line(tmp_path):
    path = write(tmp_path / "mine.gin", "BATCH_SIZE = 8\nMODEL_DIR = /tmp/x\n")
    with pytest.raises(ConfigError, match=r"mine.gin:2: MODEL_DIR .*write MODEL_DIR = '/tmp/x'"):
        files.read([str(path)])


def test_an_open_bracket_names_its_file(tmp_path):
    path = write(tmp_path / "mine.gin", "CLASS_LABELS = ['a',\n")
    with pytest.raises(ConfigError, match="mine.gin:"):
        files.read([str(path)])


def test_a_circle_of_includes_is_an_error(tmp_path):
    write(tmp_path / "a.gin", f"include '{tmp_path}/b.gin'\n")
    write(tmp_path / "b.gin", f"X = 1\ninclude '{tmp_path}/a.gin'\n")
    with pytest.raises(ConfigError, match=r"includes itself \(.*b.gin:2\)"):
        files.read([str(tmp_path / "a.gin")])


def test_nested_values_are_mapped_leaf_by_leaf():
    value = {"a": [1, (2, files.Macro("X"))], "b": 3}
    assert files.leaves(value) == ["a", 1, 2, files.Macro("X"), "b", 3]
    doubled = files.map_value(lambda leaf: leaf * 2 if isinstance(leaf, int) else leaf, value)
    assert doubled == {"a": [2, (4, files.Macro("X"))], "b": 6}
    assert plan.REQUIRED == files.Macro("gin.REQUIRED")
