"""Sweep files expand to checked cells, whose keys say what their runs read and nothing else."""

import dataclasses
import shutil

import pytest

from prompt_tuning.commands.sweep import expansion
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.sweep import ENSEMBLE, gin_text
from prompt_tuning.config.flags import tracker_bindings
from prompt_tuning.errors import ConfigError, DataError
from tests.commands.sweep import tiny_sweep


def _flags(**settings):
    return [(f"{name} = {text}", f"--gin.{name}={text}") for name, text in settings.items()]


def _write(inputs, tmp_path, **parameters):
    axes = {
        "length": {n: {"bindings": {"PROMPT_LENGTH": n}} for n in (1, 5)},
        "seed": tiny_sweep.seeds(0, 1),
    }
    common = {"axes": axes, "bindings": tiny_sweep.bindings(inputs)}
    return tiny_sweep.write(tmp_path / "tiny.gin", **{**common, **parameters})


def test_every_combination_is_a_cell_the_last_axis_fastest(inputs, tmp_path):
    cells = expansion.expand([_write(inputs, tmp_path, title="Tiny")]).cells
    assert [cell.label for cell in cells] == [
        "length=1,seed=0",
        "length=1,seed=1",
        "length=5,seed=0",
        "length=5,seed=1",
    ]
    assert {(cell.sweep, cell.title, cell.scale, cell.command) for cell in cells} == {
        ("tiny", "Tiny", None, "train")
    }
    assert len({cell.key for cell in cells}) == 4
    lengths = [
        expansion.resolve(cell, str(tmp_path)).arguments()["model"].prompt.length for cell in cells
    ]
    assert lengths == [1, 1, 5, 5]


def test_files_of_cells_include_what_is_in_a_search_path(inputs, tmp_path, monkeypatch):
    (tmp_path / "mine/shared").mkdir(parents=True)
    (tmp_path / "mine/run.gin").write_text("include 'shared/length.gin'\n")
    (tmp_path / "mine/shared/length.gin").write_text("PROMPT_LENGTH = 3\n")
    bindings = tiny_sweep.bindings(inputs)
    del bindings["PROMPT_LENGTH"]
    file = _write(
        inputs,
        tmp_path,
        axes={"seed": tiny_sweep.seeds(0)},
        bindings=bindings,
        gin_files=[tiny_sweep.MODEL, *tiny_sweep.TRAIN, "run.gin"],
    )
    monkeypatch.chdir(tmp_path)
    (cell,) = expansion.expand([file], search_paths=["mine"]).cells
    command = Place("out", "runs").command(cell)
    assert f"--gin_search_paths={tmp_path}/mine" in command
    # A worker may have another working directory.
    monkeypatch.chdir("/")
    assert expansion.resolve(cell, str(tmp_path)).arguments()["model"].prompt.length == 3
    assert expansion.countable(cell)[0].prompt.length == 3


def test_a_key_says_what_is_read_whatever_the_names_and_folders(inputs, tmp_path):
    file = _write(inputs, tmp_path)
    keys = {cell.key for cell in expansion.expand([file]).cells}
    # Names, how a binding is written, a macro that nothing reads, and where the same data lies.
    elsewhere = shutil.copytree(inputs.data_dir, tmp_path / "elsewhere")
    renamed = _write(
        inputs,
        tmp_path,
        name="another",
        macros="LENGTHS = {'one': {'bindings': {'prompts.Prompt.length': 1}},"
        " 'five': {'bindings': {'PROMPT_LENGTH': 5}}}\n"
        "SEEDS = {'a': {'bindings': {'RANDOM_SEED': 0}}, 'b': {'bindings': {'RANDOM_SEED': 1}}}",
        axes="%AXES",
        bindings={**tiny_sweep.bindings(inputs), "TASK_DATA_DIR": str(elsewhere), "UNREAD": 1},
    )
    axes = _flags(**{"sweeps.Sweep.axes": "{'prompt_length': %LENGTHS, 'number': %SEEDS}"})
    assert {cell.key for cell in expansion.expand([renamed], flags=axes).cells} == keys
    # Where runs are written to.
    file = _write(inputs, tmp_path)
    tracked = expansion.expand([file], flags=tracker_bindings("mlflow"))
    assert {cell.key for cell in tracked.cells} == keys and not tracked.warnings
    # Any setting that is read.
    changed = expansion.expand([file], flags=_flags(BATCH_SIZE="16")).cells
    assert len(changed) == 4 and not keys & {cell.key for cell in changed}
    evaluated = expansion.expand([_write(inputs, tmp_path, evaluations={"rte": tiny_sweep.RTE})])
    assert len(evaluated.cells) == 4 and not keys & {cell.key for cell in evaluated.cells}


@pytest.mark.parametrize("what", ["training data", "checkpoint"])
def test_what_was_edited_is_another_cell(inputs, tmp_path, what):
    own = dataclasses.replace(
        inputs,
        checkpoint=shutil.copytree(inputs.checkpoint, tmp_path / inputs.checkpoint.name),
        data_dir=shutil.copytree(inputs.data_dir, tmp_path / "data"),
    )
    file = tiny_sweep.write(
        tmp_path / "sweep.gin",
        axes={"seed": tiny_sweep.seeds(0)},
        bindings=tiny_sweep.bindings(own),
    )
    (before,) = expansion.expand([file]).cells
    if what == "training data":
        edited = own.data_dir / "CB" / "train.jsonl"
        edited.write_text(edited.read_text().replace("a", "b", 1))
    else:
        edited = max(own.checkpoint.rglob("*"), key=lambda path: path.stat().st_size)
        edited.write_bytes(bytes([edited.read_bytes()[0] ^ 1]) + edited.read_bytes()[1:])
    (after,) = expansion.expand([file]).cells
    assert after.key != before.key


def test_what_an_axis_does_not_change_is_one_cell(inputs, tmp_path):
    frozen = {
        "command": "eval",
        "gin_files": tiny_sweep.EVAL,
        "bindings": {"CHECKPOINT_PATH": str(inputs.checkpoint), "PROMPT": None},
    }
    tuned = {"gin_files": tiny_sweep.TRAIN}
    counted = {**tuned, "command": "count"}
    file = _write(
        inputs,
        tmp_path,
        gin_files=[],
        axes={
            "size": {"tiny": {"gin_files": [tiny_sweep.MODEL]}},
            "method": {"frozen": frozen, "prompt": tuned, "counted": counted},
            "seed": tiny_sweep.seeds(0, 1),
        },
    )
    assert [(cell.label, cell.command) for cell in expansion.expand([file]).cells] == [
        ("size=tiny,method=frozen,seed=0", "eval"),
        ("size=tiny,method=prompt,seed=0", "train"),
        ("size=tiny,method=prompt,seed=1", "train"),
        ("size=tiny,method=counted,seed=0", "count"),
    ]


def test_an_ensemble_follows_the_cells_that_differ_in_one_axis(inputs, tmp_path):
    cells = expansion.expand([_write(inputs, tmp_path, ensemble_over="seed")]).cells
    votes = [cell for cell in cells if cell.command == ENSEMBLE]
    assert [cell.label for cell in votes] == ["length=1,seed=ensemble", "length=5,seed=ensemble"]
    for vote in votes:
        members = [cell.key for cell in cells if cell.axes["length"] == vote.axes["length"]]
        assert list(vote.members) == members[:2] and len(members) == 3


def test_a_setting_that_no_cell_reads_is_a_warning(inputs, tmp_path):
    flags = _flags(PROMPT_LENGHT="3")
    (warning,) = expansion.expand([_write(inputs, tmp_path)], flags=flags).warnings
    assert "PROMPT_LENGHT" in warning and "PROMPT_LENGTH" in warning.split("Closest")[1]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"axes": "%SIZES"}, ConfigError, "--scale=mini"),
        ({"axes": {}}, ConfigError, "axes has the wrong form"),
        ({"axes": {"seed": {0: {"binding": {}}}}}, ConfigError, "Closest matches: bindings"),
        ({"axes": {"seed": {0: {"command": "tune"}}}}, ConfigError, "'train', 'eval', 'count'"),
        ({"axes": {"seed": {0: {"gin_files": "a.gin"}}}}, ConfigError, "a list of gin files"),
        ({"gin_files": ["no_such.gin"]}, ConfigError, "gin file not found"),
        ({"ensemble_over": "sead"}, ConfigError, "Closest matches: seed"),
        ({"macros": "train.train.eval_steps = 3"}, ConfigError, "read by no run"),
        ({"titel": "Tiny"}, ConfigError, "no parameter of this name"),
    ],
)
def test_a_wrong_file_is_refused(inputs, tmp_path, change, error, text):
    with pytest.raises(error, match=text):
        expansion.expand([_write(inputs, tmp_path, **change)])


@pytest.mark.parametrize(
    ("setting", "error", "text"),
    [
        ({"BATCH_SIZE": "'8'"}, ConfigError, r"tiny length=1,seed=0: BATCH_SIZE has a value"),
        ({"MIXTURE_OR_TASK_NAME": "'taskless_cb'"}, DataError, "length=1,seed=0: Unknown task"),
        ({"RANDOM_SEED.size": "1"}, ConfigError, "no configurable has this name"),
    ],
)
def test_a_cell_that_cannot_run_is_named_before_anything_runs(
    inputs, tmp_path, setting, error, text
):
    with pytest.raises(error, match=text):
        expansion.expand([_write(inputs, tmp_path)], flags=_flags(**setting))


def test_a_missing_checkpoint_is_named_with_a_cell(inputs, tmp_path):
    flags = _flags(INITIAL_CHECKPOINT_PATH="'/no/checkpoint_1'")
    found = expansion.expand([_write(inputs, tmp_path)], flags=flags)
    with pytest.raises(ValueError, match="tiny length=1,seed=0: No checkpoint at /no/checkpoint_1"):
        expansion.check_checkpoints(found.restores)


def test_a_file_without_a_sweep_is_refused(tmp_path):
    path = tmp_path / "empty.gin"
    path.write_text("SEEDS = 1\n")
    with pytest.raises(ConfigError, match="describes no sweep"):
        expansion.expand([str(path)])


def test_gin_text_is_read_back_as_it_was():
    values = ['it\'s "so"', ["a", 1.5, None, True], {"b": (1,), "c": (1, "d")}, -3]
    assert [eval(gin_text(value)) for value in values] == values
