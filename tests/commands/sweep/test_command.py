"""`prompt-tuning sweep`: what it shows before anything runs, single cells, and flags that cannot work."""

import json
import subprocess
import types
from typing import Any

import pytest

from prompt_tuning.commands.sweep import command, overview, worker
from prompt_tuning.commands.sweep.results import Table
from prompt_tuning.errors import ConfigError
from tests.commands.sweep import tiny_sweep


@pytest.fixture
def file(inputs, tmp_path):
    """A sweep of two seeds of a prompt, and of a count."""
    axes = {
        "size": {"tiny": {"gin_files": [tiny_sweep.MODEL]}},
        "method": {"prompt": {}, "count": {"command": "count"}},
        "seed": tiny_sweep.seeds(0, 1),
    }
    bindings = tiny_sweep.bindings(inputs)
    return tiny_sweep.write(
        tmp_path / "tiny.gin", gin_files=tiny_sweep.TRAIN, axes=axes, bindings=bindings
    )


def _row(key, seconds, seed="0"):
    axes = {"size": "tiny", "method": "prompt", "seed": seed}
    return {"sweep": "tiny", "key": key, "axes": axes, "status": "done", "seconds": seconds}


def test_a_dry_run_shows_what_is_left_and_estimates_its_time(file, tmp_path, capsys):
    flags = [file, f"--output_dir={tmp_path}", "--dry_run", "--jobs=2"]
    assert command.main(flags) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["cells", "done", "failed", "missing", "waiting"]
    assert shown[1].split() == ["tiny", "3", "0", "0", "3", "0"]
    assert shown[2] == (
        "Left: 3 cells, which are 3 runs; none of their size and method has been timed yet."
    )
    assert not (tmp_path / "runs").exists() and not Table(tmp_path).read()
    assert not (tmp_path / "cells.json").exists()
    # Another sweep's cells of the same size and method say how long these take.
    table = Table(tmp_path)
    with table.locked():
        table.append({**_row("other", 1800.0), "sweep": "other"})
        table.append({**_row("another", 5400.0), "sweep": "other"})
    assert command.main(flags) == 0
    assert "about 1.00 h with --jobs=2 for 2 (an estimate" in capsys.readouterr().out


def test_printed_commands_train_and_then_add_the_row(file, tmp_path, capsys):
    flags = [file, f"--output_dir={tmp_path}", "--gin.BATCH_SIZE=4", "--print_commands"]
    assert command.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [
        "# tiny size=tiny,method=prompt,seed=0",
        "# tiny size=tiny,method=prompt,seed=1",
        "# tiny size=tiny,method=count,seed=0",
    ]
    train, cell = lines[1].split(" && ")
    assert train.startswith("prompt-tuning train --gin_file=") and "--gin.BATCH_SIZE=4" in train
    key = train.rpartition("/")[2].rstrip("\"'")
    sweep = f"prompt-tuning sweep {file} --output_dir={tmp_path} --gin.BATCH_SIZE=4 --cell="
    assert cell == f"{sweep}{key}"
    assert lines[5].startswith(sweep)


def test_no_name_of_a_cell_becomes_a_command_of_the_shell(inputs, tmp_path, capsys):
    axes = {"note": {"a\ntouch taken\r\n$(touch taken)": {}}, "seed": tiny_sweep.seeds(0)}
    bindings = tiny_sweep.bindings(inputs)
    file = tiny_sweep.write(tmp_path / "x.gin", axes=axes, bindings=bindings)
    assert command.main([file, f"--output_dir={tmp_path}", "--print_commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("# ")
    assert subprocess.run(["bash", "-n", "-c", "\n".join(lines)]).returncode == 0


def test_one_cell_runs_alone(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worker, "environment", lambda place: {})
    assert command.main([file, f"--output_dir={tmp_path}", "--print_commands"]) == 0
    key = capsys.readouterr().out.strip().rpartition("--cell=")[2]
    assert command.main([file, f"--output_dir={tmp_path}", f"--cell={key}"]) == 0
    assert capsys.readouterr().out.startswith("tiny size=tiny,method=count,seed=0 (")
    (row,) = Table(tmp_path).read()
    assert (row["key"], row["status"], row["trainable_params"]) == (key, "done", 128)
    # The report learns which cells there are to be.
    cells = json.loads((tmp_path / "cells.json").read_text())["tiny"][""]
    assert len(cells) == 3 and cells[key] == "size=tiny,method=count,seed=0"
    with pytest.raises(ConfigError, match="--cell names no cell"):
        command.main([file, f"--output_dir={tmp_path}", "--cell=0"])


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--output_dir=gs://bucket/results", "--runs_dir=gs://bucket/results"),
        ("--jobs=0", "--jobs leaves nobody to work"),
        ("--gin.BATCH_SIZE", "A gin flag has no value"),
    ],
)
def test_flags_that_cannot_work_are_refused(flag, text):
    with pytest.raises(ConfigError, match=text):
        command.main(["tiny.gin", "--output_dir=results", flag])


def test_a_plan_has_a_line_for_each_size_and_method():
    def cell(size, method, command="train") -> Any:
        axes = {"size": size, "method": method}
        return types.SimpleNamespace(axes=axes, command=command, sweep="tiny")

    def measure(cell, topology):
        fits = cell.axes["size"] != "large"
        return types.SimpleNamespace(
            fits=fits, hours=0.5, chip_hours=4.0, peak_bytes_per_core=3 * 2**30
        )

    cells = [cell("small", "prompt"), cell("small", "prompt"), cell("small", "text", "eval")]
    lines = overview.on_topology([*cells, cell("large", "model")], "v5e:2x4", measure)
    assert list(lines)[1:] == [
        "  small prompt: 3.0 GiB a core, 0.5 h a cell, 8 chip hours for 2",
        "  large model: does not fit",
    ]
