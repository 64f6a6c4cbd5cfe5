"""The command: flags, what it prints, what it refuses."""

from prompt_tuning import cli
from tests.commands.report import rows_fixture


def test_the_command_line_reaches_the_report(tmp_path, capsys):
    found = rows_fixture.rows("table_4")
    folder = rows_fixture.write(tmp_path / "results", *found[1:], '{"torn')
    out = tmp_path / "out"
    assert cli.main(["report", str(folder), f"--output_dir={out}"]) == 0
    printed = capsys.readouterr()
    assert "table_4, mini scale: 23 cells done, 0 failed, 1 missing" in printed.out
    assert f"The report: {out / 'index.html'}" in printed.out
    assert "line 24 is torn" in printed.err
    assert (out / "index.html").exists()
