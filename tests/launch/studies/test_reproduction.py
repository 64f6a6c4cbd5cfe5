"""The page of what was reproduced: its tables come from rows, and its commands are sweeps that exist."""

import contextlib
import json
import pathlib
import types

import pytest

from prompt_tuning.commands.report import rows
from prompt_tuning.launch import pages
from prompt_tuning.launch.studies import reproduction
from tests.commands.report import rows_fixture

_ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of documentation, written from made-up rows."""
    folder = tmp_path_factory.mktemp("docs")
    results = rows_fixture.write_everything(folder / "results")
    (folder / "reproduction.md").write_text(f"before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n")
    with contextlib.chdir(folder):
        reproduction.main([f"--output_dir={results}", f"--docs_dir={folder}", "--write_only"])
    return folder


def test_the_page_has_claims_cells_and_scores_between_its_markers(written):
    text = (written / "reproduction.md").read_text()
    assert text.startswith(f"before\n{pages.BEGIN}") and text.endswith("after\n")
    assert "old" not in text
    assert "| Figure 3a | More than one token is critical for most sizes." in text
    assert "| appendix_search | mini | 4 | 0 | 0 |" in text
    for name in ("figure_1", "figure_3a", "figure_3b", "figure_3c", "figure_3d"):
        assert f"{name}, mini scale: mean ± standard deviation over seeds" in text
    for heading in ("Figure 1: model size", "Table 4: parameters", "Real data: SST-2"):
        assert f"\n## {heading}" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_rows_are_copied_without_paths_of_the_machine(written):
    lines = (written / "reproduction/results.jsonl").read_text().splitlines()
    copied = [json.loads(line) for line in lines]
    read = rows.read([str(written / "results")])
    assert len(copied) == sum(len(sweep.cells) for sweep in read.sweeps)
    assert all("model_dir" not in row and "log" not in row for row in copied)
    assert all(row["command"] for row in copied)
    # What is read again is what was measured.
    again = rows.read([str(written / "reproduction")])
    scores = lambda results: [[c.get("score") for c in s.cells] for s in results.sweeps]  # noqa: E731
    assert scores(again) == scores(read)


def test_the_report_lies_beside_the_page_and_names_no_folder_of_the_machine(written):
    assert (written / "reproduction/figures/figure_1.mini.png").exists()
    html = (written / "reproduction/index.html").read_text()
    assert "prompt-tuning report reproduction --output_dir=reproduction" in html
    assert str(written) not in html


def test_every_sweep_is_a_file_that_ships():
    flags = reproduction.parse(
        ["--output_dir=/r", "--superglue_dir=/s", "--glue_dir=/g", "--jobs=2"]
    )
    mini, counts, real = reproduction.sweeps(flags)
    files = [word for words in (mini, counts, real) for word in words if word.endswith(".gin")]
    assert all((_ROOT / name).is_file() for name in files)
    there = {
        f"prompt_tuning/configs/paper/{path.name}"
        for path in (_ROOT / "configs/paper").glob("*.gin")
    }
    # The released prompts are evaluated by another command.
    assert there - set(files) == {"prompt_tuning/configs/paper/released_prompts.gin"}
    assert "--scale=full" in counts and {"--scale=mini", "--jobs=2"} <= set(mini)
    assert "--gin.TASK_DATA_DIR='/s'" in real


def test_real_data_is_left_out_without_its_folders(capsys):
    assert len(reproduction.sweeps(reproduction.parse(["--output_dir=/r"]))) == 2
    with pytest.raises(SystemExit):
        reproduction.parse(["--output_dir=/r", "--superglue_dir=/s"])
    assert "needs both" in capsys.readouterr().err


def test_a_command_that_breaks_ends_it_and_a_failed_cell_does_not(monkeypatch):
    codes = iter((3, 1))
    monkeypatch.setattr(
        reproduction.subprocess,
        "run",
        lambda *_, **__: types.SimpleNamespace(returncode=next(codes)),
    )
    with pytest.raises(SystemExit) as ended:
        reproduction.main(["--output_dir=/r"])
    assert ended.value.code == 1 and next(codes, None) is None
