"""The launchers' commands on the pages about them, as bash hands them over, are understood by the launchers."""

import importlib
import re
import shlex
import shutil
import subprocess

import pytest

from tests.helpers import REPO
from tests.launch import stand_ins

NAMES = ("launch", "notebook", "gke")
PAGES = [REPO / f"docs/machines/{name}.md" for name in NAMES]


# Writes its name and its words down, and COMMAND for SkyPilot; lists a cell where a sweep is asked for its cells.
_RECORDER = """#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" "${COMMAND:-}" $'\\1' >>"$RECORD"
[[ $* != *--print_commands* ]] || echo "# sweep size=a
prompt-tuning train --gin.A='b  c' && prompt-tuning sweep --cell=1
# sweep size=a
prompt-tuning sweep --cell=2"
"""


def _commands(page, tmp_path):
    """The words of every `python`, `prompt-tuning` and `sky` of a page, whose commands run in order, with stand-ins."""
    text = page.read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    stand_ins.install(tmp_path / "bin", python=_RECORDER, prompt_tuning=_RECORDER, sky=_RECORDER)
    (tmp_path / "bin/grep").symlink_to(str(shutil.which("grep")))
    (tmp_path / "record").touch()
    env = {"PATH": str(tmp_path / "bin"), "RECORD": str(tmp_path / "record")}
    subprocess.run(
        ["/bin/bash"], input=script, text=True, env=env, cwd=tmp_path, capture_output=True
    )
    return stand_ins.programs(tmp_path / "record")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_are_dry_runs_that_work(page, tmp_path, capsys):
    shown = re.findall(r"python -m prompt_tuning\.launch\.(\w+) \\\n", page.read_text("utf-8"))
    found = [
        words[1:-1] for words in _commands(page, tmp_path) if "prompt_tuning.launch" in words[2]
    ]
    assert [words[1].rpartition(".")[2] for words in found] == shown
    for words in found:
        module = importlib.import_module(words[1])
        # Pages show what a launcher would do before they have it done.
        assert "--dry_run" in words
        assert module.main(words[2:]) == 0
        script = capsys.readouterr().out
        assert "gs://my-project-prompts/xxl" in script
        assert "my-project" in script and "--project= " not in script


def test_the_commands_for_skypilot_hand_over_what_was_checked(tmp_path):
    found = _commands(REPO / "docs/machines/sky.md", tmp_path)
    by_name = {name: [w for w in found if w[0] == name] for name in ("prompt-tuning", "sky")}
    checked, planned, *_ = by_name["prompt-tuning"]
    assert checked[1] == "train" and checked[-2] == "--dry_run"
    assert planned[1:-1] == ["plan", "--topology=v5e:2x4", *checked[2:-2]]
    launched = [w for w in by_name["sky"] if w[1:3] == ["jobs", "launch"]]
    of_run, of_cell = launched
    data = "--tfds_data_dir=gs://my-project-prompts/tfds"
    assert shlex.split(of_run[-1]) == [*checked[:-2], data]
    assert "COMMAND=prompt-tuning train --gin.A='b  c'" in of_cell
